"""The feed: what is stored about requests and runs as it is stored, shared by everyone in this process who waits.

One tail of RESULTS, headers only, however many wait; what somebody needs besides, he reads. Levels, not events: whoever
watches first says so, then reads what is there, then waits, so nothing slips in between; an item may come twice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from invoker import wire
from invoker.ending import cancelled
from invoker.errors import ServerUnreachableError
from invoker.listing import finished_row
from invoker.news import RunNews
from invoker.reading import StoredMessage, StreamReader
from invoker.result import RunStatusDocument
from invoker.views import RunRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

KEPT = 1_000
"""Items that one watch may be behind; then it ends as `lagged`, and its owner begins again from where he stood."""
RETRY_SECONDS = 0.5
_ENDED_KEPT = 100
"""Of so many ended runs one watch knows that they have: news that are overtaken are so by a moment."""
_WINDOW_BACKWARDS = 2_000
_WINDOW = 5_000
"""Sequences of the past that are read at once: the whole of a large stream never is in memory."""


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One document that was stored: the record of a request (`row` is None) or the result of a run.

    `sequence` is its place: items of one gateway, and of all others, have the same. `runs` is how many runs a record
    has (0: nothing matched), `functions` of which ones (None when only the record itself tells); `stored_at` is None
    where it is not known.
    """

    sequence: int
    request_id: str
    topic: str
    root_request_id: str | None = None
    runs: int | None = None
    row: RunRow | None = None
    functions: tuple[str, ...] | None = None
    stored_at: datetime | None = None


class Watch:
    """One who waits. `lagged` is set when he was too slow: then items are missing behind those that wait."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[FeedItem | RunStatusDocument] = asyncio.Queue()
        self._ended: deque[str] = deque(maxlen=_ENDED_KEPT)
        self.lagged = False

    async def next(self) -> FeedItem:
        """The next item; how long to wait is the caller's business (`asyncio.timeout`)."""
        while True:
            item = await self._queue.get()
            if isinstance(item, FeedItem):
                return item

    async def next_of_all(self) -> FeedItem | RunStatusDocument:
        """The next item, or the next status in between, for who asked for statuses."""
        return await self._queue.get()

    @property
    def waiting(self) -> int:
        """How many items are there to be taken at once."""
        return self._queue.qsize()

    def give(self, item: FeedItem) -> None:
        """Once one item is left out, all later ones are: what comes is without a gap up to where it ends."""
        if self.lagged or self._queue.qsize() >= KEPT:
            self.lagged = True
        else:
            self._queue.put_nowait(item)
            if item.row is not None:
                self._ended.append(item.row.run_id)

    def hint(self, status: RunStatusDocument) -> None:
        """Statuses are lossy, so they never take the room of what is stored. They come another way than results, and
        one that was overtaken is left out: nobody is told that a run goes on of whose end he has heard."""
        is_late = not status.state.finished and status.run_id in self._ended
        if not is_late and self._queue.qsize() < KEPT // 2:
            self._queue.put_nowait(status)


class Feed:
    """The feed of one connection. `run` is its task; watches may be opened before it is started."""

    def __init__(
        self, reader: StreamReader, names: wire.Names, news: RunNews, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._reader = reader
        self._names = names
        self._news = news
        self._retry_seconds = retry_seconds
        self._all: set[Watch] = set()
        self._by_request: defaultdict[str, set[Watch]] = defaultdict(set)
        self._of_statuses: dict[Watch, str | None] = {}
        self._statuses_wanted = asyncio.Event()
        self._listeners: list[Callable[[FeedItem], None]] = []
        self._passing: list[tuple[int, asyncio.Future[None]]] = []
        self._live = asyncio.Event()
        self.began: int | None = None
        """The sequence that following began with; what is older is the past. None before."""
        self.position = 0
        """The last sequence that was told; everything up to it, from `began` on, has been."""

    async def run(self) -> None:
        """Follow what is stored, for ever; an outage is only a pause. Raises nothing but its own cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_statuses(), name="feed-statuses")
            await self._follow()

    async def _follow(self) -> None:
        while True:
            try:
                if self.began is None:
                    self.position = (await self._reader.state(self._names.results_stream)).state.last_seq
                    self.began = self.position + 1
                async with self._reader.tail(
                    self._names.results_stream, self._subjects(), first=self.position + 1, headers_only=True
                ) as tail:
                    self._live.set()
                    async for message in tail:
                        self._tell(message)
                        self._pass(message.sequence)
            except ServerUnreachableError:
                self._live.clear()
                await asyncio.sleep(self._retry_seconds)

    async def _follow_statuses(self) -> None:
        """Listened to only while somebody wants them: there are several for each run."""
        while True:
            await self._statuses_wanted.wait()
            try:
                async with aclosing(self._news.watch()) as news:
                    async for one in news:
                        if not self._of_statuses:
                            break
                        if isinstance(one, RunStatusDocument):
                            self._hint(one)
            except ServerUnreachableError:
                await asyncio.sleep(self._retry_seconds)

    async def live(self) -> None:
        """When this returns the feed follows: what is stored from now on will be told."""
        await self._live.wait()

    async def passed(self, sequence: int) -> None:
        """When this returns everything up to that sequence has been told; how long to wait is the caller's business."""
        if self.began is None or self.position < sequence:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (sequence, reached)
            self._passing.append(entry)
            try:
                await reached
            finally:
                self._passing.remove(entry)

    def listen(self, hear: Callable[[FeedItem], None]) -> None:
        """Call `hear` with every item from now on, at once and in order; it must not wait, and must not fail."""
        self._listeners.append(hear)

    @asynccontextmanager
    async def watch(self, request_id: str | None = None, *, statuses: bool = False) -> AsyncIterator[Watch]:
        """What is stored from now on: of that request, else everything. With `statuses` also news of unfinished runs,
        which are lossy."""
        watch = Watch()
        group = self._by_request[request_id] if request_id is not None else self._all
        group.add(watch)
        if statuses:
            self._of_statuses[watch] = request_id
            self._statuses_wanted.set()
        try:
            yield watch
        finally:
            group.discard(watch)
            if request_id is not None and not group:
                self._by_request.pop(request_id, None)
            self._of_statuses.pop(watch, None)
            if not self._of_statuses:
                self._statuses_wanted.clear()

    async def told(self) -> AsyncGenerator[FeedItem | RunStatusDocument, None]:
        """Everything from now on, for one who reads alone and has no task for `run`, however slowly he reads.

        Raises `ServerUnreachableError` when there is nothing to follow.
        """
        await self.kept()
        feeding = asyncio.create_task(self.run(), name="feed")
        try:
            await self.live()
            position = self.position
            while True:
                async with self.watch(statuses=True) as watch, aclosing(self._caught_up(watch, position)) as items:
                    async for item in items:
                        yield item
                        if isinstance(item, FeedItem):
                            position = item.sequence
        finally:
            await cancelled(feeding)

    async def _caught_up(self, watch: Watch, position: int) -> AsyncGenerator[FeedItem | RunStatusDocument, None]:
        """What was stored behind that place, then what the watch brings, until it lags."""
        async with aclosing(self.past(position)) as past:
            async for item in past:
                position = item.sequence
                yield item
        while watch.waiting or not watch.lagged:
            news = await watch.next_of_all()
            if isinstance(news, RunStatusDocument):
                yield news
            elif news.sequence > position:
                position = news.sequence
                yield news

    async def past(self, after: int, request_id: str | None = None) -> AsyncGenerator[FeedItem, None]:
        """What was stored behind that sequence and is still there, in order, up to now."""
        stream, subjects = self._names.results_stream, self._subjects(request_id or "*")
        state = (await self._reader.state(stream)).state
        first, last = max(after + 1, state.first_seq), state.last_seq
        while first <= last:
            # One request's documents are few, and the server finds them by itself.
            until = last if request_id is not None else min(last, first + _WINDOW - 1)
            for message in await self._reader.between(stream, subjects, first, until):
                item = feed_item(message, self._names)
                if item is not None:
                    yield item
            first = until + 1

    async def older(self, before: int, *, records: bool = False) -> AsyncGenerator[FeedItem, None]:
        """The results of runs, or instead the records of requests, that were stored before that sequence and are still
        there, newest first."""
        stream = self._names.results_stream
        subjects = [self._names.accepted("*") if records else self._names.result("*", "*")]
        async with aclosing(
            self._reader.backwards(stream, subjects, before=before, widest=_WINDOW_BACKWARDS)
        ) as messages:
            async for message in messages:
                item = feed_item(message, self._names)
                if item is not None:
                    yield item

    async def kept(self) -> tuple[int, int]:
        """The oldest sequence that is still stored, and the newest. Raises `ServerUnreachableError`."""
        state = (await self._reader.state(self._names.results_stream)).state
        return state.first_seq, state.last_seq

    def _subjects(self, request_id: str = "*") -> list[str]:
        return [self._names.accepted(request_id), self._names.result(request_id, "*")]

    def _tell(self, message: StoredMessage) -> None:
        request_id = wire.header(message.headers, wire.H_REQUEST_ID)
        watches = self._by_request.get(request_id or "", ())
        if not watches and not self._all and not self._listeners:
            return
        item = feed_item(message, self._names)
        if item is None:
            return
        for hear in self._listeners:
            hear(item)
        for watch in (*watches, *self._all):
            watch.give(item)

    def _pass(self, sequence: int) -> None:
        self.position = sequence
        for wanted, reached in self._passing:
            if wanted <= sequence and not reached.done():
                reached.set_result(None)

    def _hint(self, status: RunStatusDocument) -> None:
        for watch, request_id in self._of_statuses.items():
            if request_id in (None, status.request_id):
                watch.hint(status)


def feed_item(message: StoredMessage, names: wire.Names) -> FeedItem | None:
    """The item that a stored message stands for, None for one of a later version. Pure."""
    headers = message.headers
    request_id, topic = wire.header(headers, wire.H_REQUEST_ID), wire.header(headers, wire.H_TOPIC) or ""
    if request_id is None:
        return None
    root = wire.header(headers, wire.H_ROOT_REQUEST_ID)
    if message.subject == names.accepted(request_id):
        with suppress(ValueError):
            runs = int(wire.header(headers, wire.H_RUNS) or "0")
            functions = _functions(headers, runs)
            return FeedItem(message.sequence, request_id, topic, root, runs, None, functions, message.stored_at)
        return None
    row = finished_row(message)
    return FeedItem(message.sequence, request_id, topic, root, row=row, stored_at=message.stored_at) if row else None


def _functions(headers: Mapping[str, str], runs: int) -> tuple[str, ...] | None:
    names = tuple(name for name in (wire.header(headers, wire.H_FUNCTIONS) or "").split(",") if name)
    return names if len(names) == runs else None
