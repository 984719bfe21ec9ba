"""Sealing a run: one result, and no bytes stored beside it that nothing points at."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.claimcheck import CHUNK_BYTES
from invoker.errors import BackPressureError
from invoker.nats_server import NatsServer
from invoker.request import RunTicket
from invoker.result import Reason, State
from invoker.results.nats import ResultStream
from invoker.streams import StreamLimits, ensure_streams
from tests.controllers import View, running_controller
from tests.custody.workload import function, write_catalog
from tests.integration.stored_world import StoredWorld
from trigger.engine import Phase, RunEnd, RunStatus
from trigger.moments import Moments
from trigger.seal import Sealer
from trigger.verdict import Verdict

pytestmark = pytest.mark.integration

NAMES = wire.Names()
COMPLETED = Verdict(Reason.COMPLETED)
LARGE = bytes(range(256)) * 1024
"""Two chunks of the object store, and a message that tells of them."""
PER_OBJECT = len(LARGE) // CHUNK_BYTES + 1


async def objects(client: NatsClient) -> tuple[int, int]:
    """Messages in the object store, and messages that ever were."""
    state = (await client.jetstream().stream_info(f"OBJ_{NAMES.payloads_bucket}")).state
    return state.messages, state.last_seq


def ended(log_tail: bytes = b"") -> RunStatus:
    return RunStatus("run", Phase.ENDED, end=RunEnd(State.SUCCEEDED, Reason.COMPLETED, log_tail=log_tail))


@pytest.fixture
async def world(client: NatsClient) -> StoredWorld:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
    return StoredWorld.of(client, NAMES)


async def test_who_seals_second_leaves_nothing_behind(world: StoredWorld, client: NatsClient) -> None:
    """Two controllers saw the same end: each stored output and log before it asked for the result."""
    record = await world.accept("r", "f")
    ticket = RunTicket(run_id=record.run_ids()["f"], request_id="r", function="f")
    sealers = [Sealer(ResultStream(client, client.jetstream(), NAMES), world.claims, Moments()) for _ in range(2)]
    both = await asyncio.gather(
        *(sealer.seal(ticket, record, COMPLETED, status=ended(LARGE), output=LARGE) for sealer in sealers)
    )
    assert both[0] == both[1]
    assert both[0].output.claim is not None
    assert both[0].log_claim is not None
    assert await world.claims.read(both[0].output.claim) == LARGE
    assert await world.claims.read(both[0].log_claim) == LARGE
    assert await objects(client) == (2 * PER_OBJECT, 4 * PER_OBJECT)


async def test_what_finds_no_room_for_its_result_leaves_nothing_behind(world: StoredWorld, client: NatsClient) -> None:
    """It is asked for again every half second, until somebody makes room."""
    record = await world.accept("r", "f")
    ticket = RunTicket(run_id=record.run_ids()["f"], request_id="r", function="f")
    sealer = Sealer(ResultStream(client, client.jetstream(), NAMES), world.claims, Moments())
    config = (await client.jetstream().stream_info(NAMES.results_stream)).config
    await client.jetstream().update_stream(replace(config, max_bytes=1))
    with pytest.raises(BackPressureError):
        await sealer.seal(ticket, record, COMPLETED, status=ended(LARGE), output=LARGE)
    assert await objects(client) == (0, 2 * PER_OBJECT)
    await client.jetstream().update_stream(config)
    result = await sealer.seal(ticket, record, COMPLETED, status=ended(LARGE), output=LARGE)
    assert result.output.claim is not None
    assert await world.claims.read(result.output.claim) == LARGE


async def test_an_end_that_is_told_and_looked_up_at_once_is_settled_once(
    client: NatsClient, server: NatsServer, tmp_path: Path
) -> None:
    """The engine tells of an end while look-ups of every held run come as fast as they can."""
    runs = 20
    large = function("large", "large", f"head -c {len(LARGE)} /dev/zero", output={"from": "stdout"})
    catalog = write_catalog(tmp_path / "catalog", large)
    async with running_controller(server.url, catalog, tmp_path / "state", audit_seconds=0.002):
        view = await View(client).listen()
        for number in range(runs):
            await view.publish("large", request_id=f"r{number}")
        for number in range(runs):
            result = await view.result(f"r{number}", "large")
            assert result.output.size_bytes == len(LARGE)
        await view.quiet()
    assert await objects(client) == (runs * PER_OBJECT, runs * PER_OBJECT)
