"""The last bytes of what a run printed, and the lines of them.

Bytes are kept as they came and cut into lines only when somebody asks, so a function that prints a lot costs little.
Every byte has a position, also the lost ones: a gap between two chunks is what was dropped there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from invoker.run_log import attempt_mark
from trigger.engine import LogLine
from trigger.local_engine import protocol

NOTE_STREAM = "stderr"
MAX_LINE_BYTES = 16 * 1024
MERGE_BYTES = 4096
"""Small pieces of the same stream become one chunk up to this size: a chunk costs more than a short line."""
_STREAMS = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of one stream; `start` is the position of the first of them in all that the run printed."""

    attempt: int
    stream: str
    start: int
    data: bytes
    at: datetime

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RunLog:
    """What a run printed, at most `limit` bytes of it: the oldest go first, and how many are gone is told."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._end = 0
        self._closed = False
        self._followers: set[asyncio.Event] = set()

    def add(self, attempt: int, pieces: list[tuple[int, bytes]], dropped: int, at: datetime) -> None:
        """Append pieces as they came; `dropped` bytes were lost before the first of them."""
        self._end += dropped
        for stream, data in pieces:
            self._append(Chunk(attempt, _STREAMS[stream], self._end, data, at))
            self._end += len(data)
        self._tell()

    def close(self) -> None:
        """Nothing more will come: followers end."""
        self._closed = True
        self._tell()

    def tail(self) -> bytes:
        """stdout and stderr together, in the order they came, with a note wherever something is gone.

        Every attempt but the first begins on a line of its own, below the mark with its number.
        """
        parts: list[bytes] = []
        position, attempt = 0, 1
        for chunk in self._chunks:
            is_next = chunk.attempt != attempt
            if is_next and parts and not parts[-1].endswith(b"\n"):
                parts.append(b"\n")
            if chunk.start > position:
                parts.append(_note(chunk.start - position))
            if is_next:
                attempt = chunk.attempt
                parts.append(f"{attempt_mark(attempt)}\n".encode())
            parts.append(chunk.data)
            position = chunk.end
        if self._end > position:
            parts.append(_note(self._end - position))
        return b"".join(parts)

    def last_line(self, attempt: int, stream: str) -> str:
        """The last line with something in it that an attempt wrote to a stream, out of its last 4 KiB."""
        data = b""
        for chunk in reversed(self._chunks):
            if (chunk.attempt, chunk.stream) == (attempt, stream):
                data = chunk.data + data
                if len(data) >= MERGE_BYTES:
                    break
        lines = data[-MERGE_BYTES:].decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    async def lines(self, follow: bool) -> AsyncIterator[LogLine]:
        """The lines kept by now; with `follow` also the coming ones, until the log is closed.

        A follower that reads more slowly than lines come misses some, and is told how many bytes.
        """
        news = asyncio.Event()
        self._followers.add(news)
        cutter = _LineCutter()
        position = 0
        try:
            while True:
                news.clear()
                chunks = [chunk for chunk in self._chunks if chunk.end > position]
                for chunk in chunks:
                    for line in cutter.cut(chunk, position):
                        yield line
                    position = chunk.end
                if not follow or (self._closed and not news.is_set()):
                    break
                await news.wait()  # set already when something came while the last lines were being read
            for line in cutter.rest():
                yield line
        finally:
            self._followers.discard(news)

    def _append(self, chunk: Chunk) -> None:
        last = self._chunks[-1] if self._chunks else None
        if last is not None and _mergeable(last, chunk):
            self._chunks[-1] = Chunk(last.attempt, last.stream, last.start, last.data + chunk.data, last.at)
        else:
            self._chunks.append(chunk)
        self._size += len(chunk.data)
        while self._size > self._limit:
            self._shorten(self._size - self._limit)

    def _shorten(self, excess: int) -> None:
        first = self._chunks.popleft()
        lost = min(excess, len(first.data))
        self._size -= lost
        if lost < len(first.data):
            rest = Chunk(first.attempt, first.stream, first.start + lost, first.data[lost:], first.at)
            self._chunks.appendleft(rest)

    def _tell(self) -> None:
        for news in self._followers:
            news.set()


class _LineCutter:
    """Lines of two streams out of chunks; a line without its end waits for it."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], tuple[bytes, datetime]] = {}

    def cut(self, chunk: Chunk, position: int) -> list[LogLine]:
        """The lines that are complete with this chunk, of which the bytes before `position` are known already."""
        lines: list[LogLine] = []
        if chunk.start > position or any(attempt != chunk.attempt for attempt, _ in self._open):
            lines = self.rest()  # what an earlier attempt left open gets no end any more
        if chunk.start > position:
            lines = [*lines, _line(chunk.attempt, NOTE_STREAM, _note(chunk.start - position), chunk.at)]
        key = chunk.attempt, chunk.stream
        before, at = self._open.pop(key, (b"", chunk.at))
        *whole, rest = (before + chunk.data[max(0, position - chunk.start) :]).split(b"\n")
        lines += [_line(*key, line, chunk.at if i else at) for i, line in enumerate(whole)]
        if len(rest) > MAX_LINE_BYTES:
            lines.append(_line(*key, rest, chunk.at))
        elif rest:
            self._open[key] = rest, (chunk.at if whole else at)
        return lines

    def rest(self) -> list[LogLine]:
        lines = [_line(attempt, stream, data, at) for (attempt, stream), (data, at) in self._open.items()]
        self._open.clear()
        return lines


def _mergeable(last: Chunk, chunk: Chunk) -> bool:
    if (last.attempt, last.stream, last.end) != (chunk.attempt, chunk.stream, chunk.start):
        return False
    return len(last.data) + len(chunk.data) <= MERGE_BYTES


def _line(attempt: int, stream: str, data: bytes, at: datetime) -> LogLine:
    return LogLine(attempt, stream, data.rstrip(b"\r\n").decode(errors="replace"), at)


def _note(dropped: int) -> bytes:
    return f"[Invoker: {dropped} bytes are gone here]\n".encode()
