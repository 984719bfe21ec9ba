"""Two controllers as processes, and what becomes of the work of one that ends, well or badly."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.assembly import assembled
from tests.custody.processes import ControllerProcess
from tests.custody.workload import NOTE, Workload, function, kill_catalog, read_notes, write_catalog
from trigger.local_engine.engine import LocalEngine

pytestmark = pytest.mark.integration

SHARED = {"sole_controller": False, "ack_wait_seconds": 2, "heartbeat_seconds": 0.5}


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_one_of_two_ends_under_load(end: str, server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    workload = await Workload(client, tmp_path / "notes").listen()
    catalog = kill_catalog(tmp_path / "catalog", workload.notes)
    one = await ControllerProcess(tmp_path / "one", server.url, catalog, SHARED).start()
    two = await ControllerProcess(tmp_path / "two", server.url, catalog, SHARED).start()
    publishing = asyncio.create_task(workload.publish_all("e", 15, pause=0.02))

    async def some_done() -> bool:
        return len(read_notes(workload.notes)) > 20

    await eventually(some_done, what="some work by both")
    getattr(one, end)()
    assert await one.ended() == (-signal.SIGKILL if end == "kill" else 0)
    await publishing
    await workload.finished()
    await workload.prove()
    two.terminate()
    assert await two.ended() == 0
    assert not one.tracebacks() + two.tracebacks()


async def test_a_long_run_stays_with_its_controller(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """Heartbeats: without them the run would be handed to the other one after each ack wait."""
    view, notes = await View(client).listen(), tmp_path / "notes"
    script = f"{NOTE}\nnote start; sleep 18; note end"
    catalog = write_catalog(tmp_path / "catalog", function("long", "long", script, notes=notes))
    # Both live in the test's own loop: one that stands still for the ack wait loses its runs, and rightly.
    settings = {"sole_controller": False, "ack_wait_seconds": 8, "heartbeat_seconds": 0.5}
    async with (
        running_controller(server.url, catalog, tmp_path / "one", **settings),
        running_controller(server.url, catalog, tmp_path / "two", **settings),
    ):
        for number in range(4):
            await view.publish("long", request_id=f"r{number}")
        await view.quiet()
    notes_by_run = Counter(note.run_id for note in read_notes(notes) if note.what == "start")
    assert notes_by_run == {wire.run_id_of(f"r{number}", "long"): 1 for number in range(4)}


async def test_who_goes_on_with_a_run_knows_when_it_was_given_to_the_engine(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """As on a cluster, where Jobs outlive the controller that made them."""
    view, notes, gate = await View(client).listen(), tmp_path / "notes", tmp_path / "gate"
    script = f"{NOTE}\nnote start\nuntil [ -e {gate} ]; do sleep 0.02; done"
    catalog = write_catalog(tmp_path / "catalog", function("slow", "slow", script, notes=notes))
    async with LocalEngine(tmp_path / "engine") as engine:
        async with assembled(server.url, catalog, tmp_path / "first", engine=engine) as first:
            await _one_running(view, notes)
            await first.vanish()
        between = datetime.now(UTC)
        async with assembled(server.url, catalog, tmp_path / "second", engine=engine):
            gate.touch()
            result = await view.result("r", "slow")
            await view.quiet()
    assert len(read_notes(notes)) == 1
    assert result.dispatched_at
    assert result.queued_at
    assert result.queued_at <= result.dispatched_at < between


async def _one_running(view: View, notes: Path) -> None:
    await view.publish("slow", request_id="r")

    async def begun() -> bool:
        return bool(read_notes(notes))

    await eventually(begun, what="a start")


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A function that takes its time in its first run only."""
    # Before the note, which is what the test waits for: the run may be killed right after it.
    script = f"{NOTE}\nmkdir {tmp_path}/first 2>/dev/null && pause=600\nnote start\nsleep ${{pause:-0}}"
    return write_catalog(tmp_path / "catalog", function("slow", "slow", script, notes=tmp_path / "notes"))


@pytest.mark.parametrize("heir_is_up", [True, False], ids=["another-is-up", "started-again"])
async def test_a_stopping_controller_gives_its_runs_back_at_once(
    heir_is_up: bool, server: NatsServer, client: NatsClient, slow: Path, tmp_path: Path
) -> None:
    """Without the hand-back this would take the ack wait of an hour."""
    view = await View(client).listen()
    settings = {"sole_controller": False, "ack_wait_seconds": 3600, "heartbeat_seconds": 5}
    stopping = await ControllerProcess(tmp_path / "stopping", server.url, slow, settings).start()
    await _one_running(view, tmp_path / "notes")
    if not heir_is_up:
        stopping.terminate()
        assert await stopping.ended() == 0
    async with running_controller(server.url, slow, tmp_path / "heir", **settings):
        if heir_is_up:
            stopping.terminate()
            assert await stopping.ended() == 0
        result = await view.result("r", "slow")
        assert result.succeeded
        assert len(result.attempts) == 1
        await view.quiet()
    assert [note.run_id for note in read_notes(tmp_path / "notes")] == [wire.run_id_of("r", "slow")] * 2


async def test_a_killed_controllers_runs_come_back_after_the_ack_wait(
    server: NatsServer, client: NatsClient, slow: Path, tmp_path: Path
) -> None:
    view = await View(client).listen()
    doomed = await ControllerProcess(tmp_path / "doomed", server.url, slow, SHARED).start()
    async with running_controller(server.url, slow, tmp_path / "heir", **SHARED):
        # The heir may be the one who gets it: then there is nothing to see, and the next one is waited for.
        await _one_running(view, tmp_path / "notes")
        doomed.kill()
        assert await doomed.ended() == -signal.SIGKILL
        await view.publish("slow", request_id="second")
        assert (await view.result("second", "slow")).succeeded
    async with running_controller(server.url, slow, tmp_path / "last", **SHARED):
        assert (await view.result("r", "slow")).succeeded
        await view.quiet()
