"""Room in RESULTS: a request is taken only while the results of everything unfinished will fit as well.

Without it records alone fill a bounded stream: what runs then cannot store its result before its record expires.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import BackPressureError
from invoker.request import Event

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

RESULT_BYTES = 4096
"""Kept free for each unfinished run: an ordinary result is below 1 KiB, one with a long output and log tail above."""
RECORD_BYTES = 1024
"""A record without its headers and its body."""
LOOK_SECONDS = 0.5


class ResultsRoom:
    """Counts what RESULTS holds and what it will have to hold. Costs nothing when the stream has no bound (-1)."""

    def __init__(
        self,
        jetstream: JetStreamContext,
        names: wire.Names,
        max_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._js = jetstream
        self._names = names
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._taken = 0
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()

    async def take(self, needed: int) -> None:
        """Reserve that room (`needed_bytes` of an event), or raise `BackPressureError`: nothing was stored."""
        if self._max_bytes < 0:
            return
        async with self._looking:
            if self._looked_at is None or self._monotonic() - self._looked_at > LOOK_SECONDS:
                await self._look()
            if self._taken + needed > self._max_bytes:
                raise BackPressureError(
                    f"{self._names.results_stream} has no room for another request and the results of what is "
                    f"unfinished ({self._taken} of {self._max_bytes} bytes)",
                    hint="the retention makes room; INVOKER_RESULTS_BYTES is the bound",
                )
            self._taken += needed

    async def _look(self) -> None:
        """What is stored now, and what the unfinished runs will store."""
        with nats_errors("looking for room for results"):
            stored = (await self._js.stream_info(self._names.results_stream)).state.bytes
            unfinished = (await self._js.stream_info(self._names.runs_stream)).state.messages
        self._taken = stored + unfinished * RESULT_BYTES
        self._looked_at = self._monotonic()


def needed_bytes(event: Event, runs: int, claim_threshold: int) -> int:
    """What an event's record and the results of its runs will take, but for outsize results. Pure."""
    size = event.content.size_bytes if event.content.claim is None else 0
    body = size * 4 // 3 if size <= claim_threshold else 0
    return RECORD_BYTES + body + wire.header_bytes(event.headers) + runs * RESULT_BYTES
