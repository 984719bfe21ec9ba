"""Readings of the same thing by many at once: one for all that ask before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """A reading that many may ask for.

    Who asks while one is under way gets the next, never one that began before he asked: what he watches is in it.
    """

    def __init__(self, read: Callable[[str], Awaitable[T]]) -> None:
        self._read = read
        self._next: dict[str, asyncio.Task[T]] = {}
        self._running: dict[str, asyncio.Task[T]] = {}

    async def __call__(self, key: str) -> T:
        following = self._next.get(key)
        if following is None:
            following = self._next[key] = asyncio.create_task(self._after(self._running.get(key), key))
            following.add_done_callback(_heard)
        # Shielded: one who goes does not take the reading from the others.
        return await asyncio.shield(following)

    async def _after(self, running: asyncio.Task[T] | None, key: str) -> T:
        if running is not None:
            await asyncio.wait({running})
        own = self._running[key] = self._next.pop(key)
        try:
            return await self._read(key)
        finally:
            if self._running.get(key) is own:
                del self._running[key]


def _heard(read: asyncio.Task[T]) -> None:
    """What a reading raised is told to those who wait for it; when all of them have gone, to nobody."""
    if not read.cancelled():
        read.exception()
