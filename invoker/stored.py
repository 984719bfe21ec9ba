"""Reading what is stored by exact ids, in parts and by pages: for programs that serve many, such as the gateway.

Unlike the client's own methods nothing here guesses (`meant` is asked to): an id is whole, a page has its place, a part
its first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from invoker import wire
from invoker.chains import ChainFollower
from invoker.claimcheck import ClaimStore
from invoker.dead_letters import DeadLetterReader
from invoker.errors import UnknownIdError
from invoker.listing import FinishedRows, RunFilter, RunListing
from invoker.lookup import Found, Lookup, Sees
from invoker.request import Content
from invoker.result import Result
from invoker.run_log import RunLogs
from invoker.views import Chain, DeadLetter, LogLine, RequestView, RunRow, RunView

_SEARCHES = 2
"""Searches through a whole stream at once: ids that were never there must not keep the server busy."""


class Stored:
    """What one instance has stored. Every method may raise `ServerUnreachableError`."""

    def __init__(
        self,
        lookup: Lookup,
        listing: RunListing,
        claims: ClaimStore,
        logs: RunLogs,
        dead: DeadLetterReader,
        chains: ChainFollower,
    ) -> None:
        self._lookup = lookup
        self._chains = chains
        self._listing = listing
        self._claims = claims
        self._logs = logs
        self._dead = dead
        self._searching = asyncio.Semaphore(_SEARCHES)

    async def request(self, request_id: str) -> RequestView:
        """The request of exactly that id. Raises `UnknownIdError` (with `dead_id` and `topic` for an event that became
        a dead letter) or `ExpiredError`."""
        return await self._lookup.exact(request_id)

    async def refuse_dead(self, given: str) -> None:
        """Raise `UnknownIdError`, as `request` does, when the event of exactly that id has become a dead letter.

        For who waits: however many ask at once, one reading of the letters answers them all.
        """
        await self._lookup.refuse_dead(given, wire.canonical_id(given))

    async def meant(self, given: str, sees: Sees | None = None) -> Found:
        """What an id stands for that a person typed: whole, shortened or `@latest`, the latter two among what `sees`
        lets through. Raises `UnknownIdError`, `ExpiredError` and `AmbiguousIdError`."""
        async with self._searching:
            return await self._lookup.meant(given, sees)

    async def run_of_id(self, run_id: str, *, before: int | None = None) -> Found | None:
        """Whose run that is; None when there is none. Below the sequence `before` the whole stream is looked at."""
        async with self._searching:
            return await self._lookup.run_of_id(run_id, before=before)

    async def run(self, found: Found) -> tuple[RunView, str]:
        """That run and its topic as they are now. Raises `UnknownIdError`."""
        run = await self._lookup.one_run(found)
        if run is None:
            raise UnknownIdError(f"request {found.request_id} has no run of the function {found.function!a}")
        return run

    async def rows(
        self, wanted: RunFilter, *, before: str | None = None, recent: FinishedRows | None = None
    ) -> AsyncGenerator[RunRow, None]:
        """The wanted runs, unfinished before finished, each part newest first; `before` is a row's cursor."""
        async with aclosing(self._listing.rows(wanted, before=before, recent=recent)) as rows:
            async for row in rows:
                yield row

    async def unfinished(self, wanted: RunFilter, *, at_once: int = 20) -> AsyncGenerator[RunRow, None]:
        """The wanted runs that have not finished, newest first, so many read at a time."""
        async with aclosing(self._listing.unfinished(wanted, at_once=at_once)) as rows:
            async for row in rows:
                yield row

    async def first_unfinished(self, function: str, limit: int) -> list[RunRow]:
        """So many of the function's unfinished runs, those that were accepted first, oldest first."""
        return await self._listing.first_unfinished(function, limit)

    async def has(self, content: Content) -> bool:
        """Whether the bytes are still there."""
        return content.claim is None or await self._claims.find(content.claim.object) is not None

    async def open(self, content: Content) -> AsyncIterator[bytes]:
        """The bytes in chunks. Raises `ClaimCheckError` instead of giving the last chunk of bytes that are not what was
        promised, so that who passes chunks on never completes them."""
        if content.claim is None:
            yield content.inline_bytes() or b""
            return
        held = b""
        async for chunk in self._claims.open(content.claim):
            if held:
                yield held
            held = chunk
        yield held

    async def part(self, content: Content, first: int, last: int) -> AsyncIterator[bytes]:
        """The bytes from `first` to `last`, both included, unchecked; see `ClaimStore.part`."""
        if content.claim is None:
            yield (content.inline_bytes() or b"")[first : last + 1]
            return
        async for chunk in self._claims.part(content.claim, first, last):
            yield chunk

    async def log(self, run: RunView, *, follow: bool) -> AsyncGenerator[LogLine, None]:
        """The lines of a run, oldest first; with `follow` also the coming ones until it ends."""
        async with aclosing(self._logs.lines(run, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def kept_log(self, result: Result) -> AsyncGenerator[LogLine, None]:
        """The lines that are stored with a result, oldest first: what is left when the run is held by nobody."""
        async with aclosing(self._logs.kept(result)) as lines:
            async for line in lines:
                yield line

    async def accepted(self, request_id: str) -> RequestView | None:
        """The request of exactly that id, None while it is not accepted; cheaper than `request` when there is none."""
        answers = await self._lookup.store.answers(request_id)
        return await self._lookup.view_of(request_id, answers) if answers.record is not None else None

    async def chain(self, view: RequestView, most: int) -> Chain:
        """The chain from that request on, of at most so many requests: what Invoker itself published for its runs."""
        return await self._chains.below(view, most)

    async def dead_letters(self, limit: int, before: int | None = None) -> list[tuple[int, DeadLetter]]:
        """Dead letters without their bytes, newest first, each with its place; `before` is such a place."""
        return await self._dead.page(limit, before)

    async def dead_letter(self, dead_id: str) -> DeadLetter:
        """The dead letter of exactly that id. Raises `UnknownIdError`."""
        return await self._dead.exact(dead_id)
