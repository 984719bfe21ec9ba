"""Three controllers under load while one of them is killed every five seconds, and what comes of every event.

Eight kills; `make soak` makes two minutes of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker.nats_server import NatsServer
from tests.cluster.controllers import Desk, controller_process, desk
from tests.cluster.facts import Cluster
from tests.cluster.pod_workload import PodWorkload, pod_catalog
from tests.custody.processes import ControllerProcess
from tests.soak import soaking

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CONTROLLERS = 3
KILLS = 24 if soaking() else 8
EVERY_SECONDS = 5.0
EVENT_EVERY_SECONDS = 4.0
"""An event is six pods, and one node starts two or three in a second."""
MANY = {"sole_controller": False}


@pytest.fixture
async def here(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(cluster, namespace, tmp_path) as found:
        yield found


async def test_one_of_three_is_killed_again_and_again(
    server: NatsServer, client: NatsClient, here: Desk, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # shown when the test fails
    workload = await PodWorkload(client, here.notes, here.names).listen()
    catalog = pod_catalog(tmp_path / "catalog", here)
    async with AsyncExitStack() as stack:

        async def another(number: int) -> ControllerProcess:
            made = controller_process(here, tmp_path / f"controller-{number}", server.url, catalog, settings=MANY)
            return await stack.enter_async_context(made)

        alive = list(await asyncio.gather(*(another(number) for number in range(CONTROLLERS))))
        publishing = asyncio.create_task(_publish(workload, KILLS * EVERY_SECONDS))
        cut_short = await _kill_often(here, alive, another, workload, random.Random(seed))
        await publishing
        await workload.finished(300)
        await workload.prove()
        await workload.prove_jobs(here)
        assert [one.folder.name for one in alive if one.tracebacks()] == []
    assert cut_short, "not one kill came before everything was done"
    record_property("histories", KILLS)
    print(f"{len(workload.acknowledged)} events, {len(workload.runs())} runs, {cut_short} of {KILLS} kills cut short")


async def _publish(workload: PodWorkload, seconds: float) -> None:
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        await workload.publish(f"load-{number}")
        number += 1
        await asyncio.sleep(EVENT_EVERY_SECONDS)  # the load of this test


async def _kill_often(
    here: Desk,
    alive: list[ControllerProcess],
    another: Callable[[int], Awaitable[ControllerProcess]],
    workload: PodWorkload,
    chance: random.Random,
) -> int:
    """Kills one of `alive` at every fifth second, with another in its place; says how many left work behind."""
    cut_short = 0
    begun = time.monotonic()
    for kill in range(1, KILLS + 1):
        await asyncio.sleep(max(0.0, begun + kill * EVERY_SECONDS - time.monotonic()))
        doomed = alive.pop(chance.randrange(len(alive)))
        doomed.kill()
        here.service.remove(doomed.http_url)
        await doomed.ended()
        cut_short += bool(await workload.unfinished())
        alive.append(await another(CONTROLLERS + kill))
    return cut_short
