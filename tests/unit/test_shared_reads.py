"""Readings that many share: one for all that ask in time, never one that began before somebody asked."""

from __future__ import annotations

import asyncio

import pytest

from invoker.shared_reads import SharedReads


async def test_who_asks_while_one_is_under_way_gets_the_next_with_all_others() -> None:
    begun: list[asyncio.Future[int]] = []

    async def read(_: str) -> int:
        begun.append(asyncio.get_running_loop().create_future())
        return await begun[-1]

    reads = SharedReads(read)
    first = [asyncio.create_task(reads("a")) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(begun) == 1, "three asked before it began: one reading"
    later = [asyncio.create_task(reads("a")) for _ in range(3)]
    other = asyncio.create_task(reads("b"))
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(begun) == 2, "another key is read beside it; the same key waits for its turn"
    first[0].cancel()
    begun[0].set_result(1)
    assert await asyncio.gather(*first[1:]) == [1, 1], "one who goes takes nothing from the others"
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(begun) == 3
    begun[2].set_exception(ValueError("gone"))
    begun[1].set_result(2)
    assert await other == 2
    for one in later:
        with pytest.raises(ValueError, match="gone"):
            await one
    again = asyncio.create_task(reads("a"))
    for _ in range(4):
        await asyncio.sleep(0)
    begun[3].set_result(4)
    assert await again == 4, "an error is no reason not to read again"
    assert not reads._next
    assert not reads._running
