"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_SECONDS = 0.2


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until they have ended; what they raise is not news any more.

    More than once: until Python 3.12 `asyncio.wait_for`, on which every wait of nats-py rests, loses a cancellation
    that arrives in the same moment as what it waited for, and the task would go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()
