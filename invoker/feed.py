"""The feed: what is stored about requests and runs as it is stored, shared by everyone in this process who waits.

One tail of RESULTS, headers only, however many wait; what somebody needs besides, he reads. Levels, not events: whoever
watches first says so, then reads what is there, then waits, so nothing slips in between; an item may come twice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.listing import finished_row
from invoker.reading import StoredMessage, StreamReader
from invoker.views import RunRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

KEPT = 1_000
"""Items that one watch may be behind; then it ends as `lagged`, and its owner begins again from where he stood."""
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One document that was stored: the record of a request (`row` is None) or the result of a run.

    `sequence` is its place: items of one gateway, and of all others, have the same. `runs` is how many runs a record
    has (0: nothing matched).
    """

    sequence: int
    request_id: str
    topic: str
    root_request_id: str | None = None
    runs: int | None = None
    row: RunRow | None = None


class Watch:
    """One who waits. `lagged` is set when he was too slow: then items are missing."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[FeedItem] = asyncio.Queue()
        self.lagged = False

    async def next(self) -> FeedItem:
        """The next item; how long to wait is the caller's business (`asyncio.timeout`)."""
        return await self._queue.get()

    def give(self, item: FeedItem) -> None:
        if self._queue.qsize() >= KEPT:
            self.lagged = True
        else:
            self._queue.put_nowait(item)


class Feed:
    """The feed of one connection. `run` is its task; watches may be opened before it is started."""

    def __init__(self, reader: StreamReader, names: wire.Names) -> None:
        self._reader = reader
        self._names = names
        self._all: set[Watch] = set()
        self._by_request: defaultdict[str, set[Watch]] = defaultdict(set)
        self._live = asyncio.Event()

    async def run(self) -> None:
        """Follow what is stored, for ever; an outage is only a pause. Raises nothing but its own cancellation."""
        position: int | None = None
        while True:
            try:
                if position is None:
                    position = (await self._reader.state(self._names.results_stream)).state.last_seq + 1
                async with self._reader.tail(
                    self._names.results_stream, self._subjects(), first=position, headers_only=True
                ) as tail:
                    self._live.set()
                    async for message in tail:
                        position = message.sequence + 1
                        self._tell(message)
            except ServerUnreachableError:
                self._live.clear()
                await asyncio.sleep(RETRY_SECONDS)

    async def live(self) -> None:
        """When this returns the feed follows: what is stored from now on will be told."""
        await self._live.wait()

    @asynccontextmanager
    async def watch(self, request_id: str | None = None) -> AsyncIterator[Watch]:
        """What is stored from now on: of that request, else everything."""
        watch = Watch()
        group = self._by_request[request_id] if request_id is not None else self._all
        group.add(watch)
        try:
            yield watch
        finally:
            group.discard(watch)
            if request_id is not None and not group:
                self._by_request.pop(request_id, None)

    async def past(self, after: int, request_id: str | None = None) -> AsyncGenerator[FeedItem, None]:
        """What was stored behind that sequence and is still there, in order, up to now."""
        subjects = self._subjects(request_id or "*")
        last = (await self._reader.state(self._names.results_stream)).state.last_seq
        if after < last:
            for message in await self._reader.between(self._names.results_stream, subjects, after + 1, last):
                item = feed_item(message, self._names)
                if item is not None:
                    yield item

    def _subjects(self, request_id: str = "*") -> list[str]:
        return [self._names.accepted(request_id), self._names.result(request_id, "*")]

    def _tell(self, message: StoredMessage) -> None:
        request_id = wire.header(message.headers, wire.H_REQUEST_ID)
        watches = self._by_request.get(request_id or "", ())
        if not watches and not self._all:
            return
        item = feed_item(message, self._names)
        if item is not None:
            for watch in (*watches, *self._all):
                watch.give(item)


def feed_item(message: StoredMessage, names: wire.Names) -> FeedItem | None:
    """The item that a stored message stands for, None for one of a later version. Pure."""
    headers = message.headers
    request_id, topic = wire.header(headers, wire.H_REQUEST_ID), wire.header(headers, wire.H_TOPIC) or ""
    if request_id is None:
        return None
    root = wire.header(headers, wire.H_ROOT_REQUEST_ID)
    if message.subject == names.accepted(request_id):
        with suppress(ValueError):
            return FeedItem(message.sequence, request_id, topic, root, int(wire.header(headers, wire.H_RUNS) or "0"))
        return None
    row = finished_row(message)
    return FeedItem(message.sequence, request_id, topic, root, None, row) if row is not None else None
