"""The feed of a process in which many wait: news of runs for whoever comes while the last reader goes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from invoker import Client, wire
from invoker.ending import cancelled
from invoker.feed import Feed, Watch
from invoker.news import RunNews
from invoker.result import RunStatusDocument, State
from tests.conftest import eventually
from tests.integration.client.conftest import NAMES
from tests.integration.stored_world import StoredWorld

pytestmark = pytest.mark.integration


async def test_who_comes_while_the_last_reader_goes_hears_of_runs_at_once(sdk: Client, world: StoredWorld) -> None:
    # Who has to wait for a retry here waits longer than the test may take.
    feed = Feed(sdk.custody.reader, NAMES, RunNews(sdk._client, NAMES), retry_seconds=3_600)
    following = asyncio.create_task(feed.run())
    await feed.live()
    for number in range(5):
        assert await _heard_by_who_comes(feed, sdk, world, f"r{number}")
    assert not following.done(), "one task follows through all of it"
    await cancelled(following)


async def _heard_by_who_comes(feed: Feed, sdk: Client, world: StoredWorld, request_id: str) -> bool:
    """Whether the one who comes while the last reader goes hears the news of that request."""
    async with feed.watch(statuses=True) as watch:
        await eventually(lambda: _heard(world, watch, f"{request_id}-before"), what="news for the last reader")
    await _listening_ends(sdk, world)
    async with feed.watch(statuses=True) as other:
        return await eventually(lambda: _heard(world, other, request_id), within=30, what="news for who came meanwhile")


async def _listening_ends(sdk: Client, world: StoredWorld) -> None:
    """Returns in the middle of that: news that nobody wants have come, and the first subscription is gone."""
    subscriptions = len(sdk._client._subs)
    await _tell(world, "nobody-wants-it")
    async with asyncio.timeout(60):
        while len(sdk._client._subs) == subscriptions:
            await asyncio.sleep(0)


async def _heard(world: StoredWorld, watch: Watch, request_id: str) -> bool:
    """Tell the news, and whether they, or those of an earlier try, have come."""
    await _tell(world, request_id)
    heard = [await watch.next_of_all() for _ in range(watch.waiting)]
    return any(isinstance(one, RunStatusDocument) and one.request_id == request_id for one in heard)


async def _tell(world: StoredWorld, request_id: str) -> None:
    now, run_id = datetime.now(UTC), wire.run_id_of(request_id, "f")
    await world.results.put_status(
        RunStatusDocument(
            run_id=run_id, request_id=request_id, function="f", topic="orders", state=State.RUNNING, at=now
        )
    )
