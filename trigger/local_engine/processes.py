"""The engine's end of the spawner: start a process, signal it, hear what it prints and how it ended.

Everything here happens in the event loop and none of it blocks; what may block is the spawner's.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Protocol

import structlog

from invoker.errors import EngineUnavailableError
from trigger.local_engine import descendants, protocol
from trigger.local_engine.link import Link, connect
from trigger.local_engine.protocol import Ended, Order

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from trigger.local_engine import keeper; "
    "keeper.main([int(fd) for fd in sys.argv[2:]])"
)
_ROOT = Path(__file__).resolve().parents[2]
SPAWNERS = 2
"""Whoever starts a process waits for it to get a processor; meanwhile the other one reads, reaps and starts."""
STOP_SECONDS = 10.0
START_SECONDS = 30.0

_log = structlog.get_logger(component="local-engine")


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
    """All processes of one engine.

    `open` starts the spawners; when they are gone (killed, crashed), `launch` raises `EngineUnavailableError` until
    `open` is called again.
    """

    def __init__(self, python: str, errors: Path) -> None:
        self._python = python
        self._errors = errors
        self._links: list[Link] = []
        self._keeper: subprocess.Popen[bytes] | None = None
        self._known: dict[int, tuple[Listener, Link]] = {}
        self._groups: dict[int, int] = {}
        self._last_key = 0

    @property
    def is_open(self) -> bool:
        return bool(self._links)

    @property
    def pid(self) -> int | None:
        """The process id of the keeper, the spawners' parent."""
        return self._keeper.pid if self._keeper else None

    async def open(self) -> None:
        """Start the spawners; when this returns they take orders. Raises `EngineUnavailableError` when that fails."""
        if self._keeper is not None:
            await asyncio.to_thread(_wait, self._keeper)
        pairs = [socket.socketpair() for _ in range(SPAWNERS)]
        links: list[Link] = []
        try:
            try:
                self._keeper = await asyncio.to_thread(self._start, [theirs for _, theirs in pairs])
            finally:
                for _, theirs in pairs:
                    theirs.close()  # now: while we hold them, nobody hears that a keeper has ended without a word
            links = [await connect(ours, self._hear, self._lost) for ours, _ in pairs]
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(link.ready for link in links))
        except (OSError, TimeoutError) as error:
            for link in links:
                link.close()
            raise EngineUnavailableError(await self._why_not(error)) from error
        finally:
            for ours, _ in pairs:
                if not links:
                    ours.close()
        self._links = links

    async def _why_not(self, error: Exception) -> str:
        if not isinstance(error, ConnectionError | TimeoutError):
            return f"the local engine's spawner cannot be started: {error}"
        said = await asyncio.to_thread(_last_line, self._errors)
        return f"the local engine's spawner ({self._python}) did not come up: {said or 'it said nothing'}"

    def _start(self, sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
        fds = [one.fileno() for one in sockets]
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                [self._python, "-I", "-S", "-c", _PROGRAM, str(_ROOT), *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=fds,
                env={},
                cwd="/",
                start_new_session=True,
            )

    async def close(self) -> None:
        """End every process and the spawners. Returns when nothing of them lives; safe to repeat."""
        links, self._links = self._links, []
        keeper, self._keeper = self._keeper, None
        for link in links:
            link.close()
        if keeper is not None:
            await asyncio.to_thread(_wait, keeper)

    def launch(self, order: Order, listener: Listener) -> int:
        """Ask for a process; returns the key to signal it by. Raises `EngineUnavailableError` without a spawner."""
        if not self._links:
            raise EngineUnavailableError("the local engine's spawner is not running")
        link = min(self._links, key=Link.load)
        self._last_key += 1
        self._known[self._last_key] = listener, link
        link.order((protocol.START, self._last_key, tuple(order)))
        return self._last_key

    def signal(self, key: int, signum: int) -> None:
        """Send a signal to a whole process group; nothing happens when it has ended."""
        if key in self._known:
            self._known[key][1].send((protocol.SIGNAL, key, int(signum)))

    def remove(self, folder: str) -> None:
        """Have a folder removed, some time soon; nothing happens without a spawner (the next engine does it)."""
        if self._links:
            min(self._links, key=Link.folders).discard((protocol.REMOVE, folder))

    def _hear(self, messages: list[Any]) -> None:
        for message in messages:
            listener, link = self._known.get(message[1], (None, None))
            if listener is None or link is None:
                continue
            try:
                self._pass_on(listener, link, *message)
            except Exception:  # one listener's bug must not close the link, and with it everybody's process
                _log.exception("hearing of a process failed")
                self._settle(message[1])
                listener.broken()

    def _pass_on(self, listener: Listener, link: Link, kind: str, key: int, *details: Any) -> None:
        if kind == protocol.STARTED:
            link.unanswered -= 1
            self._groups[key] = details[0]
            listener.started()
        elif kind == protocol.OUTPUT:
            listener.printed(*details)
        elif kind == protocol.ENDED:
            link.alive -= 1
            self._settle(key)
            listener.ended(Ended(*details))
        elif kind == protocol.REFUSED:
            link.unanswered -= 1
            link.alive -= 1
            self._settle(key)
            listener.refused(ProcessRefusedError(*details))

    def _settle(self, key: int) -> None:
        self._known.pop(key, None)
        self._groups.pop(key, None)

    def _lost(self) -> None:
        """A socket closed, so keeper and spawners are gone. They have killed what they knew, unless they were killed at
        one stroke: the groups are ours to kill then, and killing them twice is harmless."""
        links, self._links = self._links, []
        for link in links:
            link.close()
        listeners, self._known = [listener for listener, _ in self._known.values()], {}
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


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1][:500] if lines else ""


def _wait(keeper: subprocess.Popen[bytes]) -> None:
    try:
        keeper.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()
