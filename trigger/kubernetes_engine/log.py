"""Logs of pods: their last bytes, their stdout as output, and their lines as they come.

A container's log is one file at its node, with the moment before every line. Kubernetes keeps about 10 MiB of it
(`containerLogMaxSize`), so what is read here is the end of what a function that talks a lot has printed; whether it
is all, `wholeness.py` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

from trigger.engine import LogLine
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_engine.status import instant

MAX_LINE_BYTES = 16 * 1024
TAIL_LINES = 10_000
READY_SECONDS = 0.5
"""By then a log that is asked for is being sent, also one that has no line yet."""
LAST_WORDS_SECONDS = 5.0


async def read_tail(api: Api, pod: str, container: str, limit: int) -> bytes:
    """The last `limit` bytes of what the container printed, both streams."""
    kept = b""
    async for chunk in api.pod_log(pod, container, follow=False, tail_lines=TAIL_LINES, timestamps=False):
        kept = (kept + chunk)[-limit:]
    return kept


class Listener:
    """Hears the end of a container's log while it is being ended: afterwards its pod and its log are gone at once."""

    def __init__(self, api: Api, pod: str, container: str, limit: int) -> None:
        self._limit = limit
        self._first = asyncio.Event()
        self._kept = b""
        self._hearing = asyncio.create_task(self._hear(api, pod, container))

    async def ready(self) -> None:
        """When this returns what is printed from now on is heard: there was a first sign, or time for one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self._first.wait()

    async def heard(self) -> bytes:
        """The last bytes of the log, once it has ended."""
        await asyncio.wait({self._hearing}, timeout=LAST_WORDS_SECONDS)
        self.close()
        return self._kept

    def close(self) -> None:
        self._hearing.cancel()

    async def _hear(self, api: Api, pod: str, container: str) -> None:
        with suppress(ApiFailure):  # what was heard until then is what there is
            async for chunk in api.pod_log(pod, container, follow=True, tail_lines=TAIL_LINES):
                self._kept = (self._kept + chunk)[-self._limit :]
                self._first.set()
        self._first.set()


async def read_output(api: Api, pod: str, container: str, limit: int) -> tuple[bytes, int]:
    """The container's stdout, and how many bytes it has; above `limit` only the number counts."""
    pieces, size = [], 0
    async for chunk in api.pod_log(pod, container, follow=False, tail_lines=None, timestamps=False, only_stdout=True):
        size += len(chunk)
        if size <= limit:
            pieces.append(chunk)
    return b"".join(pieces), size


async def read_lines(api: Api, pod: str, container: str, attempt: int, *, follow: bool) -> AsyncIterator[LogLine]:
    """The container's lines, oldest first; with `follow` also the coming ones, until it has ended."""
    rest = b""
    async for chunk in api.pod_log(pod, container, follow=follow, tail_lines=TAIL_LINES, timestamps=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield _line(line, attempt)
        if len(rest) > MAX_LINE_BYTES + 64:
            yield _line(rest[: MAX_LINE_BYTES + 64], attempt)
            rest = b""
    if rest:
        yield _line(rest, attempt)


def _line(line: bytes, attempt: int) -> LogLine:
    """`2026-01-02T03:04:05.678901234Z text`. The streams are not told apart: a log is read by people."""
    stamp, space, text = line.partition(b" ")
    at = instant(stamp.decode("ascii", "replace")[:26].rstrip("Z") + "+00:00") if space else None
    if at is None:
        stamp, text = b"", line
    return LogLine(attempt, "stdout", text.decode("utf-8", "replace"), at or datetime.now(UTC))
