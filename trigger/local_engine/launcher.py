"""How a process is started: its descriptors, its session, its signals, its limits. Standard library only."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import Any

from trigger.local_engine.channels import Channels
from trigger.local_engine.protocol import Order

DEFAULT_SIGNALS = [
    signal.SIGPIPE,  # ignored by every Python
    signal.SIGXFSZ,  # so is this one
    signal.SIGHUP,  # ignored below nohup
    signal.SIGINT,  # ignored in a shell's background job
    signal.SIGQUIT,
    signal.SIGTERM,
]
OWN_SIZE_BYTES = 64 * 1024 * 1024
"""More than the address space that a spawner ever has."""
_REMOVE = 'rm -rf -- "$@" 2>/dev/null || { chmod -R u+rwx -- "$@"; rm -rf -- "$@"; } 2>/dev/null'


class Launcher:
    """Starts processes below this one.

    `posix_spawn` and not `fork`: it shares our memory until exec instead of copying its tables, which is twice as fast
    (`benchmarks/process_start.py`). It has no step at which anything else could be done in the child, so what it cannot
    do itself is done to ourselves before it: there is one thread of us, and the child inherits folder and limits.
    """

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._open_files = _raise_open_files()

    def start(self, order: Order, channels: Channels) -> int:
        """The id of the new process, which begins in our present folder. Raises OSError."""
        actions = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, channels.out_writer, 1),
            (os.POSIX_SPAWN_DUP2, channels.err_writer, 2),
        ]
        ours = _take_memory_limit(order.memory_bytes)
        try:
            pid = _posix_spawn(order, actions)
        finally:
            if ours is not None:
                resource.setrlimit(resource.RLIMIT_AS, ours)
        with contextlib.suppress(ProcessLookupError):  # it may be over by now
            if order.memory_bytes is not None and hasattr(resource, "prlimit"):
                resource.prlimit(pid, resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
            if self._open_files is not None:  # not before: our descriptors may be above its limit
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._open_files)
        return pid

    def start_removal(self, folders: list[str]) -> int:
        """The id of a process that removes folders, however deep they are and whatever their permissions."""
        os.chdir("/")
        actions = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in (0, 1, 2)]
        argv = ["/bin/sh", "-c", _REMOVE, "rm", *folders]
        return os.posix_spawn("/bin/sh", argv, {"PATH": os.defpath}, file_actions=actions)


def _posix_spawn(order: Order, actions: list[Any]) -> int:
    try:
        return os.posix_spawn(
            order.path,
            order.argv,
            order.env,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=DEFAULT_SIGNALS,
        )
    except NotImplementedError:  # a platform whose posix_spawn cannot make a session: a process group is next best
        return os.posix_spawn(
            order.path, order.argv, order.env, file_actions=actions, setpgroup=0, setsigdef=DEFAULT_SIGNALS
        )


def _take_memory_limit(limit: int | None) -> tuple[int, int] | None:
    """Take the limit that the child is to inherit, since one set after its start may come too late; returns ours.

    Only the soft limit, which may be taken back. None when nothing was done: with a limit below our own size we could
    start nothing.
    """
    if limit is None or limit < OWN_SIZE_BYTES:
        return None
    ours = resource.getrlimit(resource.RLIMIT_AS)
    if ours[1] != resource.RLIM_INFINITY and ours[1] < limit:
        return None
    resource.setrlimit(resource.RLIMIT_AS, (limit, ours[1]))
    return ours


def _raise_open_files() -> tuple[int, int] | None:
    """Let us have as many open files as we may (four for each attempt); returns the limits that attempts are to have.

    None where those could not be set for others (elsewhere than Linux): nothing is changed then.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not hasattr(resource, "prlimit") or limits[0] == limits[1]:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    return limits
