"""The code that running functions have: one copy per version, kept as long as a run has it or it is the newest.

Changed in the event loop only; the copying itself is done in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from trigger.local_engine import workfolder


class Snapshots:
    """Copies of code below `state_dir`. `remove` has a folder removed and must not block."""

    def __init__(self, state_dir: Path, remove: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._remove = remove
        self._known: dict[str, Path] = {}
        self._users: Counter[str] = Counter()
        self._newest: dict[str, str] = {}
        self._copying: dict[str, asyncio.Lock] = {}

    def use(self, function: str, name: str, *, held: str | None) -> Path | None:
        """The copy, counted as used unless its run holds it; None when it must be made."""
        folder = self._known.get(name)
        if folder is not None and held != name:
            self._take(function, name)
        return folder

    async def make(
        self, function: str, name: str, folder: Path | None, inline: str | None, *, held: str | None
    ) -> Path:
        """The copy, made when there is none, and counted as used unless its run holds it. Raises OSError."""
        async with self._copying.setdefault(name, asyncio.Lock()):
            if name not in self._known:
                self._known[name] = await asyncio.to_thread(
                    workfolder.snapshot_code, self._state_dir, name, folder, inline
                )
        self._copying.pop(name, None)
        if held != name:
            self._take(function, name)
        return self._known[name]

    def leave(self, function: str, name: str) -> None:
        """A run with this code has ended."""
        self._users[name] -= 1
        self._forget_unused(function, name)

    def _take(self, function: str, name: str) -> None:
        self._users[name] += 1
        before = self._newest.get(function)
        self._newest[function] = name
        if before is not None and before != name:
            self._forget_unused(function, before)

    def _forget_unused(self, function: str, name: str) -> None:
        if self._users[name] > 0 or self._newest.get(function) == name:
            return
        del self._users[name]
        folder = self._known.pop(name, None)
        if folder is not None:
            self._remove(str(folder))
