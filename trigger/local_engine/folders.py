"""Removing small folders in place. Standard library only: the spawner uses it."""

from __future__ import annotations

import os

SMALL = 64
"""Entries up to which a folder is removed by the one who was asked, rather than by a process of its own."""


def remove_small(path: str) -> bool:
    """Remove a folder and what is in it, if that is little. False: (partly) still there; True also if it was gone."""
    try:
        return _remove(path, SMALL) >= 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _remove(path: str, budget: int) -> int:
    """What is left of the budget, negative when it did not suffice."""
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
