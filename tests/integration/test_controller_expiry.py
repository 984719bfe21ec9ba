"""The retention's end: runs that waited or ran for too long are answered, and what is over is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.result import State
from tests.conftest import eventually
from tests.controllers import View, problem_of, running_controller
from tests.custody.workload import NOTE, function, read_notes, write_catalog
from trigger.app import Running

pytestmark = pytest.mark.integration

RETENTION = 12.0


@pytest.fixture
async def running(server: NatsServer, tmp_path: Path) -> AsyncIterator[Running]:
    catalog = write_catalog(
        tmp_path / "catalog",
        function("paused", "paused", "true", onFailure={"publish": "failed"}),
        function("endless", "endless", f"{NOTE}\nnote start; sleep 600", notes=tmp_path / "notes"),
        function("failed", "failed", "true"),
    )
    async with running_controller(
        server.url, catalog, tmp_path / "state", retention_seconds=RETENTION, audit_seconds=0.2
    ) as controller:
        yield controller


async def test_a_run_that_waits_for_too_long_is_answered_without_having_started(view: View) -> None:
    await view.control("pause", function="paused")
    await view.publish("paused", request_id="r")
    record = await eventually(lambda: view.results.record("r"), what="the record")
    reply = (await view.reply("r"))[0]
    assert (reply.headers[wire.H_STATE], reply.headers[wire.H_REASON]) == ("failed", "expired-in-queue")
    assert problem_of(reply)["status"] == 504
    result = await view.results.result("r", "paused")
    assert result is not None
    assert (result.state, result.attempts) == (State.FAILED, ())
    waited = (result.finished_at - record.accepted_at) / timedelta(seconds=RETENTION)
    assert 0.9 <= waited < 1.0, "while record and result can still be read"
    # With its failure the chain goes on.
    chained = wire.chained_id(wire.run_id_of("r", "paused"), "onFailure")
    assert (await view.result(chained, "failed")).succeeded
    await view.quiet()


async def test_a_run_that_runs_for_too_long_is_stopped(view: View, tmp_path: Path) -> None:
    await view.publish("endless", request_id="r")
    reply = (await view.reply("r"))[0]
    assert (reply.headers[wire.H_STATE], reply.headers[wire.H_REASON]) == ("timed-out", "timeout")
    await view.quiet()
    assert [note.what for note in read_notes(tmp_path / "notes")] == ["start"]


async def test_after_the_retention_nothing_is_left(view: View) -> None:
    await view.publish("failed", request_id="r")
    await view.result("r", "failed")

    async def forgotten() -> bool:
        answers = await view.results.answers("r")
        return answers.record is None and not answers.results

    await eventually(forgotten, what="the end of the retention")
