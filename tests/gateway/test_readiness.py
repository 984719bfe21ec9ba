"""Whether a gateway is ready when there are no controllers: not before they were heard of, and later all the same."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from invoker.gateway.app import RunningGateway
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.gateway.stack import running_gateway


async def readiness(running: RunningGateway) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as http, http.get(f"{running.probe_url}/readyz") as answer:
        return answer.status, (await answer.json())["missing"]


async def test_controllers_that_go_away_close_no_door(nats_url: str, tmp_path: Path) -> None:
    catalog = tmp_path / "functions"
    catalog.mkdir()
    async with running_gateway(nats_url, gateway_anonymous=("publish",), gateway_accept_seconds=0) as running:
        status, missing = await readiness(running)
        assert (status, missing[0].partition(":")[0]) == (503, "controllers")
        async with running_controller(nats_url, catalog, tmp_path / "work"):

            async def is_ready() -> bool:
                return (await readiness(running))[0] == 200

            await eventually(is_ready, what="readiness")

        async def misses_them() -> bool:
            return running.gateway.catalog.problem is not None

        await eventually(misses_them, what="a question that no controller answers")
        assert await readiness(running) == (200, [])
        async with aiohttp.ClientSession(running.url) as http, http.post("/v1/topics/kept", data=b"x") as answer:
            assert answer.status == 202
