"""How full the streams are and how old what waits in them is, looked at now and then for the metrics.

Every controller says the same about them: whoever reads the metrics takes the highest, not the sum.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import InvokerError
from trigger.metrics import Metrics, StreamLevel, measured_streams

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

log = structlog.get_logger(component="stream-levels")


class StreamLevels:
    """Looks at the streams and tells the metrics."""

    def __init__(self, jetstream: JetStreamContext, names: wire.Names, metrics: Metrics, every_seconds: float) -> None:
        self._js = jetstream
        self._names = names
        self._metrics = metrics
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look for ever. What cannot be looked at keeps its last level: `nats_connected` tells of outages."""
        while True:
            try:
                await self.look()
            except InvokerError as error:
                log.debug("streams not looked at", error_message=error.message)
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """One look at every stream. Raises `ServerUnreachableError`."""
        waited_for = {self._names.events_stream, self._names.runs_stream}
        for stream in measured_streams(self._names):
            with nats_errors(f"looking at {stream}"):
                info = await self._js.stream_info(stream)
            state, limit = info.state, info.config.max_bytes
            oldest = await self._age(stream, state.first_seq) if state.messages and stream in waited_for else 0.0
            bound = limit if limit is not None and limit > 0 else None
            self._metrics.told_stream(stream, StreamLevel(state.messages, state.bytes, bound, oldest))

    async def _age(self, stream: str, sequence: int) -> float:
        try:
            with nats_errors(f"reading the oldest message of {stream}"):
                message = await self._js.get_msg(stream, seq=sequence, subject=">", next=True)
        except InvokerError:
            return 0.0  # acked meanwhile, and nothing came after it
        return max(0.0, (datetime.now(UTC) - message.time).total_seconds()) if message.time is not None else 0.0
