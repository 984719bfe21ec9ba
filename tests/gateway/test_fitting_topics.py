"""Topics that fit a pattern, among as many as there are runs: found once, some at a time, forgotten when many are."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from invoker import wire
from invoker.gateway.fitting_topics import FittingTopics
from invoker.gateway.run_table import SCHEMA

WORDS = ("orders.1.created", "orders.2.created", "orders.2.paid", "orders", "a-function", "mail.sent", "orders.x.y.z")


def database_of(*words: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(SCHEMA)
    add(database, *words)
    return database


def add(database: sqlite3.Connection, *words: str) -> None:
    database.executemany("INSERT INTO words (text) VALUES (?)", ((word,) for word in words))


async def fitting(database: sqlite3.Connection, topics: FittingTopics, pattern: str) -> set[str]:
    with topics.used(pattern) as one:
        condition = await one.condition()
        if condition is None:
            return set()
        return {
            text
            for (text,) in database.execute(f"SELECT text FROM (SELECT id AS topic, text FROM words) WHERE {condition}")
        }


@pytest.mark.parametrize("pattern", [">", "orders.*.created", "orders.>", "*.sent", "*.*.*.*.*", "*", "orders.*.paid"])
async def test_what_fits_is_what_fits_in_nats_also_of_topics_that_come_later(pattern: str) -> None:
    database = database_of(*WORDS)
    topics = FittingTopics(database)
    assert await fitting(database, topics, pattern) == {one for one in WORDS if wire.subject_matches(pattern, one)}
    later = ("orders.3.created", "news.sent", "b-function", "a.b.c.d.e")
    add(database, *later)
    everything = {one for one in (*WORDS, *later) if wire.subject_matches(pattern, one)}
    assert await fitting(database, topics, pattern) == everything
    assert len(topics) == 1


async def test_many_topics_keep_nobody_from_his_turn() -> None:
    database = database_of(*(f"orders.{number}.created" for number in range(20_000)))
    topics, turns = FittingTopics(database), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    found = await asyncio.gather(*(fitting(database, topics, "orders.*.created") for _ in range(2)))
    assert [len(one) for one in found] == [20_000, 20_000], "two at once find the same"
    assert 5 <= turns < 50
    turns = 0
    await fitting(database, topics, "orders.*.created")
    assert turns < 5, "matched once"
    other.cancel()


async def test_patterns_are_forgotten_save_for_one_that_is_used() -> None:
    database = database_of(*WORDS)
    topics = FittingTopics(database, kept=2)
    with topics.used("orders.*.created") as one:
        for pattern in ("*.sent", "orders.>", ">", "*.sent.*"):
            await fitting(database, topics, pattern)
        condition = await one.condition()
        assert condition is not None
        found = database.execute(f"SELECT count(*) FROM (SELECT id AS topic FROM words) WHERE {condition}").fetchone()
        assert found[0] == 2
        topics.forget()
        assert len(topics) == 1
    tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'fitting%'").fetchone()[0]
    assert tables == len(topics) == 1


async def test_dropped_topics_are_found_again_when_they_come_again() -> None:
    database = database_of(*WORDS)
    topics = FittingTopics(database)
    with topics.used("orders.>") as used:
        await used.condition()
        database.execute("DELETE FROM words WHERE text LIKE 'orders.%'")
        topics.forget()
        assert await fitting(database, topics, "orders.>") == set()
        add(database, "mail.again", "orders.new")
        assert await fitting(database, topics, "orders.>") == {"orders.new"}, "numbers do not come again"
    topics.forget()
    assert await fitting(database, topics, "orders.>") == {"orders.new"}
