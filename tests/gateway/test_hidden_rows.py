"""A caller who may see next to nothing among very much: his pages are short ones, not searches through everything."""

from __future__ import annotations

import asyncio
from pathlib import Path

from invoker.gateway.runs import MAX_HIDDEN
from tests.conftest import eventually
from tests.gateway.access_world import add_key, bearer
from tests.gateway.reading import get, world_of
from tests.gateway.stack import Stack, running_gateway, session

HIDDEN = MAX_HIDDEN + 100


async def test_a_page_ends_before_everything_was_looked_at(stack: Stack, tmp_path: Path) -> None:
    world = world_of(stack.client)
    key = add_key(tmp_path / "keys.json", "narrow", "read pair.* pair-a")
    await world.seal("first", "pair-a", topic="pair.first")
    for begin in range(0, HIDDEN, 100):
        await asyncio.gather(*(world.seal(f"h{begin + n}", "echo", topic="echo.h") for n in range(100)))
    async with (
        running_gateway(stack.server.url, gateway_keys=tmp_path / "keys.json", gateway_anonymous=()) as up,
        session(up.url, headers=bearer(key)) as http,
    ):
        await up.gateway.client.feed.live()

        async def read() -> bool:
            return await up.gateway.runs.known_from() is not None

        await eventually(read, what="the table of recent runs")
        page = await get(http, "/v1/runs?state=succeeded&limit=10")
        assert page["items"] == []
        assert page["next"] is not None
        following = await get(http, f"/v1/runs?state=succeeded&limit=10&cursor={page['next']}")
        assert [row["request_id"] for row in following["items"]] == ["first"]
        assert following["next"] is None
