"""SIGKILL of a controller at each of the twelve named places while its runs are Jobs, and what comes of every event.

`make soak` does this for ten events in a row at every place (`INVOKER_SOAK`).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker.nats_server import NatsServer
from tests.cluster.controllers import Desk, controller_process, desk
from tests.cluster.facts import Cluster
from tests.cluster.pod_workload import PodWorkload, pod_catalog
from tests.soak import soaking
from trigger.moments import Moment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600 if not soaking() else 1200)]

NTHS = (1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3) if soaking() else (1,)
CHOSEN = ("answers", "prints")
PROMPT = {"ack_wait_seconds": 2, "heartbeat_seconds": 0.5}


@pytest.fixture
async def here(cluster: Cluster, module_namespace: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(cluster, module_namespace, tmp_path) as found:
        yield found


@pytest.mark.parametrize("moment", list(Moment), ids=str)
async def test_kill_at(
    moment: Moment, server: NatsServer, client: NatsClient, here: Desk, tmp_path: Path,
    record_property: Callable[..., None],
) -> None:  # fmt: skip
    workload = await PodWorkload(client, here.notes, here.names, chosen=CHOSEN).listen()
    catalog = pod_catalog(tmp_path / "catalog", here, CHOSEN)
    for number, nth in enumerate(NTHS):
        folder = tmp_path / f"{number}"
        how = {"settings": PROMPT, "crash_at": moment, "nth": nth}
        async with controller_process(here, folder / "doomed", server.url, catalog, **how) as doomed:
            await workload.publish_all(f"h{number}", nth)
            assert await doomed.ended(150) == -signal.SIGKILL, "it should have died by its own hand"
            assert doomed.proof.read_text() == f"{moment} {nth} {doomed.pid}\n"
        async with controller_process(here, folder / "heir", server.url, catalog, settings=PROMPT) as heir:
            await workload.finished(150)
            await here.nothing_left()
            heir.terminate()
            assert await heir.ended() == 0
            assert not heir.tracebacks()
        record_property("histories", 1)
    await workload.prove()
    await workload.prove_jobs(here)
