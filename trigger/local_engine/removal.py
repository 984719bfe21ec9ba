"""Which folders are to be removed when: each some time after its run's end."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

SETTLE_SECONDS = 1.0
"""How long after its removal was asked for a folder's name is not used again: the removing takes a moment."""


class Removals:
    """Folders due for removal, with one timer for all of them. `remove` is called in the loop and must not block."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._due: list[tuple[float, str, bool]] = []
        self._taken: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, folder: str) -> bool:
        """Whether the folder is going to be removed, or was a moment ago: its name may not be used now."""
        return folder in self._taken

    def add(self, folder: str, seconds: float) -> None:
        """Have the folder removed in so many seconds."""
        self._taken.add(folder)
        now = asyncio.get_running_loop().time()
        if seconds <= 0:
            self._remove(folder)
            self._plan(now + SETTLE_SECONDS, folder, removed=True)
        else:
            self._plan(now + seconds, folder, removed=False)

    def close(self) -> None:
        """Remove nothing more: what is left is removed when the state folder is used again."""
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()

    def _plan(self, at: float, folder: str, *, removed: bool) -> None:
        heapq.heappush(self._due, (at, folder, removed))
        if self._timer is None or self._due[0][1] == folder:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._due[0][0], self._pass) if self._due else None

    def _pass(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now:
            _, folder, removed = heapq.heappop(self._due)
            if removed:
                self._taken.discard(folder)
            else:
                self._remove(folder)
                heapq.heappush(self._due, (now + SETTLE_SECONDS, folder, True))
        self._arm()
