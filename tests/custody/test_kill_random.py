"""SIGKILL of the controller at twenty random instants of its work, and what comes of every event."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker.nats_server import NatsServer
from tests.conftest import eventually
from tests.custody.processes import ControllerProcess, processes_with
from tests.custody.workload import Workload, function, kill_catalog, write_catalog

pytestmark = pytest.mark.integration

KILLS = 5
EVENTS = 10
SPREAD_SECONDS = 0.8
"""The kills fall between the first publish and about the time at which an idle machine has done all the work: events
are published for half a second of it."""


@pytest.mark.parametrize("series", range(4))
async def test_kill_at_random_instants(
    series: int, server: NatsServer, client: NatsClient, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    workload = await Workload(client, tmp_path / "notes").listen()
    catalog = kill_catalog(tmp_path / "catalog", workload.notes)
    controller = await ControllerProcess(tmp_path / "controller-0", server.url, catalog).start()
    cut_short = 0
    for number in range(1, KILLS + 1):
        publishing = asyncio.create_task(workload.publish_all(f"s{series}-{number}", EVENTS, pause=0.05))
        instant = chance.uniform(0.0, SPREAD_SECONDS)
        await asyncio.sleep(instant)  # the random instant is what this test is about
        controller.kill()
        assert await controller.ended() == -signal.SIGKILL, f"killed after {instant:.4f} s"
        cut_short += bool(await workload.unfinished())
        heir = await ControllerProcess(tmp_path / f"controller-{number}", server.url, catalog).start()
        await publishing
        await _none_survives(controller)
        await workload.finished()
        await workload.prove()
        record_property("histories", 1)
        controller = heir
    controller.terminate()
    assert await controller.ended() == 0
    assert cut_short, "not one kill came before everything was done"


async def test_functions_die_with_their_controller(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """What the kill tests look for is really seen: living functions are found, with all their descendants."""
    long = function("long", "long", "trap '' TERM HUP INT; sleep 600 & setsid sleep 600 & wait; wait")
    catalog = write_catalog(tmp_path / "catalog", long)
    controller = await ControllerProcess(tmp_path / "doomed", server.url, catalog).start()
    work = str(controller.folder / "state" / "engine" / "work")
    await client.jetstream().publish("events.long", b"")

    async def all_there() -> bool:
        return len(processes_with(work)) == 3

    await eventually(all_there, what="a shell and its two children")
    controller.kill()
    assert await controller.ended() == -signal.SIGKILL
    await _none_survives(controller)


async def _none_survives(doomed: ControllerProcess) -> None:
    async def gone() -> bool:
        return not processes_with(str(doomed.folder / "state"))

    await eventually(gone, within=60, what="the end of every process of the killed controller")
