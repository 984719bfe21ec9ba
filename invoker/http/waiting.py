"""Waiting at a gateway: in pieces of a minute at most, so that nothing between has to keep a silent connection for
longer, and gone on with when a connection breaks or the gateway is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from invoker import wire
from invoker.chains import chain_expired
from invoker.errors import InvokerError, RateLimitedError, ServerUnreachableError, UnknownIdError
from invoker.http.calls import RESUME_SECONDS, Call, Calls
from invoker.http.documents import chain_of_document, run_of
from invoker.http.finding import Finder, quoted
from invoker.lookup import LATEST, Found
from invoker.result import Result
from invoker.views import Chain, RequestView
from invoker.waiting import narrowed, wait_expired

PIECE_SECONDS = 60.0
_SETTLING_SECONDS = 2.0
"""A chain without unfinished runs is asked about so long at once: the next stage may begin."""

T = TypeVar("T")


class Waiter:
    """Waits for requests at one gateway."""

    def __init__(self, calls: Calls, finder: Finder) -> None:
        self._calls = calls
        self._finder = finder

    async def view(self, given: str, wait: float) -> RequestView:
        """The request as it is, or complete within `wait` seconds; see `Client.result`."""
        if wait <= 0:
            found, view = await self._finder.view(given)
            return narrowed(view, found.function)
        deadline = _now() + wait
        view = RequestView(wire.canonical_id(given), "", None)
        found, view = await self._known(given, view, deadline, wait)
        while not view.complete:
            if _now() >= deadline:
                raise wait_expired(view, wait)
            view = await patiently(lambda left: self._finished(found, left), deadline)
        return view

    async def results(self, given: str, wait: float | None) -> AsyncGenerator[Result, None]:
        """The results as they come; see `Client.results`."""
        deadline = _now() + wait if wait is not None else None
        empty = RequestView(wire.canonical_id(given), "", None)
        found, _ = await self._known(given, empty, deadline, wait or 0.0)
        async with aclosing(self._calls.events(f"/v1/requests/{quoted(found.request_id)}/stream")) as events:
            while True:
                try:
                    # The limit holds while we wait, not while the caller works on a result.
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                        if event.name != "result" or found.function not in (None, event.document["function"]):
                            continue
                        result = await self.result(event.document["run_id"])
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise wait_expired(await self._finder.narrowed(found), wait or 0.0) from None
                yield result
                if found.function is not None:
                    return

    async def chain(self, given: str, wait: float) -> Chain:
        """The chain, with `wait` seconds once it is settled; see `Client.chain`."""
        if wait <= 0:
            return await self._chain((await self._finder.view(given))[0].request_id)
        deadline = _now() + wait
        found, _ = await self._known(given, RequestView(wire.canonical_id(given), "", None), deadline, wait)
        chain: Chain | None = None
        while chain is None or not chain.settled:
            if chain is not None and _now() >= deadline:
                raise chain_expired(chain.root.view.request_id, chain, wait)
            chain = await patiently(lambda left: self._chain(found.request_id, left), deadline)
        return chain

    async def follow_chain(self, given: str) -> AsyncGenerator[Chain, None]:
        """The chain as it is, then after every change, at last with `settled`."""
        found, _ = await self._finder.view(given)
        async with aclosing(self._calls.events("/v1/stream", {"statuses": "false"})) as events:
            async for event in events:
                if event.name == "open":
                    break  # from here on nothing slips by
            chain = await self._chain(found.request_id)
            yield chain
            while not chain.settled:
                if all(view.complete for view in chain.views):
                    newer = await self._chain(found.request_id, _SETTLING_SECONDS)
                else:
                    await self._change(events, chain)
                    newer = await self._chain(found.request_id)
                if newer != chain:
                    yield newer
                chain = newer

    async def _change(self, events: AsyncGenerator[Any, None], chain: Chain) -> None:
        """Wait for an event about the chain."""
        members = {view.request_id for view in chain.views}
        root = chain.root.view.record.root_request_id if chain.root.view.record else chain.root.view.request_id
        async for event in events:
            document = event.document or {}
            known = document.get("request_id") in members or document.get("root_request_id") == root
            if known or event.name == "gap":
                return
        raise ServerUnreachableError("the gateway ended its stream of events")

    async def _known(
        self, given: str, empty: RequestView, deadline: float | None, wait: float
    ) -> tuple[Found, RequestView]:
        """What the id stands for, once it is there: it may be published in a moment."""
        pause = 0.1
        while True:
            try:
                return await self._finder.view(given)
            except UnknownIdError as error:
                left = deadline - _now() if deadline is not None else PIECE_SECONDS
                if given in (LATEST, "") or type(error) is not UnknownIdError or "dead_id" in error.fields:
                    raise
                if left <= 0:
                    raise wait_expired(empty, wait) from error
            await asyncio.sleep(min(pause, left))
            pause = min(1.0, pause * 2)

    async def _finished(self, found: Found, left: float) -> RequestView:
        """The request once it (or its one run that is meant) has finished, or as it is after so many seconds."""
        path = f"/v1/requests/{quoted(found.request_id)}"
        if found.function is not None:
            path = f"/v1/runs/{wire.run_id_of(found.request_id, found.function)}"
        await self._calls.once(Call("GET", path, {"wait": f"{left:.3f}"}, wait=left))
        return await self._finder.narrowed(found)

    async def _chain(self, request_id: str, wait: float = 0.0) -> Chain:
        path = f"/v1/requests/{quoted(request_id)}/chain"
        if wait <= 0:
            return chain_of_document((await self._calls.get(path)).document)
        answer = await self._calls.once(Call("GET", path, {"wait": f"{wait:.3f}"}, wait=wait))
        return chain_of_document(answer.document)

    async def result(self, run_id: str) -> Result:
        """The result of a run that has finished."""
        run = run_of((await self._calls.get(f"/v1/runs/{quoted(run_id)}")).document)
        if run.result is None:
            raise InvokerError(f"the gateway told of a result of run {run_id} and has none")
        return run.result


async def patiently(ask: Callable[[float], Awaitable[T]], deadline: float) -> T:
    """What `ask` gives within a piece of the time that is left; a gateway that is away is asked again until then.

    The work goes on without it: what broke is the waiting only.
    """
    while True:
        left = deadline - _now()
        try:
            return await ask(max(0.0, min(left, PIECE_SECONDS)))
        except RateLimitedError as error:
            pause = max(RESUME_SECONDS, float(error.fields.get("retry_after_seconds") or 0.0))
            if left <= pause:
                raise
        except ServerUnreachableError:
            pause = RESUME_SECONDS
            if left <= pause:
                raise
        await asyncio.sleep(pause)


def _now() -> float:
    return asyncio.get_running_loop().time()
