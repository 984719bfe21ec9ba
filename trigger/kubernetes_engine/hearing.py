"""What is heard of a run while it runs: its stdout is counted, its last words are kept.

Both are streams that stay open, so their number is bounded, over all runs of an engine. A run beyond it is read when
it has ended, as are those that are over sooner than somebody could listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_engine.log import LAST_WORDS_SECONDS, Listener
from trigger.kubernetes_engine.status import JobView, PodView
from trigger.kubernetes_engine.wholeness import Mark, Tally, written
from trigger.plan import OutputMode

MOST_FOLLOWED, MOST_LISTENED = 300, 100
"""Streams of one engine at once: outputs that are counted, logs whose end is kept."""
SHORT_RUN_SECONDS = 5.0
"""A run that is over by then is read at its end only."""
LATE_SECONDS = 10.0
"""So often a node looks whether a log is full: who listens later may miss its beginning."""
LARGE_BYTES = 1024 * 1024
"""An output of which so much is printed may fill a log: its beginning is remembered for other controllers."""
REOPEN_SECONDS = 5.0
"""A log that ends earlier than its container was cut: by then its container's end is known."""


@dataclass(slots=True)
class Streams:
    """How many are open; shared by all runs of an engine."""

    followed: int = 0
    listened: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a pod: marks of its stdout, whether somebody listened from its start on, and the end of its
    log."""

    marks: tuple[Mark, ...] = ()
    is_from_start: bool = False
    tail: bytes | None = None

    @property
    def size(self) -> int:
        """How long its stdout was at least."""
        return max((mark.size for mark in self.marks), default=0)


class Follower:
    """Counts a container's stdout as it is printed, up to a little more than `limit` bytes."""

    def __init__(self, api: Api, pod: str, limit: int, is_large: Callable[[Mark], None]) -> None:
        self.pod = pod
        self._is_large = is_large
        self._api = api
        self._limit = limit
        self._tallies: list[Tally] = []
        self._at_end = asyncio.Event()
        self._following = asyncio.create_task(self._follow())

    async def counted(self) -> tuple[Mark, ...]:
        """Marks of all that was counted, once the log has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._at_end.wait()
        return tuple(tally.mark() for tally in self._tallies)

    def close(self) -> None:
        self._following.cancel()

    async def _follow(self) -> None:
        """Again and again from its beginning: each time it has to begin with what was counted before."""
        while True:
            tally = Tally()
            self._tallies.append(tally)
            self._at_end.clear()
            with suppress(ApiFailure):
                await self._count(tally)
            self._at_end.set()
            if tally.size > self._limit:
                return
            await asyncio.sleep(REOPEN_SECONDS)

    async def _count(self, tally: Tally) -> None:
        async for chunk in self._api.pod_log(self.pod, names.FUNCTION_CONTAINER, follow=True, only_stdout=True):
            tally.add(chunk)
            if tally.size - len(chunk) < LARGE_BYTES <= tally.size:
                self._is_large(tally.mark())
            if tally.size > self._limit:
                return
        tally.is_end = True


class Hearing:
    """The ears for one run: for the pod of it that runs, one after the other."""

    def __init__(self, api: Api, streams: Streams, remember: Callable[[str], None]) -> None:
        """`remember` is told, as it is written for others, how a large output begins."""
        self._api = api
        self._remember = remember
        self._streams = streams
        self._pod = ""
        self._since = 0.0
        self._is_from_start = False
        self._follower: Follower | None = None
        self._listener: Listener | None = None
        self._heard: Heard | None = None

    def attend(self, job: JobView, pod: PodView, now: datetime) -> float | None:
        """Listen to a pod that runs, to what is due of it. Returns after how many seconds more is due, if ever."""
        time = asyncio.get_running_loop().time()
        if pod.name != self._pod:
            self.close()
            self._pod, self._since, self._heard = pod.name, time, None
            self._follow(job, pod, now)
        if self._heard is not None or self._listener is not None or self._streams.listened >= MOST_LISTENED:
            return None
        left = self._since + SHORT_RUN_SECONDS - time
        if left > 0:
            return left
        self._listen(job)
        return None

    async def listen_now(self, job: JobView, pod: PodView, now: datetime) -> None:
        """Listen to a pod that is about to be told to end: when this returns its last words will be heard."""
        self.attend(job, pod, now)
        if self._listener is None and self._heard is None:
            self._listen(job)
        if self._listener is not None:
            await self._listener.ready()

    async def heard(self, pod: str) -> Heard:
        """What was heard of this pod, which has ended; nobody listens any more afterwards. Safe to repeat."""
        if pod != self._pod:
            return Heard()
        if self._heard is None:
            marks = () if self._follower is None else await self._follower.counted()
            tail = None if self._listener is None else await self._listener.heard()
            self._heard = Heard(marks, self._is_from_start and bool(marks), tail)
            self.close()
        return self._heard

    def close(self) -> None:
        """Nobody listens any more. Safe to repeat."""
        if self._follower is not None:
            self._streams.followed -= 1
            self._follower.close()
        if self._listener is not None:
            self._streams.listened -= 1
            self._listener.close()
        self._follower = self._listener = None

    def _follow(self, job: JobView, pod: PodView, now: datetime) -> None:
        if job.terms.output is not OutputMode.STDOUT or self._streams.followed >= MOST_FOLLOWED:
            return
        self._streams.followed += 1
        started_at = pod.main.started_at or now
        self._is_from_start = (now - started_at).total_seconds() < LATE_SECONDS
        self._follower = Follower(
            self._api, pod.name, job.terms.output_bytes, lambda mark: self._remember(written(mark, pod.name))
        )

    def _listen(self, job: JobView) -> None:
        self._streams.listened += 1
        self._listener = Listener(self._api, self._pod, names.FUNCTION_CONTAINER, job.terms.log_tail_bytes)
