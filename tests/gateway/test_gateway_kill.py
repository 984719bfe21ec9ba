"""The gateway killed by SIGKILL at any moment: what it answered for is there once, the rest can be sent again."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.result import State
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import function, write_catalog
from tests.gateway.gateway_process import GatewayProcess, gateway_process
from tests.gateway.stack import FILE, INPUT, RUN_TOKEN_KEY, session

EVENTS, PUBLISHERS, DEATHS = 120, 8, 4
LARGE = 700_000
"""Above the claim check's threshold: bytes are stored before the event that names them."""


@pytest.mark.timeout(300)
async def test_every_event_becomes_one_request_however_often_the_gateway_dies(server: Any, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    note = f'printf "%s\\n" "$INVOKER_REQUEST_ID" >> "$NOTES"; {INPUT}'
    catalog = write_catalog(tmp_path / "catalog", function("work", "work.*", note, notes=notes, **FILE))
    async with (
        running_controller(server.url, catalog, tmp_path / "state", run_token_key=RUN_TOKEN_KEY),
        gateway_process(server.url, tmp_path) as gateway,
        session(gateway.url, timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        keys = [f"key-{number}" for number in range(EVENTS)]
        published, left = set[str](), iter(keys)
        killer = asyncio.create_task(_kill_again_and_again(gateway, published))
        await asyncio.gather(*(_publish_all(http, left, published) for _ in range(PUBLISHERS)))
        await killer
        async with Client.connect(ConnectionOptions(url=server.url)) as client:
            for key in keys:
                view = await client.result(key, wait=60)
                assert [run.state for run in view.runs] == [State.SUCCEEDED], key
                assert await client.output(view.results[0]) == _body(key), key
            assert len(await client.runs(limit=EVENTS * 2)) == EVENTS, "no request besides those of the keys"
    assert sorted(notes.read_text().split()) == sorted(keys), "each was executed once: no controller died"
    assert "Traceback" not in gateway.log_file.read_text()


async def _publish_all(http: aiohttp.ClientSession, left: Any, published: set[str]) -> None:
    """Publish as a careful caller does: the same key until there is an answer, and believe the answer."""
    for key in left:
        while key not in published:
            headers = {"Idempotency-Key": key, "Content-Type": "application/octet-stream"}
            try:
                async with http.post("/v1/topics/work.it", data=_body(key), headers=headers) as answer:
                    if answer.status == 202:
                        assert (await answer.json())["request_id"] == key
                        published.add(key)
                    else:
                        assert answer.status == 503, await answer.text()
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                await asyncio.sleep(0.01)


async def _kill_again_and_again(gateway: GatewayProcess, published: set[str]) -> None:
    chance = random.Random(7)
    for death in range(1, DEATHS + 1):
        enough = death * EVENTS // (DEATHS + 2)

        async def reached(enough: int = enough) -> bool:
            return len(published) >= enough

        await eventually(reached, within=90, what=f"{enough} events before death {death}")
        await asyncio.sleep(chance.random() * 0.05)  # any moment of a publish, not only the one after an answer
        await gateway.kill()
        await gateway.start()


def _body(key: str) -> bytes:
    number = int(key.rpartition("-")[2])
    return key.encode() * (LARGE // len(key)) if number % 20 == 0 else key.encode()


async def test_it_stops_in_an_orderly_way_and_says_so(server: Any, tmp_path: Path) -> None:
    """SIGTERM: who waits is told that the event is stored, its run goes on, nothing is left, exit code 0."""
    gate = tmp_path / "gate"
    script = f'while [ ! -e "$GATE" ]; do sleep 0.02; done; {INPUT}'
    slow = function("slow", "slow", script, env=[{"name": "GATE", "value": str(gate)}], **FILE)
    catalog = write_catalog(tmp_path / "catalog", slow)
    async with (
        running_controller(server.url, catalog, tmp_path / "state", run_token_key=RUN_TOKEN_KEY),
        gateway_process(server.url, tmp_path) as gateway,
        session(gateway.url) as http,
    ):
        waiting = asyncio.create_task(_body_of(http.post("/v1/topics/slow?wait=60", data=b"here")))
        async with Client.connect(ConnectionOptions(url=server.url)) as client:

            async def taken() -> bool:
                return bool(await client.runs())

            await eventually(taken, what="the run of the waiting call")
            assert await gateway.stop() == 0
            status, body = await waiting
            assert status == 202, body
            gate.touch()
            (result,) = (await client.result(json.loads(body)["request_id"], wait=60)).results
            assert await client.output(result) == b"here"


async def _body_of(call: Any) -> tuple[int, bytes]:
    async with call as answer:
        return answer.status, await answer.read()
