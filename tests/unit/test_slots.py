"""Slots: never more than there are, nobody starves, and one function never takes the last ones."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trigger.custody import Slots


async def take(slots: Slots, function: str) -> asyncio.Task[None]:
    """A run that asks; it has its slot when the task is done."""
    task = asyncio.create_task(slots.acquire(function))
    await asyncio.sleep(0)
    return task


async def test_one_function_may_not_take_the_last_tenth() -> None:
    slots = Slots(10)
    flood = [await take(slots, "flood") for _ in range(50)]
    assert sum(task.done() for task in flood) == 9
    other = await take(slots, "other")
    assert other.done(), "although fifty others asked before"
    late = await take(slots, "third")
    assert not late.done()
    slots.release("flood")
    await asyncio.sleep(0)
    assert sum(task.done() for task in flood) == 10, "in the order in which they asked"
    for task in [*flood, late]:
        task.cancel()


@pytest.mark.parametrize(("total", "most"), [(1, 1), (2, 1), (9, 8), (10, 9), (19, 18), (20, 18), (100, 90)])
async def test_the_share_of_one_function(total: int, most: int) -> None:
    slots = Slots(total)
    tasks = [await take(slots, "f") for _ in range(total)]
    assert sum(task.done() for task in tasks) == most
    for task in tasks:
        task.cancel()


async def test_a_cancelled_wait_takes_nothing() -> None:
    slots = Slots(1)
    await slots.acquire("a")
    waiting = [await take(slots, "b"), await take(slots, "c")]
    waiting[0].cancel()
    slots.release("a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting[1].done()
    assert slots.free == 0
    slots.release("c")
    assert slots.free == 1


async def test_cancelled_in_the_moment_of_the_hand_out() -> None:
    """The slot was given, the asker was cancelled before it ran again: the slot goes to the next."""
    slots = Slots(1)
    await slots.acquire("a")
    doomed, next_one = await take(slots, "b"), await take(slots, "c")
    slots.release("a")
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    await asyncio.wait_for(next_one, 60)
    slots.release("c")
    assert slots.free == 1


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "release", "cancel"]), st.integers(0, 3), st.integers(0, 50)),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 25), ACTIONS)
def test_whatever_happens_the_counts_are_right(total: int, actions: list[tuple[str, int, int]]) -> None:
    asyncio.run(_history(total, actions))


async def _history(total: int, actions: list[tuple[str, int, int]]) -> None:
    slots = Slots(total)
    reserve = max(1, total // 10) if total > 1 else 0
    waiting: list[tuple[str, asyncio.Task[None]]] = []
    holding: list[str] = []
    for action, function, pick in actions:
        name = f"f{function}"
        if action == "ask":
            waiting.append((name, await take(slots, name)))
        elif action == "release" and holding:
            slots.release(holding.pop(pick % len(holding)))
        elif action == "cancel" and waiting:
            waiting.pop(pick % len(waiting))[1].cancel()
        for _ in range(4):
            await asyncio.sleep(0)
        holding += [name for name, task in waiting if task.done()]
        waiting = [(name, task) for name, task in waiting if not task.done()]
        counts = Counter(holding)
        assert len(holding) <= total
        assert slots.free == total - len(holding)
        assert all(count <= total - reserve for count in counts.values())
        # Nobody waits for a slot that it could have: no slot is kept back from a function below its share.
        if slots.free:
            assert all(counts[name] >= total - reserve for name, _ in waiting)
    # Nobody starves: with every release one more comes to its turn, until all have had one.
    while waiting or holding:
        assert holding
        slots.release(holding.pop(0))
        for _ in range(4):
            await asyncio.sleep(0)
        holding += [name for name, task in waiting if task.done()]
        waiting = [(name, task) for name, task in waiting if not task.done()]
    assert slots.free == total


async def test_room_is_what_would_be_given_at_once() -> None:
    slots = Slots(10)
    assert (slots.room("f"), slots.room("g")) == (9, 9), "the last tenth is nobody's alone"
    for _ in range(8):
        await slots.acquire("f")
    assert (slots.room("f"), slots.room("g")) == (1, 2)
    await slots.acquire("f")
    assert (slots.room("f"), slots.room("g")) == (0, 1)
    waiting = await take(slots, "f")
    assert slots.room("g") == 0, "somebody asked before"
    waiting.cancel()
