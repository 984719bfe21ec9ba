"""SIGKILL of the controller at each of the twelve named places, five times each, and what comes of every event."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker.nats_server import NatsServer
from tests.conftest import eventually
from tests.custody.processes import ControllerProcess, processes_with
from tests.custody.workload import Workload, kill_catalog
from trigger.moments import Moment

pytestmark = pytest.mark.integration

EVENTS = 4
NTHS = (1, 2, 4, 7, 11)
"""The how-manieth time a place is reached: from the first event's first step to the middle of the crowd."""


@pytest.fixture
async def workload(client: NatsClient, tmp_path: Path) -> Workload:
    return await Workload(client, tmp_path / "notes").listen()


@pytest.mark.parametrize("moment", list(Moment), ids=str)
async def test_kill_at(
    moment: Moment, server: NatsServer, workload: Workload, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    catalog = kill_catalog(tmp_path / "catalog", workload.notes)
    for number, nth in enumerate(NTHS):
        doomed = ControllerProcess(tmp_path / f"doomed-{number}", server.url, catalog, crash_at=moment, nth=nth)
        await _die(doomed, workload, number)
        assert doomed.proof.read_text() == f"{moment} {nth} {doomed.pid}\n"
        heir = await ControllerProcess(tmp_path / f"heir-{number}", server.url, catalog).start()
        await _none_survives(doomed)
        await workload.finished()
        heir.terminate()
        assert await heir.ended() == 0
        await workload.prove()
        assert not heir.tracebacks()
        record_property("histories", 1)


async def _die(doomed: ControllerProcess, workload: Workload, number: int) -> None:
    """Events before the controller is there, or while it is at work; in both cases it dies of them."""
    tag = f"h{number}"
    if number == 0:
        await doomed.start()
        await workload.publish_all(tag, EVENTS)
    else:
        await asyncio.gather(doomed.start(), workload.publish_all(tag, EVENTS, pause=0.25 * (number % 2)))
    assert await doomed.ended() == -signal.SIGKILL, "it should have died by its own hand"


async def _none_survives(doomed: ControllerProcess) -> None:
    async def gone() -> bool:
        return not processes_with(str(doomed.folder / "state"))

    await eventually(gone, within=60, what="the end of every process of the killed controller")
