"""The pipes between attempts and the spawner, and what is kept of what comes through them. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from trigger.local_engine import protocol
from trigger.local_engine.protocol import Order

SPOOL_BYTES = 64 * 1024
"""Output up to this size travels in a message, above it is kept in a file."""
READ_BYTES = 64 * 1024
MAX_SPARE = 64


class Channels(NamedTuple):
    """Two pipes, for stdout and stderr."""

    out: int
    out_writer: int
    err: int
    err_writer: int

    def close(self) -> None:
        for fd in self:
            os.close(fd)


class ChannelPool:
    """Pipes, used again when surely nobody holds their other end.

    We keep the writing ends open, so a pipe never ends by itself; an attempt's end is known from its processes.
    """

    def __init__(self, register: Callable[[int], None], unregister: Callable[[int], None]) -> None:
        self._register = register
        self._unregister = unregister
        self._spare: list[Channels] = []

    def take(self) -> Channels:
        """Two empty pipes. Raises OSError when there are too many open files."""
        if self._spare:
            channels = self._spare.pop()
            # What an attempt sets on its stdout (Node does) holds for the pipe, and so for the next attempt.
            os.set_blocking(channels.out_writer, True)
            os.set_blocking(channels.err_writer, True)
            return channels
        out, out_writer = os.pipe()
        try:
            err, err_writer = os.pipe()
        except OSError:
            os.close(out)
            os.close(out_writer)
            raise
        for fd in (out, err):
            os.set_blocking(fd, False)
            self._register(fd)
        return Channels(out, out_writer, err, err_writer)

    def give_back(self, channels: Channels, *, clean: bool) -> None:
        """`clean`: they are empty, and nothing of the attempt has outlived its main process."""
        if clean and len(self._spare) < MAX_SPARE:
            self._spare.append(channels)
        else:
            self._retire(channels)

    def hear_noise(self, fd: int) -> None:
        """Something came through a pipe that nobody uses: somebody holds its end after all."""
        for channels in [one for one in self._spare if fd in one]:
            self._spare.remove(channels)
            self._retire(channels)

    def _retire(self, channels: Channels) -> None:
        self._unregister(channels.out)
        self._unregister(channels.err)
        channels.close()


class Capture:
    """What is kept of one attempt's output: the last bytes that are not yet sent, and stdout when it is the output."""

    __slots__ = ("_order", "_output", "_pieces", "_pieces_size", "_spool", "dropped", "flushed_at", "size", "trouble")

    def __init__(self, order: Order) -> None:
        self._order = order
        self._pieces: list[tuple[int, bytes]] = []
        self._pieces_size = 0
        self._output: list[bytes] = []
        self._spool = -1
        self.dropped = 0
        self.flushed_at = 0.0
        self.size = 0
        self.trouble = ""

    @property
    def has_news(self) -> bool:
        return bool(self._pieces)

    @property
    def spooled(self) -> bool:
        return self._spool >= 0

    def take(self, stream: int, data: bytes) -> None:
        if stream == protocol.STDOUT and self._order.output_bytes is not None:
            self._keep_output(data, self._order.output_bytes)
        else:
            self._keep_log(stream, data)

    def news(self) -> tuple[list[tuple[int, bytes]], int]:
        """The pieces that came since the last call, and how many bytes were lost before them."""
        news = self._pieces, self.dropped
        self._pieces, self._pieces_size, self.dropped = [], 0, 0
        return news

    def close(self) -> bytes:
        """The output, if it is not in the spool."""
        if self._spool >= 0:
            os.close(self._spool)
        return b"".join(self._output)

    def _keep_log(self, stream: int, data: bytes) -> None:
        self._pieces.append((stream, data))
        self._pieces_size += len(data)
        while self._pieces_size > self._order.log_bytes:
            excess = self._pieces_size - self._order.log_bytes
            first_stream, first = self._pieces[0]
            lost = min(excess, len(first))
            if lost == len(first):
                del self._pieces[0]
            else:
                self._pieces[0] = first_stream, first[lost:]
            self._pieces_size -= lost
            self.dropped += lost

    def _keep_output(self, data: bytes, limit: int) -> None:
        kept = data[: max(0, limit - self.size)]
        self.size += len(data)
        if not kept or self.trouble:
            return
        if self._spool < 0 and self.size <= SPOOL_BYTES:
            self._output.append(kept)
            return
        try:
            self._write_spool(kept)
        except OSError as error:
            self.trouble = f"its output cannot be kept in {self._order.spool}: {error.strerror}"

    def _write_spool(self, data: bytes) -> None:
        if self._spool < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._spool = os.open(self._order.spool, flags, 0o600)
            data = b"".join([*self._output, data])
            self._output = []
        view = memoryview(data)
        while view:
            view = view[os.write(self._spool, view) :]
