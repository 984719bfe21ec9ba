"""The same work for many, a bounded number of them at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

AT_ONCE = 16

Item = TypeVar("Item")
Given = TypeVar("Given")


async def some_at_once(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Given]], most: int = AT_ONCE
) -> list[Given]:
    """What the work gives for each, in their order; at most so many are under way. Raises what the first failing one
    raises."""
    free = asyncio.Semaphore(most)

    async def one(item: Item) -> Given:
        async with free:
            return await work(item)

    return list(await asyncio.gather(*(one(item) for item in items)))
