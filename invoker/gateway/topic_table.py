"""Which topics were seen and what came of their events, in memory: for "why did nothing happen".

Counted from the headers of request records: backwards from the stream at the start, so far as is looked back, and by
the feed from then on. Bounded in all it keeps: topics may be invented without end.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

import structlog

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.feed import Feed, FeedItem

KEPT_TOPICS = 10_000
"""The topics that were seen last; about 350 bytes each."""
KEPT_REQUESTS = 10_000
"""The newest requests that matched something, and as many that nothing matched; about 250 bytes each."""
LOOKED_BACK = 50_000
"""Records that are read at the start."""
RETRY_SECONDS = 1.0
_AT_ONCE = 200

_log = structlog.get_logger(component="gateway")


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as its record's headers tell it. `functions` is None when only the record itself tells; none at all
    means that nothing matched."""

    sequence: int
    request_id: str
    topic: str
    runs: int
    functions: tuple[str, ...] | None
    at: datetime | None


@dataclass(slots=True)
class TopicCounts:
    """How often a topic was seen, and the newest request of it."""

    topic: str
    newest: SeenRequest
    seen: int = 0
    unmatched: int = 0

    @property
    def matched(self) -> int:
        return self.seen - self.unmatched

    def count(self, request: SeenRequest) -> None:
        self.seen += 1
        self.unmatched += request.runs == 0


class TopicTable:
    """The topics of one instance that were seen last, and its newest requests. `run` is its task."""

    def __init__(
        self,
        feed: Feed,
        names: wire.Names,
        *,
        kept_topics: int = KEPT_TOPICS,
        kept_requests: int = KEPT_REQUESTS,
        looked_back: int = LOOKED_BACK,
    ) -> None:
        self._feed = feed
        self._names = names
        self._kept_topics = kept_topics
        self._looked_back = looked_back
        self._topics: OrderedDict[str, TopicCounts] = OrderedDict()
        """By topic; the one that was seen last is the last."""
        self._matched: deque[SeenRequest] = deque(maxlen=kept_requests)
        self._unmatched: deque[SeenRequest] = deque(maxlen=kept_requests)
        self._oldest: int | None = None
        self._read = 0
        self.counted_from: datetime | None = None
        """When the oldest request was accepted that is counted; None while there is none."""
        self.loaded = False
        """Whether the past has been read, as far as is looked back."""
        feed.listen(self._hear)

    def __len__(self) -> int:
        return len(self._topics)

    async def run(self) -> None:
        """Read the past, newest first, then stay: what is stored from now on is heard. An outage is only a pause."""
        await self._feed.live()
        while not self.loaded:
            try:
                await self._load()
            except ServerUnreachableError:
                await asyncio.sleep(RETRY_SECONDS)
        _log.info("recent requests read", requests=self._read, topics=len(self._topics))

    def topics(self) -> Iterator[TopicCounts]:
        """What is counted, the topic that was seen last first. Iterate without waiting in between."""
        return reversed(self._topics.values())

    def topic(self, topic: str) -> TopicCounts | None:
        """What is counted of that topic, None when it was not seen, or long ago."""
        return self._topics.get(topic)

    def unmatched(self) -> list[SeenRequest]:
        """The newest requests that nothing matched, newest first."""
        return list(reversed(self._unmatched))

    def requests(self) -> list[SeenRequest]:
        """The newest requests, matched or not, newest first."""
        return sorted((*self._matched, *self._unmatched), key=lambda one: -one.sequence)

    def requests_of(self, topic: str, limit: int) -> list[SeenRequest]:
        """The newest requests of that topic, newest first."""
        if topic not in self._topics:
            return []
        found = []
        for kept in (self._matched, self._unmatched):
            of_topic = (one for one in reversed(kept) if one.topic == topic)
            found += [one for one, _ in zip(of_topic, range(limit), strict=False)]
        return sorted(found, key=lambda one: -one.sequence)[:limit]

    async def _load(self) -> None:
        before = self._oldest or self._feed.began or 1
        async with aclosing(self._feed.older(before, records=True)) as items:
            async for item in items:
                self._put_older(item)
                self._oldest, self._read = item.sequence, self._read + 1
                if self._read >= self._looked_back:
                    break
                if self._read % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        self.loaded = True

    def _hear(self, item: FeedItem) -> None:
        request = self._request(item)
        if request is None:
            return
        self._kept(request).append(request)
        counts = self._topics.get(request.topic)
        if counts is None:
            counts = self._topics[request.topic] = TopicCounts(request.topic, request)
            if len(self._topics) > self._kept_topics:
                self._topics.popitem(last=False)
        counts.newest = request
        counts.count(request)
        self._topics.move_to_end(request.topic)
        self.counted_from = self.counted_from or request.at

    def _put_older(self, item: FeedItem) -> None:
        """Take in what is older than everything there is: it takes no other's place."""
        request = self._request(item)
        if request is None:
            return
        kept = self._kept(request)
        if len(kept) < (kept.maxlen or 0):
            kept.appendleft(request)
        counts = self._topics.get(request.topic)
        if counts is None and len(self._topics) < self._kept_topics:
            counts = self._topics[request.topic] = TopicCounts(request.topic, request)
            self._topics.move_to_end(request.topic, last=False)
        if counts is not None:
            counts.count(request)
        self.counted_from = request.at or self.counted_from

    def _kept(self, request: SeenRequest) -> deque[SeenRequest]:
        return self._matched if request.runs else self._unmatched

    def _request(self, item: FeedItem) -> SeenRequest | None:
        """The request that was accepted; None for a result, and for a direct call, which has no topic of its own."""
        if item.row is not None or self._names.function_of_direct_topic(item.topic) is not None:
            return None
        return SeenRequest(item.sequence, item.request_id, item.topic, item.runs or 0, item.functions, item.stored_at)
