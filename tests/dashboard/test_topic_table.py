"""The table of topics: rebuilt from the stream, fed by the feed, and bounded whatever is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.client import Client
from invoker.ending import cancelled
from invoker.gateway.run_table import RunTable
from invoker.gateway.topic_table import TopicTable
from tests.conftest import eventually
from tests.dashboard.still_world import heard, still_world


@asynccontextmanager
async def filled(client: Client, **limits: Any) -> AsyncIterator[TopicTable]:
    """A table that has read the past, and hears."""
    table = TopicTable(client.feed, wire.Names(), **limits)
    following = asyncio.create_task(client.feed.run())
    try:
        await asyncio.wait_for(table.run(), 60)
        yield table
    finally:
        await cancelled(following)


def counts(table: TopicTable) -> list[tuple[str, int, int, str]]:
    return [(one.topic, one.seen, one.unmatched, one.newest.request_id) for one in table.topics()]


async def test_the_past_and_the_present_are_counted_alike(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        for number in range(3):
            await world.accept(f"a{number}", "f", "g", topic="orders.created")
        await world.accept("lost", topic="orders.craeted")
        await world.finish("a1", "f")
        await world.accept("call", "f", topic=wire.Names().direct_topic("f"))
        async with filled(client) as table:
            assert counts(table) == [("orders.craeted", 1, 1, "lost"), ("orders.created", 3, 0, "a2")]
            oldest = table.counted_from
            await world.accept("a3", "f", topic="orders.created")
            await world.accept("lost-2", topic="orders.gone")
            await world.finish("a3", "f")
            await heard(client)
            assert counts(table) == [
                ("orders.gone", 1, 1, "lost-2"), ("orders.created", 4, 0, "a3"), ("orders.craeted", 1, 1, "lost"),
            ]  # fmt: skip
            assert [one.request_id for one in table.unmatched()] == ["lost-2", "lost"]
            assert [one.request_id for one in table.requests()] == ["lost-2", "a3", "lost", "a2", "a1", "a0"]
            assert [one.request_id for one in table.requests_of("orders.created", 2)] == ["a3", "a2"]
            assert table.requests_of("orders.created", 2)[1].functions == ("f", "g")
            assert table.requests_of("never", 2) == []
            assert table.counted_from == oldest
            first = table.requests()[-1].at
            assert oldest is not None
            assert oldest == first


async def test_topics_without_end_keep_no_more_than_is_kept(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        for number in range(30):
            await world.accept(f"old{number}", *(["f"] if number % 2 else []), topic=f"old.{number}")
        async with filled(client, kept_topics=10, kept_requests=8, looked_back=20) as table:
            assert [one.topic for one in table.topics()] == [f"old.{n}" for n in range(29, 19, -1)]
            assert [one.request_id for one in table.requests()] == [f"old{n}" for n in range(29, 13, -1)]
            for number in range(15):
                await world.accept(f"new{number}", topic=f"new.{number}")
            await heard(client)
            assert [one.topic for one in table.topics()] == [f"new.{n}" for n in range(14, 4, -1)]
            assert [one.request_id for one in table.unmatched()] == [f"new{n}" for n in range(14, 6, -1)]
            assert len(table.requests()) == 16


async def test_what_runs_took_is_told_of_one_function_and_of_seen_topics(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        table = RunTable(client.feed)
        following = asyncio.create_task(client.feed.run())
        filling = asyncio.create_task(table.run())
        for number in range(6):
            await world.accept(f"r{number}", "f", topic=f"t.{number % 2}")
            started = datetime.now(UTC) - timedelta(seconds=2)
            await world.finish(f"r{number}", "f", topic=f"t.{number % 2}", started_at=started)
        await heard(client)

        async def read() -> bool:
            return table.loaded

        await eventually(read, what="the table of recent runs")
        try:
            found = table.durations("f")
            assert found.count == 6
            assert found.p50_seconds is not None
            assert 2 <= found.p50_seconds < 60
            assert table.durations("f", last=4).count == 4
            assert table.durations("f", sees=lambda topic: topic == "t.1").count == 3
            assert table.durations("f", last=2, sees=lambda topic: topic == "t.1").count == 2
            assert table.durations("g").count == 0
            assert table.figures.whole().finished == 6
        finally:
            await cancelled(following, filling)
