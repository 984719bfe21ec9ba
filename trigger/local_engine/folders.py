"""Making and removing work folders. Standard library only: the spawner uses it.

On a journalling file system a folder costs 50 to 100 µs to make and as much to remove, as much as starting a process.
Most functions leave theirs empty, so an untouched one is renamed for the next run: a fifth of the cost, and nothing
that a function can see or leave behind differs.
"""

from __future__ import annotations

import contextlib
import os
import stat

SMALL = 64
"""Entries up to which a folder is removed by the one who was asked, rather than by a process of its own."""
MAX_SPARE = 64
FIRST = "1"
"""The work folder of a run's first attempt; the only one that a spare folder has."""


class WorkFolders:
    """The folders of runs (`<run>/<attempt>`), side by side in one folder."""

    def __init__(self) -> None:
        self._spare: list[str] = []
        self._set_aside = 0

    def make(self, folder: str) -> None:
        """Make a work folder, empty and private to its owner, in the folder of its run. Raises OSError."""
        run, _, name = folder.rpartition("/")
        if name == FIRST and self._spare:
            with contextlib.suppress(OSError):
                os.rename(self._spare.pop(), run)
                return
        with contextlib.suppress(FileExistsError):
            os.mkdir(run, 0o700)
        os.mkdir(folder, 0o700)

    def remove(self, run: str) -> bool:
        """Remove the folder of a run, if there is little in it. False: something is still there."""
        try:
            if len(self._spare) < MAX_SPARE and _is_untouched(run):
                self._keep(run)
                return True
            return _remove(run, SMALL) >= 0
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def _keep(self, run: str) -> None:
        self._set_aside += 1
        spare = f"{os.path.dirname(run)}/.spare-{self._set_aside}"
        os.rename(run, spare)
        self._spare.append(spare)


def _is_untouched(run: str) -> bool:
    """Whether a run's folder is as `make` made it for one attempt: contents, permissions, attributes, access lists."""
    work = f"{run}/{FIRST}"
    return os.listdir(run) == [FIRST] and not os.listdir(work) and _is_plain(run) and _is_plain(work)


def _is_plain(folder: str) -> bool:
    found = os.stat(folder, follow_symlinks=False)
    if found.st_mode != stat.S_IFDIR | 0o700 or found.st_uid != os.geteuid():
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
