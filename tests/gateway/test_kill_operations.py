"""The gateway killed by SIGKILL while callers cancel, replay, redrive and functions publish: nothing lost or doubled.

Each caller does what a careful one does: the same call again until there is an answer, and then believes it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.result import State
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import function, write_catalog
from tests.gateway.access_world import bearer
from tests.gateway.gateway_process import GatewayProcess, gateway_process
from tests.gateway.reading import world_of
from tests.gateway.stack import FILE, INPUT, RUN_TOKEN_KEY, session

EACH, DEATHS = 25, 3


@dataclass
class World:
    """What is worked on, and how many calls have been answered so far."""

    client: Client
    http: aiohttp.ClientSession
    gateway: GatewayProcess
    answers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def insist(self, what: str, path: str, **options: Any) -> None:
        """The call, until it is answered with success; other answers than `come again` are none that may be given."""
        while True:
            try:
                async with self.http.post(path, **options) as answer:
                    document = await answer.json()
                    if answer.status < 300:
                        self.answers.append((what, document))
                        return
                    assert answer.status == 503, (what, answer.status, document)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                pass
            await asyncio.sleep(0.01)


@pytest.mark.timeout(300)
async def test_what_callers_and_functions_ask_is_done_once_however_often_the_gateway_dies(
    server: Any, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    note = f'printf "%s\\n" "$INVOKER_REQUEST_ID" >> "$NOTES"; {INPUT}'
    catalog = write_catalog(
        tmp_path / "catalog",
        function("work", "work.*", note, notes=notes, **FILE),
        function("parked", "parked", "true"),
        function("held", "held", "sleep 1000"),
    )
    async with _world(server.url, catalog, tmp_path) as world:
        client = world.client
        await client.pause("parked")
        parked = [(await client.publish("parked", b"x")).request_id for _ in range(EACH)]
        original = (await client.publish("work.first", b"again")).request_id
        letters = await _dead_letters(client)
        held = await _started(client, "held")
        assert (await client.result(original, wait=60)).complete
        killer = asyncio.create_task(_kill_again_and_again(world))
        await asyncio.gather(
            _cancel_all(world, parked), _replay_all(world, original), _redrive_all(world, letters),
            _publish_all(world, held),
        )  # fmt: skip
        await killer
        await _check_cancelled(client, parked)
        replayed = {f"replay-{number}" for number in range(EACH)}
        redriven = {document["request_id"] for what, document in world.answers if what == "redrive"}
        published = {wire.chained_id(held.run_id, "published", number) for number in range(EACH)}
        assert len(redriven) == EACH
        assert {one["request_id"] for what, one in world.answers if what == "publish"} == published
        for request_id in replayed | redriven | published:
            assert (await client.result(request_id, wait=60)).results[0].succeeded, request_id
        done = {row.request_id for row in await client.runs(function="work", limit=500)}
        assert done == replayed | redriven | published | {original}, "no request besides those that were asked for"
        assert set(Counter(notes.read_text().split()).values()) == {1}, "each was executed once: no controller died"
        await client.cancel(held.request_id)
    assert "Traceback" not in world.gateway.log_file.read_text()


@asynccontextmanager
async def _world(url: str, catalog: Path, folder: Path) -> AsyncIterator[World]:
    """The installation, with the gateway as a process of its own."""
    async with (
        running_controller(url, catalog, folder / "state", run_token_key=RUN_TOKEN_KEY),
        gateway_process(url, folder) as gateway,
        session(gateway.url, timeout=aiohttp.ClientTimeout(total=20)) as http,
        Client.connect(ConnectionOptions(url=url)) as client,
    ):
        yield World(client, http, gateway)


async def _dead_letters(client: Client) -> list[str]:
    """The ids of events that have gone too far."""
    js = world_of(client).client.jetstream()
    for number in range(EACH):
        headers = {wire.H_MESSAGE_ID: f"far-{number}", wire.H_HOPS: "33", wire.H_ROOT_REQUEST_ID: "root"}
        await js.publish("events.work.dead", f"letter {number}".encode(), headers=headers)

    async def there() -> list[str] | None:
        found = [letter.id for letter in await client.dead(limit=EACH * 2)]
        return found if len(found) == EACH else None

    return await eventually(there, what="the dead letters")


async def _started(client: Client, name: str) -> RunAddress:
    receipt = await client.publish(name, b"x")

    async def running() -> bool:
        run = (await client.result(receipt.request_id)).run(name)
        return run is not None and run.state is State.RUNNING

    await eventually(running, what=f"a run of {name}")
    return RunAddress(receipt.request_id, name)


async def _cancel_all(world: World, request_ids: list[str]) -> None:
    for request_id in request_ids:
        await world.insist("cancel", f"/v1/requests/{request_id}/cancel", data=b"{}")


async def _replay_all(world: World, original: str) -> None:
    for number in range(EACH):
        headers = {"Idempotency-Key": f"replay-{number}"}
        await world.insist("replay", f"/v1/requests/{original}/replay", headers=headers)


async def _redrive_all(world: World, letters: list[str]) -> None:
    for letter in letters:
        await world.insist("redrive", f"/v1/dead-letters/{letter}/redrive")


async def _publish_all(world: World, held: RunAddress) -> None:
    """As the function itself would, with its token."""
    path, token = run_url("", held), run_token(RUN_TOKEN_KEY.encode(), held)
    for number in range(EACH):
        headers = bearer(token) | {wire.H_TOPIC: "work.published", wire.H_POSITION: str(number)}
        await world.insist("publish", f"{path}/events", data=f"event {number}".encode(), headers=headers)


async def _kill_again_and_again(world: World) -> None:
    chance = random.Random(11)
    for death in range(1, DEATHS + 1):
        enough = death * EACH * 4 // (DEATHS + 2)

        async def reached(enough: int = enough) -> bool:
            return len(world.answers) >= enough

        await eventually(reached, within=90, what=f"{enough} answers before death {death}")
        await asyncio.sleep(chance.random() * 0.02)  # any moment of a call, not only the one after an answer
        await world.gateway.kill()
        await world.gateway.start()


async def _check_cancelled(client: Client, request_ids: list[str]) -> None:
    for request_id in request_ids:
        (run,) = (await client.result(request_id, wait=60)).runs
        assert run.state is State.CANCELLED, request_id
    await client.resume("parked")
    last = await client.publish("parked", b"last")
    assert (await client.result(last.request_id, wait=60)).results[0].succeeded
    states = Counter(row.state for row in await client.runs(function="parked", limit=500))
    assert states == {State.CANCELLED: EACH, State.SUCCEEDED: 1}, (
        "what was cancelled stays it when its function goes on"
    )
