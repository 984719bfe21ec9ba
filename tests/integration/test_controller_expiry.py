"""The retention's end: runs that waited or ran for too long are answered, and what is over is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.request import Content, Event, RunTicket
from invoker.result import State
from tests.conftest import eventually
from tests.controllers import View, problem_of, running_controller
from tests.custody.workload import NOTE, function, read_notes, write_catalog
from trigger.accept import record_of
from trigger.app import Running

pytestmark = pytest.mark.integration


@pytest.fixture
def retention() -> float:
    """Seconds. What a test waits for must come before the record and the result that it looks at have expired too."""
    return 12.0


@pytest.fixture
async def running(server: NatsServer, tmp_path: Path, retention: float) -> AsyncIterator[Running]:
    catalog = write_catalog(
        tmp_path / "catalog",
        function("paused", "paused", "true", onFailure={"publish": "failed"}),
        function("endless", "endless", f"{NOTE}\nnote start; sleep 600", notes=tmp_path / "notes"),
        function("failed", "failed", "true"),
    )
    async with running_controller(
        server.url, catalog, tmp_path / "state", retention_seconds=retention, audit_seconds=0.2
    ) as controller:
        yield controller


@pytest.mark.parametrize("retention", [40.0])
async def test_a_run_that_waits_for_too_long_is_answered_without_having_started(view: View, retention: float) -> None:
    await view.control("pause", function="paused")
    await view.publish("paused", request_id="r")
    record = await eventually(lambda: view.results.record("r"), what="the record")
    reply = (await view.reply("r"))[0]
    assert (reply.headers[wire.H_STATE], reply.headers[wire.H_REASON]) == ("failed", "expired-in-queue")
    assert problem_of(reply)["status"] == 504
    result = await view.results.result("r", "paused")
    assert result is not None
    assert (result.state, result.attempts) == (State.FAILED, ())
    waited = (result.finished_at - record.accepted_at) / timedelta(seconds=retention)
    assert 0.9 <= waited < 1.0, "while record and result can still be read"
    # With its failure the chain goes on.
    chained = wire.chained_id(wire.run_id_of("r", "paused"), "onFailure")
    assert (await view.result(chained, "failed")).succeeded
    await view.quiet()


@pytest.mark.parametrize("retention", [300.0])
async def test_a_run_that_runs_for_too_long_is_stopped(view: View, retention: float, tmp_path: Path) -> None:
    """One that was accepted so long ago that its time is over soon."""
    content, accepted_at = Content.inline(b""), datetime.now(UTC) - timedelta(seconds=0.9 * retention - 12)
    event = Event("endless", "r", content, wire.sha256_hex(b""), {}, accepted_at, reply_to="replies.r")
    assert await view.results.put_record(record_of(event, ("endless",), "catalog", content, accepted_at))
    run_id = wire.run_id_of("r", "endless")
    assert await view.results.put_ticket(RunTicket(run_id=run_id, request_id="r", function="endless"))
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
