"""Lists of runs and of dead letters, in pages and filtered, and the news of runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from invoker import Client, wire
from invoker.errors import AmbiguousIdError, InputRefusedError, UnknownIdError
from invoker.request import RequestRecord
from invoker.result import Reason, RunStatusDocument, State
from tests.conftest import eventually
from tests.integration.stored_world import StoredWorld, put_letter, run_id

pytestmark = pytest.mark.integration


# runs


async def test_runs_are_listed_unfinished_first_and_newest_first(sdk: Client, world: StoredWorld) -> None:
    for number in range(4):
        await world.accept(f"r{number}", "f", "g")
    await world.finish("r1", "f")
    await world.finish("r0", "g", reason=Reason.ERROR)
    await world.running("r2", "g")
    rows = await sdk.runs()
    assert [(row.request_id, row.function, str(row.state)) for row in rows] == [
        ("r3", "g", "queued"), ("r3", "f", "queued"), ("r2", "g", "running"), ("r2", "f", "queued"),
        ("r1", "g", "queued"), ("r0", "f", "queued"), ("r0", "g", "failed"), ("r1", "f", "succeeded"),
    ]  # fmt: skip
    assert {row.topic for row in rows} == {"orders"}
    assert [row.reason for row in rows[-2:]] == [Reason.ERROR, Reason.COMPLETED]
    assert all(row.run_id == run_id(row.request_id, row.function) for row in rows)


async def test_a_run_whose_result_is_stored_is_listed_by_that_whatever_its_latest_news_are(
    sdk: Client, world: StoredWorld
) -> None:
    """Finishing it takes another moment: its message is there still, and nobody has told that it ended."""
    await world.accept("r1", "f", "g")
    await world.running("r1", "f")
    for function in ("f", "g"):
        await world.seal("r1", function)
    assert [(row.function, str(row.state)) for row in await sdk.runs()] == [("g", "succeeded"), ("f", "succeeded")]
    assert await sdk.runs(state="running") == await sdk.runs(state="queued") == []


async def test_few_unfinished_runs_among_many_places_are_found_without_looking_at_each(
    sdk: Client, world: StoredWorld
) -> None:
    left = ["r0", "r1", "r130", "r298", "r299"]
    for begin in range(0, 300, 50):
        await asyncio.gather(*(world.accept(f"r{n}", "f") for n in range(begin, begin + 50)))
    await asyncio.gather(*(world.finish(f"r{n}", "f") for n in range(300) if f"r{n}" not in left))
    await world.running("r1", "f")
    places = {row.request_id: int(row.cursor[1:]) for row in await sdk.runs(limit=5)}
    assert sorted(places, key=lambda one: -places[one]) == list(places), "newest first"
    assert set(places) == set(left)
    page = await sdk.runs(limit=2)
    rest = await sdk.runs(limit=3, before=page[-1].cursor)
    assert [row.request_id for row in [*page, *rest]] == list(places)
    oldest = await sdk.stored.first_unfinished("f", 3)
    assert [row.request_id for row in oldest] == sorted(places, key=lambda one: places[one])[:3]
    assert {row.request_id for row in oldest if row.state is State.RUNNING} <= {"r1"}
    assert await sdk.stored.first_unfinished("g", 3) == []


async def test_pages_are_the_list_cut_into_pieces(sdk: Client, world: StoredWorld) -> None:
    for number in range(7):
        await world.accept(f"r{number}", "f", "g")
    for number in range(5):
        await world.finish(f"r{number}", "f")
    whole = await sdk.runs()
    pages, cursor = [], None
    while page := await sdk.runs(limit=3, before=cursor):
        pages += page
        cursor = page[-1].cursor
    assert [row.run_id for row in pages] == [row.run_id for row in whole]
    assert len(whole) == 14
    assert await sdk.runs(limit=0) == []


async def test_a_run_that_finishes_between_two_pages_is_not_left_out(sdk: Client, world: StoredWorld) -> None:
    for number in range(6):
        await world.accept(f"r{number}", "f")
    first = await sdk.runs(limit=2)
    await world.finish("r0", "f")
    rest = await sdk.runs(before=first[-1].cursor)
    assert {row.request_id for row in [*first, *rest]} == {f"r{number}" for number in range(6)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"function": "g"}, {"r1/g", "r2/g"}),
        ({"state": "failed"}, {"r1/f"}),
        ({"state": State.QUEUED}, {"r2/g"}),
        ({"state": "running"}, {"r2/f"}),
        ({"reason": "error"}, {"r1/f"}),
        ({"request": "r1"}, {"r1/f", "r1/g"}),
        ({"since": timedelta(hours=1)}, {"r1/f", "r1/g", "r2/f", "r2/g"}),
        ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, set()),
        ({"until": timedelta(hours=1)}, set()),
        ({"until": datetime(2100, 1, 1, tzinfo=UTC)}, {"r1/f", "r1/g", "r2/f", "r2/g"}),
        ({"topic": "orders"}, {"r1/f", "r1/g", "r2/f", "r2/g"}),
        ({"topic": "orders.>"}, set()),
        ({"topic": "*", "function": "g"}, {"r1/g", "r2/g"}),
        ({"text": "r2"}, {"r2/f", "r2/g"}),
        ({"text": wire.run_id_of("r1", "g")[3:]}, {"r1/g"}),
        ({"function": "g", "state": "succeeded"}, {"r1/g"}),
    ],
)
async def test_lists_are_filtered(sdk: Client, world: StoredWorld, given: dict[str, Any], expected: set[str]) -> None:
    await world.accept("r1", "f", "g")
    await world.accept("r2", "f", "g")
    await world.finish("r1", "f", reason=Reason.ERROR)
    await world.finish("r1", "g")
    await world.running("r2", "f")
    assert {f"{row.request_id}/{row.function}" for row in await sdk.runs(**given)} == expected


async def test_rare_runs_are_found_far_back(sdk: Client, world: StoredWorld) -> None:
    await world.seal("rare", "needle")
    for start in range(0, 3000, 100):
        await asyncio.gather(*(world.seal(f"r{number}", "hay") for number in range(start, start + 100)))
    assert [row.request_id for row in await sdk.runs(function="needle")] == ["rare"]
    assert (await sdk.runs(limit=1))[0].request_id.startswith("r29")
    assert (await sdk.result(run_id("rare", "needle"))).request_id == "rare"


@pytest.mark.parametrize(
    "given",
    [{"before": "x"}, {"before": "f-1"}, {"before": ""}, {"state": "asleep"}, {"reason": "?"}, {"topic": "a.>.b"}],
)
async def test_unusable_questions_are_refused_in_words(sdk: Client, given: dict[str, Any]) -> None:
    with pytest.raises(InputRefusedError):
        await sdk.runs(**given)


async def test_an_empty_instance_has_no_runs(sdk: Client) -> None:
    assert await sdk.runs() == []
    with pytest.raises(UnknownIdError, match="no request has been accepted yet"):
        await sdk.result("@latest")


# dead letters


async def test_dead_letters_are_listed_and_found(sdk: Client, world: StoredWorld) -> None:
    for number in range(5):
        await put_letter(
            world, {"id": f"letter{number}x", "reason": "invalid-topic", "dead_at": "2026-01-01T00:00:00Z"}
        )
    assert [letter.id for letter in await sdk.dead(limit=2)] == ["letter4x", "letter3x"]
    assert len(await sdk.dead()) == 5
    assert (await sdk.dead_letter("letter1x")).reason == "invalid-topic"
    assert (await sdk.dead_letter("ter1x")).id == "letter1x"
    with pytest.raises(AmbiguousIdError):
        await sdk.dead_letter("letter")
    for unknown in ("absent", "*", "a.b", ""):
        with pytest.raises(UnknownIdError):
            await sdk.dead_letter(unknown)


# news


async def test_news_of_runs_and_of_events_that_nothing_matched(sdk: Client, world: StoredWorld) -> None:
    news: list[RunStatusDocument | RequestRecord] = []

    async def listen() -> None:
        async for item in sdk.watch_runs():
            news.append(item)

    listening = asyncio.create_task(listen())

    async def heard() -> bool:
        await world.running("r0", "f")
        return bool(news)

    await eventually(heard, what="the first status")
    await world.accept("r1", "f")
    await world.accept("r2")
    await world.running("r1", "f")

    async def all_heard() -> bool:
        return isinstance(news[-1], RunStatusDocument) and news[-1].request_id == "r1"

    await eventually(all_heard, what="the last status")
    listening.cancel()
    assert [item.request_id for item in news if isinstance(item, RequestRecord)] == ["r2"]
