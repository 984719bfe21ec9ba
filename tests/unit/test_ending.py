"""Tasks are over when `cancelled` returns, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

from invoker.ending import cancelled


async def test_a_task_that_loses_its_first_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    async def failing() -> None:
        raise ValueError("nobody is to hear of it any more")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await cancelled(*tasks)
    assert [one.done() for one in tasks] == [True, True]
    assert lost == 3
    await cancelled(*tasks)
    await cancelled()
