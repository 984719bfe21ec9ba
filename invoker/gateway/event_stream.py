"""Event streams: `GET /v1/stream` tells everything the caller may see, `GET /v1/requests/{id}/stream` one request.

Every event of something stored has as its id the place of its document in the RESULTS stream, the same at every
gateway: who comes again with the last one he saw, to whichever gateway, is told what came behind it, without loss and
without gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.feed import Feed, FeedItem, Watch
from invoker.gateway.access.scopes import Action
from invoker.gateway.door import caller_of
from invoker.gateway.event_documents import Gap, Opened, end_frame, item_frame, status_frame
from invoker.gateway.gateway import Gateway
from invoker.gateway.known_queries import known_queries
from invoker.gateway.openapi_parts import EVENTS
from invoker.gateway.runs import FunctionFilter, TopicFilter
from invoker.gateway.server_sent import BEGINNING, COMMENT, EventStream, frame, last_event_id
from invoker.gateway.sight import Sight, needs_nats
from invoker.result import RunStatusDocument
from invoker.views import RequestView

COMMENT_SECONDS = 15.0


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["events"], dependencies=[needs_nats(gateway)])

    @routes.get(
        "/v1/stream",
        response_class=Response,
        responses=EVENTS,
        status_code=200,
        dependencies=[known_queries("last_event_id")],
    )
    async def stream(
        request: Request,
        function: FunctionFilter = None,
        topic: TopicFilter = None,
        statuses: Annotated[bool, Query(description="Also news of unfinished runs, which are lossy")] = True,
    ) -> Response:
        """What is stored about requests and runs, as it is stored: events `accepted`, `result` and `status`.

        Without `Last-Event-ID` from now on, with it from there on.
        """
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        wanted = Wanted(sight, function, wire.check_pattern(topic) if topic else None)
        return EventStream(_everything(gateway, wanted, last_event_id(request), statuses), gateway)

    @routes.get("/v1/requests/{request_id}/stream", response_class=Response, responses=EVENTS, status_code=200)
    async def request_stream(request_id: str, request: Request) -> Response:
        """One request from its acceptance to its last result, with news of its unfinished runs; then `end`.

        Who comes again with the id of the last result is answered 204: there is nothing more.
        """
        sight = Sight(gateway, caller_of(request))
        view = await sight.request(request_id)
        after = last_event_id(request) or 0
        if after and view.complete and not await _anything(gateway.client.feed, after, view.request_id):
            return Response(status_code=204)
        return EventStream(_one_request(gateway, Wanted(sight), view, after), gateway)

    return routes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a stream is about: what its caller may see, and asked for."""

    sight: Sight
    function: str | None = None
    topic: str | None = None

    def item(self, item: FeedItem) -> bool:
        if item.row is not None:
            return self._fits(item.topic, item.row.function)
        if item.functions is None or not item.functions:
            return self._fits(item.topic, None) and (self.function is None or item.functions is None)
        return any(self._fits(item.topic, function) for function in item.functions)

    def status(self, status: RunStatusDocument) -> bool:
        """A finished one is told by its result."""
        return not status.state.finished and self._fits(status.topic, status.function)

    def shown(self, item: FeedItem) -> FeedItem:
        """The item without the names of functions that the caller may not see."""
        if item.functions is None or self.sight.caller.sees_everything():
            return item
        seen = tuple(one for one in item.functions if self.sight.may(Action.READ, item.topic, one))
        return FeedItem(item.sequence, item.request_id, item.topic, item.root_request_id, len(seen), None, seen)

    def _fits(self, topic: str, function: str | None) -> bool:
        if function is not None and self.function not in (None, function):
            return False
        if self.topic is not None and not wire.subject_matches(self.topic, topic):
            return False
        return self.sight.may(Action.READ, topic, function)


async def _everything(
    gateway: Gateway, wanted: Wanted, after: int | None, statuses: bool
) -> AsyncGenerator[bytes, None]:
    feed = gateway.client.feed
    async with feed.watch(statuses=statuses) as watch:
        yield BEGINNING
        begin = await _beginning(feed, after)
        if after is not None and begin != after:
            yield frame("gap", Gap(after=after, first=begin + 1))
        yield frame("open", Opened(sequence=begin), begin)
        told = begin
        if after is not None:
            async with aclosing(feed.past(begin)) as past:
                async for item in past:
                    told = item.sequence
                    if wanted.item(item):
                        yield item_frame(wanted.shown(item))
        async with aclosing(_live(watch, wanted, told)) as frames:
            async for piece in frames:
                yield piece


async def _beginning(feed: Feed, after: int | None) -> int:
    """The place to begin behind: the one asked for, unless what follows it is gone or it never was."""
    await feed.live()
    if after is None:
        return feed.position
    first, last = await feed.kept()
    return last if after > last else max(after, first - 1)


async def _live(
    watch: Watch, wanted: Wanted, told: int, over: Callable[[FeedItem], bool] | None = None
) -> AsyncGenerator[bytes, None]:
    """What the watch brings, behind the place that is told already; ends when it lags, so that its reader resumes."""
    while watch.waiting or not watch.lagged:
        try:
            async with asyncio.timeout(COMMENT_SECONDS):
                item = await watch.next_of_all()
        except TimeoutError:
            yield COMMENT
            continue
        if isinstance(item, RunStatusDocument):
            if wanted.status(item):
                yield status_frame(item)
        elif item.sequence > told:
            if wanted.item(item):
                yield item_frame(wanted.shown(item))
            if over is not None and over(item):
                return


async def _one_request(gateway: Gateway, wanted: Wanted, view: RequestView, after: int) -> AsyncGenerator[bytes, None]:
    feed, request_id, progress = gateway.client.feed, view.request_id, _Progress()
    async with feed.watch(request_id, statuses=True) as watch:
        yield BEGINNING
        await feed.live()
        told = 0
        async with aclosing(feed.past(0, request_id)) as past:
            async for item in past:
                told = item.sequence
                progress.take(item)
                if item.sequence > after and wanted.item(item):
                    yield item_frame(wanted.shown(item))
        # Levels: what unfinished runs said last, before anything new.
        view = await gateway.client.stored.request(request_id)
        for run in view.runs:
            if run.result is None and run.status is not None and wanted.status(run.status):
                yield status_frame(run.status)
        if not progress.take_expired(view):
            async with aclosing(_live(watch, wanted, told, progress.take)) as frames:
                async for piece in frames:
                    yield piece
        if progress.complete:
            yield await _end(gateway, wanted.sight, view)


async def _end(gateway: Gateway, sight: Sight, view: RequestView) -> bytes:
    with suppress(ServerUnreachableError):  # what is known says that it has ended
        view = await gateway.client.stored.request(view.request_id)
    return end_frame(sight.part_of(view) or view)


class _Progress:
    """How far a request is, by the items that were told of it."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._done: set[str] = set()

    @property
    def complete(self) -> bool:
        return self._expected is not None and len(self._done) >= self._expected

    def take(self, item: FeedItem) -> bool:
        """Note the item; True when it was the last one."""
        if item.row is None:
            self._expected = item.runs
        else:
            self._done.add(item.row.function)
        return self.complete

    def take_expired(self, view: RequestView) -> bool:
        """Of a request whose record is gone already, what is there is all that will come."""
        if self._expected is None and view.record is None and view.runs:
            self._expected = len(view.runs)
        return self.complete


async def _anything(feed: Feed, after: int, request_id: str) -> bool:
    async with aclosing(feed.past(after, request_id)) as items:
        async for _ in items:
            return True
    return False
