"""Which folders are to be removed when: each some time after its run's end."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable


class Removals:
    """Folders due for removal, with one timer for all of them. `remove` is called in the loop and must not block."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._due: list[tuple[float, str]] = []
        self._waiting: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, folder: str) -> bool:
        """Whether the folder is waiting: its name may not be used again before it is gone."""
        return folder in self._waiting

    def add(self, folder: str, seconds: float) -> None:
        """Have the folder removed in so many seconds."""
        if seconds <= 0:
            self._remove(folder)
            return
        loop = asyncio.get_running_loop()
        self._waiting.add(folder)
        heapq.heappush(self._due, (loop.time() + seconds, folder))
        if self._due[0][1] == folder:
            self._arm(loop)

    def close(self) -> None:
        """Remove nothing more: what is left is removed when the state folder is used again."""
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._due[0][0], self._pass, loop) if self._due else None

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._due and self._due[0][0] <= loop.time():
            _, folder = heapq.heappop(self._due)
            self._waiting.discard(folder)
            self._remove(folder)
        self._timer = None
        self._arm(loop)
