"""The engine's end of the spawner: start a process, signal it, hear what it prints and how it ended.

Everything here happens in the event loop and none of it blocks; what may block is the spawner's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoker.errors import EngineUnavailableError
from trigger.local_engine import protocol
from trigger.local_engine.protocol import Ended, Order

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from trigger.local_engine import spawner; spawner.main(int(sys.argv[2]))"
)
_ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 10.0

OnOutput = Callable[[list[tuple[int, bytes]], int], None]


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


class Process:
    """One process: `ended` is awaited for its end.

    `ended` raises `ProcessRefusedError` when it did not start, `SpawnerGoneError` when it was lost.
    """

    __slots__ = ("_key", "_processes", "ended", "on_output", "on_started", "pid")

    def __init__(self, processes: Processes, key: int, on_started: Callable[[], None], on_output: OnOutput) -> None:
        self._processes = processes
        self._key = key
        self.on_started = on_started
        self.on_output = on_output
        self.pid = 0
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def signal(self, signum: int) -> None:
        """Send a signal to the whole process group; nothing happens when it has ended."""
        self._processes.send((protocol.SIGNAL, self._key, int(signum)))


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
        self._known: dict[int, Process] = {}
        self._last_key = 0

    @property
    def is_open(self) -> bool:
        return self._link is not None

    @property
    def pid(self) -> int | None:
        """The process id of the keeper, the spawner's parent."""
        return self._spawner.pid if self._spawner else None

    async def open(self) -> None:
        """Start the spawner. Raises `EngineUnavailableError` when that cannot be done."""
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        try:
            with theirs:
                self._spawner = await asyncio.to_thread(self._start, theirs)
            _, link = await loop.create_connection(lambda: _Link(self._hear, self._lost), sock=ours)
        except OSError as error:
            ours.close()
            raise EngineUnavailableError(f"the local engine's spawner cannot be started: {error}") from error
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

    def launch(self, order: Order, on_started: Callable[[], None], on_output: OnOutput) -> Process:
        """Ask for a process. The callbacks are called in the loop, `on_started` at most once and first."""
        self._last_key += 1
        process = Process(self, self._last_key, on_started, on_output)
        self._known[self._last_key] = process
        self.send((protocol.START, self._last_key, tuple(order)))
        return process

    def send(self, message: tuple[Any, ...]) -> None:
        if self._link is None:
            raise EngineUnavailableError("the local engine's spawner is not running")
        self._link.send(message)

    def remove(self, folder: str) -> None:
        """Have a folder removed, some time soon; nothing happens when the spawner is gone (the next start does it)."""
        if self._link is not None:
            self._link.send((protocol.REMOVE, folder))

    def _hear(self, messages: list[Any]) -> None:
        for kind, key, *rest in messages:
            process = self._known.get(key)
            if process is None:
                continue
            if kind == protocol.STARTED:
                process.pid = rest[0]
                process.on_started()
            elif kind == protocol.OUTPUT:
                process.on_output(*rest)
            elif kind == protocol.ENDED:
                self._settle(key, Ended(*rest))
            elif kind == protocol.REFUSED:
                self._settle(key, ProcessRefusedError(*rest))

    def _settle(self, key: int, outcome: Ended | Exception) -> None:
        future = self._known.pop(key).ended
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _lost(self) -> None:
        """The socket closed, so spawner and keeper are gone. They have killed what they knew, unless both were killed
        at one stroke: the groups are ours to kill then, and killing them twice is harmless."""
        self._link = None
        for key, process in list(self._known.items()):
            if process.pid:
                _kill_group(process.pid)
            self._settle(key, SpawnerGoneError())


class _Link(asyncio.Protocol):
    """The socket: collects what is sent during one round of the loop into one frame."""

    def __init__(self, hear: Callable[[list[Any]], None], lost: Callable[[], None]) -> None:
        self._hear = hear
        self._lost = lost
        self._decoder = protocol.Decoder()
        self._outgoing: list[Any] = []
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._hear(self._decoder.feed(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()

    def send(self, message: tuple[Any, ...]) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if self._transport is not None and messages:
            self._transport.write(protocol.encode(messages))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _wait(spawner: subprocess.Popen[bytes]) -> None:
    try:
        spawner.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        spawner.kill()
        spawner.wait()
