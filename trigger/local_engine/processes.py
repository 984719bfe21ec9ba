"""The engine's end of the spawner: start a process, signal it, hear what it prints and how it ended.

Everything here happens in the event loop and none of it blocks; what may block is the spawner's.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from invoker.errors import EngineUnavailableError
from trigger.local_engine import descendants, protocol
from trigger.local_engine.protocol import Ended, Order

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from trigger.local_engine import spawner; spawner.main(int(sys.argv[2]))"
)
_ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 10.0
START_SECONDS = 30.0
RECEIVE_BYTES = 64 * 1024
LATER_SECONDS = 0.05

_log = logging.getLogger(__name__)


class ProcessRefusedError(Exception):
    """A process could not be started. `step` is `folder` or `start`, `subject` the path it was about."""

    def __init__(self, step: str, number: int, text: str, subject: str) -> None:
        super().__init__(f"{subject}: {text}")
        self.step = step
        self.number = number
        self.text = text
        self.subject = subject


class SpawnerGoneError(Exception):
    """The spawner has ended, and with it every process that it had started."""


class Listener(Protocol):
    """Who hears of a process, in the loop: `started` or not, then output, then exactly one of `ended`, `refused`,
    `lost`. `broken` is called when one of these raised."""

    def started(self) -> None: ...

    def printed(self, pieces: list[tuple[int, bytes]], dropped: int) -> None: ...

    def ended(self, end: Ended) -> None: ...

    def refused(self, error: ProcessRefusedError) -> None: ...

    def lost(self) -> None: ...

    def broken(self) -> None: ...


class Processes:
    """All processes of one engine, in one spawner.

    `open` starts the spawner; when it is gone (killed, crashed), `launch` raises `EngineUnavailableError` until `open`
    is called again.
    """

    def __init__(self, python: str, errors: Path) -> None:
        self._python = python
        self._errors = errors
        self._link: _Link | None = None
        self._spawner: subprocess.Popen[bytes] | None = None
        self._known: dict[int, Listener] = {}
        self._groups: dict[int, int] = {}
        self._last_key = 0

    @property
    def is_open(self) -> bool:
        return self._link is not None

    @property
    def pid(self) -> int | None:
        """The process id of the keeper, the spawner's parent."""
        return self._spawner.pid if self._spawner else None

    async def open(self) -> None:
        """Start the spawner; when this returns it takes orders. Raises `EngineUnavailableError` when that fails."""
        if self._spawner is not None:
            await asyncio.to_thread(_wait, self._spawner)
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            with theirs:
                self._spawner = await asyncio.to_thread(self._start, theirs)
            _, link = await loop.create_connection(lambda: _Link(self._hear, self._lost, ready), sock=ours)
        except OSError as error:
            ours.close()
            raise EngineUnavailableError(f"the local engine's spawner cannot be started: {error}") from error
        try:
            async with asyncio.timeout(START_SECONDS):
                await ready
        except (TimeoutError, ConnectionError) as error:
            link.close()
            said = await asyncio.to_thread(_last_line, self._errors)
            text = f"the local engine's spawner ({self._python}) did not come up: {said or 'it said nothing'}"
            raise EngineUnavailableError(text) from error
        self._link = link

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                [self._python, "-I", "-S", "-c", _PROGRAM, str(_ROOT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(theirs.fileno(),),
                env={},
                cwd="/",
                start_new_session=True,
            )

    async def close(self) -> None:
        """End every process and the spawner. Returns when nothing of them lives; safe to repeat."""
        link, self._link = self._link, None
        spawner, self._spawner = self._spawner, None
        if link is not None:
            link.close()
        if spawner is not None:
            await asyncio.to_thread(_wait, spawner)

    def launch(self, order: Order, listener: Listener) -> int:
        """Ask for a process; returns the key to signal it by. Raises `EngineUnavailableError` without a spawner."""
        if self._link is None:
            raise EngineUnavailableError("the local engine's spawner is not running")
        self._last_key += 1
        self._known[self._last_key] = listener
        self._link.send((protocol.START, self._last_key, tuple(order)))
        self._link.unanswered += 1
        return self._last_key

    def signal(self, key: int, signum: int) -> None:
        """Send a signal to a whole process group; nothing happens when it has ended."""
        if self._link is not None:
            self._link.send((protocol.SIGNAL, key, int(signum)))

    def remove(self, folder: str) -> None:
        """Have a folder removed, some time soon; nothing happens when the spawner is gone (the next engine does it)."""
        if self._link is not None:
            self._link.send_later((protocol.REMOVE, folder))

    def _hear(self, messages: list[Any]) -> None:
        for message in messages:
            listener = self._known.get(message[1])
            if listener is None:
                continue
            try:
                self._pass_on(listener, *message)
            except Exception:  # one listener's bug must not close the link, and with it everybody's process
                _log.exception("hearing of a process failed")
                self._settle(message[1])
                listener.broken()

    def _answered(self) -> None:
        if self._link is not None:
            self._link.unanswered -= 1

    def _pass_on(self, listener: Listener, kind: str, key: int, *details: Any) -> None:
        if kind == protocol.STARTED:
            self._answered()
            self._groups[key] = details[0]
            listener.started()
        elif kind == protocol.OUTPUT:
            listener.printed(*details)
        elif kind == protocol.ENDED:
            self._settle(key)
            listener.ended(Ended(*details))
        elif kind == protocol.REFUSED:
            self._answered()
            self._settle(key)
            listener.refused(ProcessRefusedError(*details))

    def _settle(self, key: int) -> None:
        self._known.pop(key, None)
        self._groups.pop(key, None)

    def _lost(self) -> None:
        """The socket closed, so spawner and keeper are gone. They have killed what they knew, unless both were killed
        at one stroke: the groups are ours to kill then, and killing them twice is harmless."""
        self._link = None
        listeners, self._known = list(self._known.values()), {}
        groups, self._groups = list(self._groups.values()), {}
        for group in groups:
            descendants.kill_group(group, signal.SIGKILL)
        for listener in listeners:
            listener.lost()


class Completion:
    """A listener for one who simply waits: `end` gives the end and what was printed last, or raises
    `ProcessRefusedError` or `SpawnerGoneError`."""

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._printed = b""
        self._end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    async def end(self) -> tuple[Ended, bytes]:
        return await self._end, self._printed

    def started(self) -> None:
        """Nobody waits for this."""

    def printed(self, pieces: list[tuple[int, bytes]], dropped: int) -> None:
        self._printed = b"".join([self._printed, *(data for _, data in pieces)])[-self._keep_bytes :]

    def ended(self, end: Ended) -> None:
        if not self._end.done():
            self._end.set_result(end)

    def refused(self, error: ProcessRefusedError) -> None:
        self._fail(error)

    def lost(self) -> None:
        self._fail(SpawnerGoneError("the local engine's spawner was ended"))

    def broken(self) -> None:
        self._fail(SpawnerGoneError("the local engine failed; its log says how"))

    def _fail(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(error)


class _Link(asyncio.BufferedProtocol):
    """The socket. `send` writes at once when the spawner has answered all before, so that it need not wait for us; a
    busy one gets what one round of the loop gives together. `send_later` is for what nobody waits for."""

    def __init__(
        self, hear: Callable[[list[Any]], None], lost: Callable[[], None], ready: asyncio.Future[None]
    ) -> None:
        self._hear = hear
        self._lost = lost
        self._ready = ready
        self._decoder = protocol.Decoder()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._outgoing: list[Any] = []
        self._later: list[Any] = []
        self.unanswered = 0
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        messages = self._decoder.feed(bytes(self._buffer[:nbytes]))
        if messages and messages[0][0] == protocol.READY:
            messages = messages[1:]
            if not self._ready.done():
                self._ready.set_result(None)
        self._hear(messages)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._ready.done():
            self._lost()
        else:
            self._ready.set_exception(ConnectionError("closed before it was ready"))

    def send(self, message: tuple[Any, ...]) -> None:
        if not self._outgoing and self.unanswered:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)
        if not self.unanswered:
            self._flush()

    def send_later(self, message: tuple[Any, ...]) -> None:
        if not self._later:
            self._loop.call_later(LATER_SECONDS, self._flush)
        self._later.append(message)

    def _flush(self) -> None:
        messages = self._outgoing + self._later
        self._outgoing, self._later = [], []
        if self._transport is not None and messages:
            self._transport.write(protocol.encode(messages))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1][:500] if lines else ""


def _wait(spawner: subprocess.Popen[bytes]) -> None:
    try:
        spawner.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        spawner.kill()
        spawner.wait()
