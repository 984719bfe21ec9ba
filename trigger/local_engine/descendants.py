"""What an attempt has left behind, and how it is ended.

Standard library only; Linux where it matters, elsewhere process groups are all there is. A process that is a subreaper
becomes the parent of whatever is orphaned below it, so nothing can leave: not by forking twice, not by `setsid`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
HALF_A_PAGE = 2048
_LINUX = sys.platform == "linux"


def become_subreaper() -> None:
    """Orphans below this process become its children. Inherited by nothing; does nothing where it does not exist."""
    if not _LINUX:
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Children:
    """The present children of this process, as the kernel lists them."""

    def __init__(self) -> None:
        self._fd = -1
        pid = os.getpid()
        with contextlib.suppress(OSError):
            self._fd = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def pids(self) -> list[int]:
        """Living children and zombies. Where the kernel keeps no list, found by walking /proc; without /proc none."""
        if self._fd < 0:
            return _children_by_walking(os.getpid())
        parts = []
        at = 0
        while chunk := os.pread(self._fd, 65536, at):
            parts.append(chunk)
            at += len(chunk)
            if len(chunk) < HALF_A_PAGE:  # the kernel gives nearly whole pages while there is more
                break
        return [int(pid) for pid in b"".join(parts).split()]


def _children_by_walking(parent: int) -> list[int]:
    if not _LINUX:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and parent_and_session(int(name))[0] == parent:
            found.append(int(name))
    return found


def parent_and_session(pid: int) -> tuple[int, int]:
    """The parent and the session of a process, (0, 0) when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[3])


def environment_of(pid: int) -> list[bytes]:
    """The environment a process was started with, as `NAME=value`; empty when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def kill_group(group: int, signum: int) -> bool:
    """Signal a process group; False when nobody is in it any more."""
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies; Linux of a group of set-user-id programs
        return False
    return True


def end_all_below(groups: list[int]) -> None:
    """Kill and reap everything below this process. Returns when nothing is left, or after 5 s.

    Killing a child hands its own children to us (we are their subreaper), so it is repeated until there are none.
    """
    children = Children()
    for group in groups:
        kill_group(group, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        for pid in children.pids():
            kill(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)
