"""A chain: the request it began with, and every request that its runs caused, followed until nothing more can come.

Children are found by the headers of their records, which always stand behind the root's in the stream. When a chain has
ended is decided by custody, in this order: every known run has its result; its message has left RUNS (so what it
publishes next is stored); EVENTS has moved past everything stored until then (so it is accepted); and RESULTS has
nothing newer of this chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from invoker import wire
from invoker.errors import WaitExpiredError
from invoker.lookup import Lookup
from invoker.reading import StoredMessage, StreamReader, Tail
from invoker.results.nats import ResultStream
from invoker.views import Chain, RequestView, chain_of

_CHECK_SECONDS = (0.02, 0.5)
"""Pause between two looks at whether a chain with no unfinished run has ended: the first, and the longest."""

_POSITIONS_AT_ONCE = 8
"""Events that a run published itself which are asked for at once."""

_TOGETHER_SECONDS = 0.05
"""Changes within this time are told as one."""


def chain_expired(root_request_id: str, chain: Chain | None, wait: float) -> WaitExpiredError:
    """The error after that many seconds in vain; `partial` is the chain so far. Pure."""
    error = WaitExpiredError(
        f"the chain of request {root_request_id} has not ended within {wait:g} s; it goes on",
        hint=f"invoker result {root_request_id} --chain --wait 60",
        request_id=root_request_id,
    )
    error.partial = chain
    return error


class ChainFollower:
    """Reads the chains of one instance."""

    def __init__(self, reader: StreamReader, lookup: Lookup, results: ResultStream, names: wire.Names) -> None:
        self._reader = reader
        self._lookup = lookup
        self._results = results
        self._names = names

    async def follow(self, root_request_id: str) -> AsyncGenerator[Chain, None]:
        """The chain as it is, then after every change, at last with `settled`; then it ends."""
        known = await self._known(root_request_id)
        yield known.chain()
        stream = self._names.results_stream
        async with self._reader.tail(stream, self._subjects, first=known.position, headers_only=True) as tail:
            pause = _CHECK_SECONDS[0]
            while not await self._settled(known):
                changed = await self._change(tail, known, pause if known.all_finished else None)
                pause = _CHECK_SECONDS[0] if changed else min(pause * 2, _CHECK_SECONDS[1])
                if changed:
                    yield known.chain()
        yield known.chain(settled=True)

    async def settled(self, root_request_id: str, wait: float) -> Chain:
        """The chain once nothing more can come. Raises `WaitExpiredError` after `wait` seconds, with the chain so far
        as its `partial`."""
        chain: Chain | None = None
        try:
            async with asyncio.timeout(wait), aclosing(self.follow(root_request_id)) as changes:
                async for change in changes:
                    chain = change
        except TimeoutError:
            pass
        if chain is not None and chain.settled:
            return chain
        raise chain_expired(root_request_id, chain, wait)

    async def now(self, root_request_id: str) -> Chain:
        """The chain as it is, with `settled` when nothing more can come."""
        known = await self._known(root_request_id)
        return known.chain(settled=await self._settled(known))

    async def below(self, view: RequestView, most: int) -> Chain:
        """The chain from that request on, of at most so many requests, parents before their children.

        They are found by the ids that events of runs are given, so this costs the same however much was stored since.
        What a function published by itself, under an id of its own, is not among them.
        """
        known = _Known(view.request_id)
        known.position = (await self._reader.state(self._names.results_stream)).state.last_seq + 1
        known.stale = {}
        level = [view]
        while level and len(known.views) < most:
            known.views |= {one.request_id: one for one in level[: most - len(known.views)]}
            following = [*level, *await self._caused_by(level)]
            level = [one for one in following if one.request_id not in known.views]
        known.members |= set(known.views)
        settled = not level and await self._settled(known)
        return chain_of(view.request_id, known.views, settled=settled, is_cut=bool(level))

    async def _caused_by(self, views: Sequence[RequestView]) -> list[RequestView]:
        """The requests that the runs of these caused."""
        runs = [run for view in views for run in view.runs]
        ended = [run.run_id for run in runs if run.finished]
        ids = [wire.chained_id(run_id, kind) for run_id in ended for kind in ("onSuccess", "onFailure")]
        found = await self._lookup.accepted_of(ids)
        asked, first = [run.run_id for run in runs], 0
        while asked:
            positions = range(first, first + _POSITIONS_AT_ONCE)
            by_run = {one: [wire.chained_id(one, "published", position) for position in positions] for one in asked}
            published = await self._lookup.accepted_of([one for ids in by_run.values() for one in ids])
            found += published
            there = {one.request_id for one in published}
            asked = [one for one, ids in by_run.items() if ids[-1] in there]
            first += _POSITIONS_AT_ONCE
        return found

    @property
    def _subjects(self) -> list[str]:
        return [self._names.accepted("*"), self._names.result("*", "*")]

    async def _known(self, root_request_id: str) -> _Known:
        """The chain as far as it is stored now."""
        stream, known = self._names.results_stream, _Known(root_request_id)
        last = (await self._reader.state(stream)).state.last_seq
        root = await self._reader.last(stream, self._names.accepted(root_request_id))
        first = root.sequence if root is not None else last + 1
        for message in await self._reader.between(stream, self._subjects, first, last):
            known.take(message)
        known.position = last + 1
        await self._refresh(known)
        return known

    async def _change(self, tail: Tail, known: _Known, within: float | None) -> bool:
        """Wait for the next message of the chain, at most `within` seconds; True when there was one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not known.take(await anext(tail)):
                    known.position = tail.position
            # What comes right behind is taken along: a tree made anew for each of a thousand requests never keeps up.
            async with asyncio.timeout(_TOGETHER_SECONDS):
                while True:
                    known.take(await anext(tail))
        known.position = tail.position
        return await self._refresh(known)

    async def _refresh(self, known: _Known) -> bool:
        """Read anew the requests that changed; True when there were any."""
        stale, known.stale = list(known.stale), {}
        for request_id, view in zip(stale, await self._views(stale), strict=True):
            known.views[request_id] = view
        return bool(stale)

    async def _views(self, request_ids: list[str]) -> list[RequestView]:
        return list(await asyncio.gather(*(self._lookup.view_of(request_id) for request_id in request_ids)))

    async def _settled(self, known: _Known) -> bool:
        if not known.all_finished:
            return False
        runs = [run for view in known.views.values() for run in view.runs if run.run_id not in known.released]
        tickets = await asyncio.gather(*(self._results.ticket(run.run_id, run.function) for run in runs))
        known.released |= {run.run_id for run, ticket in zip(runs, tickets, strict=True) if ticket is None}
        if any(ticket is not None for ticket in tickets):
            return False
        if not await self._accepted_until_now(known):
            return False
        return await self._nothing_new(known)

    async def _accepted_until_now(self, known: _Known) -> bool:
        state = (await self._reader.state(self._names.events_stream)).state
        if known.events_until is None:
            known.events_until = state.last_seq
        return state.messages == 0 or state.first_seq > known.events_until

    async def _nothing_new(self, known: _Known) -> bool:
        """Nothing that is stored by now, and was not read yet, belongs to this chain."""
        last = (await self._reader.state(self._names.results_stream)).state.last_seq
        found = await self._reader.between(self._names.results_stream, self._subjects, known.position, last)
        return not any(known.belongs(message) for message in found)


class _Known:
    """What is known of one chain while it is followed."""

    def __init__(self, root_request_id: str) -> None:
        self.root = root_request_id
        self.views: dict[str, RequestView] = {}
        self.members = {root_request_id}
        self.stale: dict[str, None] = {root_request_id: None}
        """Requests to be read again, in the order of their acceptance."""
        self.released: set[str] = set()
        self.events_until: int | None = None
        self.position = 1
        """The sequence of RESULTS from which on nothing has been read yet."""

    @property
    def all_finished(self) -> bool:
        return bool(self.views) and all(view.complete for view in self.views.values())

    def belongs(self, message: StoredMessage) -> bool:
        request_id = wire.header(message.headers, wire.H_REQUEST_ID)
        return request_id in self.members or wire.header(message.headers, wire.H_ROOT_REQUEST_ID) == self.root

    def take(self, message: StoredMessage) -> bool:
        """Remember that the message's request has changed, if it is of this chain."""
        request_id = wire.header(message.headers, wire.H_REQUEST_ID)
        if request_id is None or not self.belongs(message):
            return False
        self.members.add(request_id)
        self.stale[request_id] = None
        self.events_until = None
        return True

    def chain(self, *, settled: bool = False) -> Chain:
        return chain_of(self.root, self.views, settled=settled)
