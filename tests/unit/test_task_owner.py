"""The task group ends for certain, also when a task loses a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from trigger.task_owner import TaskOwner


async def deaf(times: int, heard: list[int]) -> None:
    """Loses its first cancellations, as `asyncio.wait_for` did until Python 3.12."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        heard.append(1)
    await asyncio.Event().wait()


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_task_that_loses_cancellations_is_ended_all_the_same(times: int) -> None:
    heard: list[int] = []
    async with TaskOwner() as tasks:
        task = tasks.create_task(deaf(times, heard))
        await asyncio.sleep(0)
        await asyncio.wait_for(tasks.end(), 60)
        assert task.cancelled()
    assert len(heard) == times


async def test_ending_twice_and_ending_nothing_is_harmless() -> None:
    async with TaskOwner() as tasks:
        await tasks.end()
        await tasks.end()


async def test_finished_tasks_are_forgotten_and_their_values_kept() -> None:
    async def seven() -> int:
        return 7

    async with TaskOwner() as tasks:
        task = tasks.create_task(seven(), name="seven")
        assert await task == 7
        assert task.get_name() == "seven"
        assert not tasks._owned


async def test_a_failing_task_still_ends_the_group_with_its_error() -> None:
    async def fails() -> None:
        raise ValueError("on purpose")

    async def group() -> None:
        async with TaskOwner() as tasks:
            tasks.create_task(fails())
            try:
                await asyncio.Event().wait()
            finally:
                await tasks.end()

    with pytest.raises(ExceptionGroup) as raised:
        await group()
    assert raised.group_contains(ValueError, match="on purpose")
