"""Making and removing work folders. Standard library only: the spawner uses it.

On a journalling file system a folder costs 50 to 100 µs to make and as much to remove, as much as starting a process.
Most functions leave theirs empty, so an untouched one is renamed for the next run: a tenth of the cost, and nothing
that a function can see or leave behind differs.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque

SMALL = 64
"""Entries up to which a folder is removed by the one who was asked, rather than by a process of its own."""
KEEP_SECONDS = 0.02
"""How long an unwanted folder waits for a next run before it is removed."""
FIRST = "1"
"""The work folder of a run's first attempt; the only one that may be used again."""


class WorkFolders:
    """The folders of runs (`<run>/<attempt>`), side by side in one folder.

    Unwanted folders wait for a short while. The caller asks `due` when the next one has to go, and then calls `clear`.
    """

    def __init__(self) -> None:
        self._unwanted: deque[tuple[float, str]] = deque()
        self._big: list[str] = []
        self._user = os.geteuid()

    def make(self, folder: str) -> None:
        """Make a work folder, empty and private to its owner, in the folder of its run. Raises OSError."""
        run, _, name = folder.rpartition("/")
        if name == FIRST and self._unwanted:
            # Nothing has changed in it since it was looked at: no process knows it.
            with contextlib.suppress(OSError):
                os.rename(self._unwanted[0][1], run)
                self._unwanted.popleft()
                return
        with contextlib.suppress(FileExistsError):
            os.mkdir(run, 0o700)
        os.mkdir(folder, 0o700)

    def discard(self, run: str) -> None:
        """The folder of a run is not wanted any more: it is kept for the next run if it cannot be told from a new one,
        else removed."""
        try:
            if self._is_untouched(run):
                self._unwanted.append((time.monotonic() + KEEP_SECONDS, run))
                return
        except OSError:
            pass
        self._remove(run)

    def due(self) -> float | None:
        """When the next unwanted folder has to go (monotonic), None when there is none."""
        return self._unwanted[0][0] if self._unwanted else None

    def clear(self, now: float) -> None:
        """Remove what is due, if there is little in it."""
        while self._unwanted and self._unwanted[0][0] <= now:
            self._remove(self._unwanted.popleft()[1])

    def take_big(self, limit: int) -> list[str]:
        """Folders with too much in them to be removed here: somebody else's now."""
        taken, self._big = self._big[:limit], self._big[limit:]
        return taken

    def _remove(self, run: str) -> None:
        try:
            if _remove(run, SMALL) >= 0:
                return
        except FileNotFoundError:
            return
        except OSError:
            pass
        self._big.append(run)

    def _is_untouched(self, run: str) -> bool:
        """Whether it is as `make` made it for one attempt: contents, permissions, attributes, access lists."""
        work = f"{run}/{FIRST}"
        return not os.listdir(work) and os.listdir(run) == [FIRST] and self._is_plain(run) and self._is_plain(work)

    def _is_plain(self, folder: str) -> bool:
        found = os.lstat(folder)
        if found.st_mode != stat.S_IFDIR | 0o700 or found.st_uid != self._user:
            return False
        if not hasattr(os, "listxattr"):
            return True
        return all(name.startswith("security.") for name in os.listxattr(folder, follow_symlinks=False))


def _remove(path: str, budget: int) -> int:
    """Remove a folder and what is in it. What is left of the budget, negative when it did not suffice."""
    with os.scandir(path) as entries:
        for entry in entries:
            budget -= 1
            if budget >= 0:
                if entry.is_dir(follow_symlinks=False):
                    budget = _remove(entry.path, budget)
                else:
                    os.unlink(entry.path)
            if budget < 0:
                return budget
    os.rmdir(path)
    return budget
