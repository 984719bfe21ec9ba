"""A controller is killed in the middle of a run, and another goes on: the run is one span, its request too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import spans, wire
from tests.conftest import eventually
from tests.controllers import View
from tests.custody.processes import ControllerProcess
from tests.custody.workload import function, write_catalog
from tests.tracing.receiver import otlp_receiver
from trigger.moments import Moment

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

pytestmark = pytest.mark.integration


@dataclass
class TracingProcess(ControllerProcess):
    """A controller that sends its spans at once."""

    collector: str = ""

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector,
            "OTEL_BSP_SCHEDULE_DELAY": "10",
        }


@pytest.mark.parametrize("moment", [Moment.RECORD_WRITTEN, Moment.STARTED, Moment.VERDICT_STORED, Moment.REPLY_SENT])
async def test_killed_in_the_middle_a_run_is_one_span(
    moment: Moment, client: NatsClient, nats_url: str, tmp_path: Path
) -> None:
    catalog = write_catalog(
        tmp_path / "functions",
        function("first", "first", "sleep 0.1; echo x", output={"from": "stdout"}, onSuccess={"publish": "second"}),
        function("second", "second", "echo y", output={"from": "stdout"}),
    )
    view = View(client)
    with otlp_receiver() as receiver:
        dying = TracingProcess(tmp_path / "dying", nats_url, catalog, crash_at=moment, collector=receiver.url)
        await dying.start()
        await view.publish("first", b"x", "killed-1", traceparent=f"00-{TRACE}-{CALLER}-01")
        assert await dying.ended(within=60) == -9
        heir = await TracingProcess(tmp_path / "heir", nats_url, catalog, collector=receiver.url).start()
        run_id = wire.run_id_of("killed-1", "first")
        await view.answers("killed-1", within=60)
        await view.answers(wire.chained_id(run_id, "onSuccess"), within=60)

        async def told() -> bool:
            return bool(receiver.named("run second"))

        await eventually(told, what="the span of the last run")
        heir.terminate()
        await heir.ended()
    assert {span.trace_id for span in receiver.spans} == {TRACE}
    run, accept_id = receiver.one("run first"), spans.derived_id("accept", "killed-1", CALLER)
    assert (run.parent, run.span_id) == (accept_id, spans.derived_id("run", run_id))
    # What was told in the moment before the kill may not have been sent; it is told again only with the event.
    assert {span.span_id for span in receiver.named("accept first")} <= {accept_id}
    assert moment is not Moment.RECORD_WRITTEN or receiver.one("accept first").parent == CALLER
    assert receiver.one("publish second").parent == run.span_id
    assert receiver.one("reply first").parent == run.span_id
    # Killed between storing the result and telling of it: who goes on finds it stored, and tells it all the same.
    assert receiver.one("result first").parent == run.span_id
    for name in ("run first", "result first"):
        assert len({(span.start, span.end) for span in receiver.named(name)}) == 1, "whoever tells, the times are those"
    assert {span.parent for span in receiver.spans} - receiver.ids() <= {CALLER, accept_id}
    for process in (dying, heir):
        for line in process.log_file.read_text().splitlines():
            assert {"timestamp", "level", "event", "component"} <= json.loads(line).keys()


async def test_without_a_collector_runs_go_on(client: NatsClient, nats_url: str, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "functions", function("first", "first", "echo x", output={"from": "stdout"}))
    view = View(client)
    alone = TracingProcess(tmp_path / "alone", nats_url, catalog, collector="http://127.0.0.1:9")
    await alone.start()
    for number in range(5):
        await view.publish("first", b"x", f"alone-{number}")
    for number in range(5):
        answers = await view.answers(f"alone-{number}")
        assert answers.results["first"].succeeded
    alone.terminate()
    assert await alone.ended() == 0
    lines = [json.loads(line) for line in alone.log_file.read_text().splitlines()]
    assert len([line for line in lines if line["event"] == "spans are dropped"]) <= 1
    (end,) = [line for line in lines if line["event"] == "spans were not sent"]
    assert end["dropped"] >= 5
