"""The child program that starts attempts, reads what they print, and ends what they leave behind.

Standard library only; single-threaded; started as `python -I -S -c …` with an empty environment. It lives outside the
engine's process for three reasons: starting a process blocks the one who does it, only the parent of a process can know
surely that it has ended, and a subreaper gets to see what an attempt has left behind.

An attempt is a session of its own. When its main process has ended, everything else of it is killed: its process
group at once, what left the group (`setsid`) as soon as it becomes our child. Only then its end is reported.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from typing import Any

from trigger.local_engine import descendants, protocol
from trigger.local_engine.channels import READ_BYTES, Capture, ChannelPool, Channels
from trigger.local_engine.folders import WorkFolders
from trigger.local_engine.launcher import Launcher
from trigger.local_engine.protocol import Order

FLUSH_SECONDS = 0.05
"""Between two messages about one attempt's output: what comes faster than it can be sent is dropped, oldest first."""
HOLD_SECONDS = 0.002
"""How long the news that a process has started may wait for other news: the end of a short one, mostly."""
BUSY_SECONDS = 0.0005
"""How long any news may wait while there are orders to carry out: several travel together then."""
SWEEP_SECONDS = 2.0
"""How long an attempt's end waits for what it left behind to be gone (a set-user-id child cannot be killed)."""
SWEEP_AGAIN_SECONDS = 0.02
TERMINATION_BYTES = 4096
REMOVED_AT_ONCE = 64
RECEIVE_BYTES = 64 * 1024


class Attempt:
    """One started process and what is known of it. `clean`: nothing of it was left when its main process ended.
    `group_lives`: somebody may be in its process group, and as long as that is so its number is nobody else's."""

    __slots__ = ("capture", "channels", "clean", "ended_at", "exit_code", "group_lives", "key", "order", "pid")

    def __init__(self, key: int, order: Order, pid: int, channels: Channels) -> None:
        self.key = key
        self.order = order
        self.pid = pid
        self.channels = channels
        self.capture = Capture(order)
        self.exit_code: int | None = None
        self.ended_at = 0.0
        self.clean = True
        self.group_lives = True


class Spawner:
    """The loop: orders in, processes started and ended, news out.

    Everything is done by this one thread in one order per round: orders, output, ends, flush; so a `started` is
    always told before its `ended`, and an `ended` only after the last output.
    """

    def __init__(self, control: socket.socket, keeper_lives: int) -> None:
        self._control = control
        self._keeper_lives = keeper_lives
        self._poller = _Poller()
        self._children = descendants.Children()
        self._channels = ChannelPool(self._poller.register, self._poller.unregister)
        self._folders = WorkFolders()
        self._decoder = protocol.Decoder()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._orders: deque[Any] = deque()
        self._news: list[Any] = []
        self._due = 0.0
        self._urgent = False
        self._by_pid: dict[int, Attempt] = {}
        self._by_key: dict[int, Attempt] = {}
        self._by_pipe: dict[int, tuple[Attempt, int]] = {}
        self._ending: dict[int, Attempt] = {}
        self._unsent: dict[int, Attempt] = {}
        self._strays: dict[int, set[int]] = {}
        self._remover = 0
        self._launcher = Launcher()
        self._wake, self._wake_writer = os.pipe()

    def run(self) -> None:
        """Work until the engine or the keeper is gone, then end every attempt."""
        self._hear_of_children()
        self._tell((protocol.READY, 0))
        self._report()
        control, keeper = self._control.fileno(), self._keeper_lives
        for fd in (control, keeper, self._wake):
            self._poller.register(fd)
        try:
            while True:
                ready = self._poller.poll(self._patience())
                if keeper in ready or (control in ready and not self._receive()):
                    return
                if self._orders:
                    self._obey()
                for fd in ready:
                    if fd not in (control, self._wake):
                        self._read(fd)
                if self._wake in ready or self._ending:
                    self._reap()
                self._report()
                if not self._orders:
                    self._tidy()
        except (BrokenPipeError, ConnectionResetError):
            return  # the engine is gone in the middle of a message
        finally:
            descendants.end_all_below(list(self._by_pid))

    def _hear_of_children(self) -> None:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)

    def _patience(self) -> float | None:
        """Seconds until something is due by itself, None when nothing is."""
        if self._orders:
            return 0.0
        due = self._folders.due()
        if self._news:  # held
            due = self._due if due is None else min(due, self._due)
        patience = None if due is None else max(0.0, due - time.monotonic())
        if self._ending or self._unsent:
            patience = SWEEP_AGAIN_SECONDS if patience is None else min(patience, SWEEP_AGAIN_SECONDS)
        return patience

    # orders

    def _receive(self) -> bool:
        """Take in orders; False when the engine is gone."""
        size = self._control.recv_into(self._buffer)
        self._orders += self._decoder.feed(bytes(self._buffer[:size]))
        return size > 0

    def _obey(self) -> None:
        """Carry out the oldest order. One in a round, since an end must not wait for many starts."""
        message = self._orders.popleft()
        if message[0] == protocol.START:
            self._start(message[1], Order(*message[2]))
        elif message[0] == protocol.SIGNAL:
            self._signal(message[1], message[2])
        elif message[0] == protocol.REMOVE:
            self._folders.discard(message[1])

    def _start(self, key: int, order: Order) -> None:
        try:
            if order.make_folder:
                self._folders.make(order.folder)
            os.chdir(order.folder)  # what we start begins where we are: there is one of us, so this is safe
        except OSError as error:
            self._refuse(key, "folder", error, order.folder)
            return
        try:
            channels = self._channels.take()
        except OSError as error:
            self._refuse(key, "start", error, order.path)
            return
        try:
            pid = self._launcher.start(order, channels)
        except OSError as error:
            self._channels.give_back(channels, clean=True)
            self._refuse(key, "start", error, order.path)
            return
        attempt = Attempt(key, order, pid, channels)
        self._by_pid[pid] = self._by_key[key] = attempt
        self._by_pipe[channels.out] = attempt, protocol.STDOUT
        self._by_pipe[channels.err] = attempt, protocol.STDERR
        self._hold((protocol.STARTED, key, pid), HOLD_SECONDS)

    def _refuse(self, key: int, step: str, error: OSError, subject: str) -> None:
        self._tell((protocol.REFUSED, key, step, error.errno or 0, error.strerror or "", subject))

    def _signal(self, key: int, signum: int) -> None:
        attempt = self._by_key.get(key)
        if attempt is not None and attempt.exit_code is None:  # once reaped, its number may be somebody else's
            descendants.kill_group(attempt.pid, signum)

    # output

    def _read(self, fd: int) -> None:
        if fd not in self._by_pipe:
            self._channels.hear_noise(fd)
            return
        attempt, stream = self._by_pipe[fd]
        with contextlib.suppress(BlockingIOError):
            attempt.capture.take(stream, os.read(fd, READ_BYTES))
        if attempt.capture.has_news:
            self._unsent[attempt.key] = attempt

    def _drain(self, attempt: Attempt) -> None:
        """Read what a dead attempt left in its pipes: at most what fits into them, since nobody adds to it."""
        for fd in (attempt.channels.out, attempt.channels.err):
            _, stream = self._by_pipe.pop(fd)
            with contextlib.suppress(BlockingIOError):
                while data := os.read(fd, READ_BYTES):
                    attempt.capture.take(stream, data)
                    if not attempt.clean:
                        break
        self._channels.give_back(attempt.channels, clean=attempt.clean)

    # ends

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                self._note_end(pid, status)
        except ChildProcessError:
            pass
        if self._ending:
            self._sweep()

    def _note_end(self, pid: int, status: int) -> None:
        self._strays.pop(pid, None)
        if pid == self._remover:
            self._remover = 0
        attempt = self._by_pid.pop(pid, None)
        if attempt is not None:
            attempt.exit_code = os.waitstatus_to_exitcode(status)
            attempt.ended_at = time.monotonic()
            self._ending[attempt.key] = attempt

    def _sweep(self) -> None:
        """Kill what ended attempts have left; report those of which nothing is left."""
        for attempt in self._ending.values():
            attempt.group_lives = attempt.group_lives and descendants.kill_group(attempt.pid, signal.SIGKILL)
        busy = {key for key, attempt in self._ending.items() if attempt.group_lives}
        for pid in self._children.pids():
            if pid in self._by_pid or pid == self._remover:
                continue
            owners = self._owners(pid)
            if owners <= self._ending.keys():
                descendants.kill(pid)
                busy |= owners
        now = time.monotonic()
        for key, attempt in list(self._ending.items()):
            if key in busy:
                attempt.clean = False
            if key not in busy or now - attempt.ended_at > SWEEP_SECONDS:
                del self._ending[key]
                self._finish(attempt)

    def _owners(self, pid: int) -> set[int]:
        """Whose descendant a child is that nobody started: one attempt's, or (nothing tells) one of those that lived
        when it was first seen. It is seen at the end of its attempt at the latest, so its owner is among them."""
        known = self._strays.get(pid)
        if known is None:
            known = self._strays[pid] = self._find_owners(pid)
        return known & self._by_key.keys()

    def _find_owners(self, pid: int) -> set[int]:
        session = descendants.parent_and_session(pid)[1]
        environment = set(descendants.environment_of(pid))
        for attempt in self._by_key.values():
            if attempt.pid == session or attempt.order.mark.encode() in environment:
                return {attempt.key}
        return set(self._by_key)

    def _finish(self, attempt: Attempt) -> None:
        self._drain(attempt)
        del self._by_key[attempt.key]
        self._unsent.pop(attempt.key, None)
        self._flush(attempt)
        capture = attempt.capture
        spooled = capture.spooled
        end = protocol.Ended(
            exit_code=attempt.exit_code or 0,
            output=capture.close(),
            output_size=capture.size,
            spooled=spooled,
            termination=_read_termination(attempt.order.termination),
            trouble=capture.trouble,
        )
        self._tell((protocol.ENDED, attempt.key, *end))

    # news

    def _tell(self, message: tuple[Any, ...]) -> None:
        """Add news that wait for nothing but orders at hand, and for those not long."""
        self._hold(message, BUSY_SECONDS)
        self._urgent = True

    def _hold(self, message: tuple[Any, ...], seconds: float) -> None:
        due = time.monotonic() + seconds
        self._due = min(self._due, due) if self._news else due
        self._news.append(message)

    def _report(self) -> None:
        now = time.monotonic()
        if self._unsent:
            for key, attempt in list(self._unsent.items()):
                if now - attempt.capture.flushed_at >= FLUSH_SECONDS:
                    attempt.capture.flushed_at = now
                    del self._unsent[key]
                    self._flush(attempt)
        if self._news and (now >= self._due or (self._urgent and not self._orders)):
            news, self._news = self._news, []
            self._urgent = False
            self._control.sendall(protocol.encode(news))

    def _flush(self, attempt: Attempt) -> None:
        pieces, dropped = attempt.capture.news()
        if pieces or dropped:
            self._tell((protocol.OUTPUT, attempt.key, pieces, dropped))

    # folders

    def _tidy(self) -> None:
        """Remove folders that nobody wants; big ones by `rm`, one call at a time: it copes with depth and length."""
        self._folders.clear(time.monotonic())
        if self._remover:
            return
        paths = self._folders.take_big(REMOVED_AT_ONCE)
        if not paths:
            return
        with contextlib.suppress(OSError):
            self._remover = self._launcher.start_removal(paths)


class _Poller:
    """epoll where it exists, else poll: the ready descriptors, whatever became of them."""

    def __init__(self) -> None:
        self._epoll = hasattr(select, "epoll")
        self._poll: Any = select.epoll() if self._epoll else select.poll()
        self.unregister = self._poll.unregister

    def register(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def poll(self, seconds: float | None) -> list[int]:
        timeout = seconds if self._epoll or seconds is None else seconds * 1000
        return [fd for fd, _ in self._poll.poll(timeout)]


def _read_termination(path: str) -> bytes:
    """What the attempt left in its termination file, and one byte more when it is too long."""
    try:
        # A function may have made anything of it: a pipe must not block us, a link not lead elsewhere.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, TERMINATION_BYTES + 1)
    except OSError:
        return b""
    finally:
        os.close(fd)
