"""The engine's socket to one spawner: what is sent when, and what comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from trigger.local_engine import protocol

RECEIVE_BYTES = 64 * 1024
LATER_SECONDS = 0.05
"""How long what nobody waits for may lie here."""


class Link(asyncio.BufferedProtocol):
    """The socket to one spawner.

    `send` writes at once when the spawner has answered all before, so that it need not wait for us; a busy one gets
    what one round of the loop gives together. What nobody waits for (`discard`) goes with the next message.
    """

    def __init__(self, hear: Callable[[list[Any]], None], lost: Callable[[], None]) -> None:
        self._hear = hear
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.alive = 0
        self.unanswered = 0
        self._discarded = 0
        self._decoder = protocol.Decoder()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._outgoing: list[Any] = []
        self._later: list[Any] = []
        self._transport: asyncio.WriteTransport | None = None

    def load(self) -> int:
        """How many processes this spawner has."""
        return self.alive

    def folders(self) -> int:
        """How many folders were given to this spawner: who starts more can use more of them again."""
        return self._discarded

    def order(self, message: tuple[Any, ...]) -> None:
        """Send the order for a process: it will be answered."""
        self.send(message)
        self.alive += 1
        self.unanswered += 1

    def send(self, message: tuple[Any, ...]) -> None:
        if not self._outgoing and self.unanswered:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)
        if not self.unanswered:
            self._flush()

    def discard(self, message: tuple[Any, ...]) -> None:
        self._discarded += 1
        if not self._later:
            self._loop.call_later(LATER_SECONDS, self._flush)
        self._later.append(message)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        messages = self._outgoing + self._later
        self._outgoing, self._later = [], []
        if self._transport is not None and messages:
            self._transport.write(protocol.encode(messages))

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        messages = self._decoder.feed(bytes(self._buffer[:nbytes]))
        if messages and messages[0][0] == protocol.READY:
            messages = messages[1:]
            if not self.ready.done():
                self.ready.set_result(None)
        self._hear(messages)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was ready"))
        elif not self.ready.cancelled():
            self._lost()


async def connect(ours: socket.socket, hear: Callable[[list[Any]], None], lost: Callable[[], None]) -> Link:
    _, link = await asyncio.get_running_loop().create_connection(lambda: Link(hear, lost), sock=ours)
    return link
