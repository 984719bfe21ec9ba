"""Waiting for a request's results: what is stored already and what is stored next come from one subscription, so
nothing is polled and nothing slips in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from invoker import wire
from invoker.ending import cancelled
from invoker.errors import ExpiredError, InvokerError, ServerUnreachableError, UnknownIdError, WaitExpiredError
from invoker.lookup import LATEST, Found, Lookup
from invoker.reading import StoredMessage, StreamReader
from invoker.request import RequestRecord
from invoker.result import Result
from invoker.views import RequestView, request_view

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.1, 5.0


class Waiter:
    """Waits for the requests of one instance."""

    def __init__(self, reader: StreamReader, lookup: Lookup, names: wire.Names) -> None:
        self._reader = reader
        self._lookup = lookup
        self._names = names

    async def view(self, given: str, wait: float) -> RequestView:
        """The request as it is, or complete within `wait` seconds; see `Client.result`."""
        if wait <= 0:
            found, view = await self._lookup.view(given)
            return narrowed(view, found.function)
        view = RequestView(wire.canonical_id(given), "", None)
        try:
            async with asyncio.timeout(wait):
                found, view = await self._known(given)
                view = narrowed(view, found.function)
                if not view.complete:
                    async with aclosing(self._changes(found)) as changes:
                        async for change in changes:
                            view = change
        except TimeoutError:
            raise await self._expired(given, view, wait) from None
        return view

    async def results(self, given: str, wait: float | None) -> AsyncGenerator[Result, None]:
        """The results as they come; see `Client.results`."""
        seen: set[str] = set()
        view = RequestView(wire.canonical_id(given), "", None)
        deadline = None if wait is None else asyncio.get_running_loop().time() + wait
        try:
            async with asyncio.timeout_at(deadline):
                found, view = await self._known(given)
            async with aclosing(self._changes(found)) as changes:
                while True:
                    # The limit holds while we wait, not while the caller works on a result.
                    async with asyncio.timeout_at(deadline):
                        try:
                            view = await anext(changes)
                        except StopAsyncIteration:
                            return
                    for result in view.results:
                        if result.run_id not in seen:
                            seen.add(result.run_id)
                            yield result
        except TimeoutError:
            raise await self._expired(given, view, wait or 0.0) from None

    async def root_of(self, given: str, wait: float) -> str:
        """The request that the given one's chain began with, waiting for its acceptance if need be."""
        try:
            async with asyncio.timeout(wait if wait > 0 else None):
                found, view = await self._known(given) if wait > 0 else await self._lookup.view(given)
        except TimeoutError:
            view = RequestView(wire.canonical_id(given), "", None)
            raise await self._expired(given, view, wait) from None
        return view.record.root_request_id if view.record is not None else found.request_id

    async def _known(self, given: str) -> tuple[Found, RequestView]:
        """What the id stands for, once it is there."""
        try:
            found, view = await self._lookup.view(given)
            if view.record is not None or view.runs:
                return found, view
        except ExpiredError:
            raise
        except UnknownIdError as error:
            if given in (LATEST, "") or "dead_id" in error.fields:
                raise
        # Published a moment ago, or about to be: its record is what comes next, or a dead letter in its place.
        request_id = wire.canonical_id(given)
        subjects = [self._names.accepted(request_id)]
        async with self._reader.tail(self._names.results_stream, subjects, headers_only=True) as tail:
            accepted = asyncio.ensure_future(anext(tail))
            try:
                await self._accepted_or_dead(given, request_id, accepted)
            finally:
                await cancelled(accepted)
        return Found(request_id), await self._lookup.view_of(request_id)

    async def _accepted_or_dead(self, given: str, request_id: str, accepted: asyncio.Future[StoredMessage]) -> None:
        """Returns once the request is accepted; raises `UnknownIdError` once its event is a dead letter: no waiting
        would bring it back. Looked for with growing pauses, since dead letters are few and nothing announces one."""
        pause = _FIRST_LOOK_SECONDS
        while not accepted.done():
            await asyncio.wait({accepted}, timeout=pause)
            if not accepted.done():
                with suppress(ServerUnreachableError):  # an outage is a pause, as it is for who waits
                    await self._lookup.refuse_dead(given, request_id)
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        accepted.result()

    async def _changes(self, found: Found) -> AsyncGenerator[RequestView, None]:
        """The request after every stored document of it, until it is complete."""
        record: RequestRecord | None = None
        results: dict[str, Result] = {}
        subjects = [
            self._names.accepted(found.request_id),
            self._names.result(found.request_id, found.function or "*"),
        ]
        async with self._reader.tail(self._names.results_stream, subjects) as tail:
            async for message in tail:
                if message.subject == subjects[0]:
                    record = RequestRecord.model_validate_json(message.data)
                else:
                    result = Result.model_validate_json(message.data)
                    results[result.function] = result
                view = narrowed(request_view(found.request_id, record, results, {}), found.function)
                yield view
                if view.complete:
                    return

    async def _expired(self, given: str, view: RequestView, wait: float) -> InvokerError:
        """The error, with the latest there is: nothing that had come is lost."""
        try:
            found, view = await self._lookup.view(given)
            view = narrowed(view, found.function)
        except UnknownIdError as error:
            if "dead_id" in error.fields:
                return error  # it became a dead letter while we waited, and says why
        return wait_expired(view, wait)


def wait_expired(view: RequestView, wait: float) -> WaitExpiredError:
    """The error after that many seconds in vain; `partial` is the view. Pure."""
    done, all_runs = len(view.results), len(view.runs)
    words = f"{done} of {all_runs} runs finished" if all_runs else "the event is not accepted yet"
    expired = WaitExpiredError(
        f"{words} within {wait:g} s for request {view.request_id}; the work goes on",
        hint=f"invoker result {view.request_id} --wait 60",
        request_id=view.request_id,
    )
    expired.partial = view
    return expired


def narrowed(view: RequestView, function: str | None) -> RequestView:
    """The request with the run of that function only; None is all of it. Pure."""
    if function is None:
        return view
    run = view.run(function)
    return RequestView(view.request_id, view.topic, view.record, (run,) if run is not None else ())
