"""When a process traces, what that loads, and what it refuses; how ids and headers of spans come about."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from invoker import spans, tracing, wire
from invoker.errors import SettingsError
from invoker.request import RequestRecord, RunTicket
from invoker.result import Attempt, Reason, Result, State
from invoker.tracing import TraceContext
from invoker.tracing_switch import traced, wish_of
from trigger.custody import HeldRun

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
PARTS = "import invoker, invoker.client, invoker.gateway.app, trigger.app; from invoker.tracing_switch import traced"


@pytest.mark.parametrize(
    ("given", "variable"),
    [({}, None), (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"), ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
     ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
     ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None), ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None),
     ({"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None)],
)  # fmt: skip
def test_the_standard_variables_decide(given: dict[str, str], variable: str | None) -> None:
    wish = wish_of(given)
    assert (wish.variable if wish is not None else None) == variable


@pytest.mark.parametrize(
    ("given", "words"),
    [({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin'"),
     ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc'"),
     ({**ENDPOINT, "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OTEL_BSP_MAX_QUEUE_SIZE: '-1'"),
     ({**ENDPOINT, "OTEL_BSP_SCHEDULE_DELAY": "soon"}, "OTEL_BSP_SCHEDULE_DELAY: 'soon'")],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_with_its_variable(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        wish_of(given)


def test_switched_off_nothing_of_it_is_loaded() -> None:
    program = f"import sys; {PARTS}\nwith traced('x', {{}}): pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "invoker.tracing" in loaded
    assert not {name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))}
    assert not loaded & {"invoker.otel", "google.protobuf", "requests"}


@pytest.mark.parametrize("program", ["controller", "gateway"])
def test_asked_for_without_the_extra_the_start_ends_in_words(program: str, tmp_path: Path) -> None:
    start = "import sys; sys.modules['opentelemetry.sdk'] = None; from invoker.cli import main; main()"
    given = {**ENDPOINT, "PATH": os.environ["PATH"], "HOME": str(tmp_path), "INVOKER_CATALOG": str(tmp_path),
             "INVOKER_NATS_URL": "nats://127.0.0.1:9"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", start, program], capture_output=True, text=True, cwd=ROOT, env=given)
    assert done.returncode == 2, done.stderr
    assert "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not installed here" in done.stderr
    assert "pip install '.[otel]' in the checkout" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_need_not_trace_works_without_the_extra() -> None:
    with traced("x", {"OTEL_TRACES_EXPORTER": "zipkin"}, needed=False):
        assert tracing.exporter() is None


def record(**headers: str) -> RequestRecord:
    return RequestRecord(
        request_id="r", topic="t", received_at=AT, accepted_at=AT, sha256="0" * 64, catalog="c", functions=("f",),
        root_request_id="r", headers=headers,
    )  # fmt: skip


def test_a_run_told_twice_is_told_alike() -> None:
    given = record(traceparent=f"00-{TRACE}-{PARENT}-01")
    result = Result(
        request_id="r", run_id="run", function="f", topic="t", state=State.FAILED, reason=Reason.ERROR,
        attempts=(Attempt(number=1, started_at=AT, finished_at=AT + timedelta(seconds=1), reason=Reason.ERROR),),
        finished_at=AT + timedelta(seconds=2), root_request_id="r",
    )  # fmt: skip
    run, attempt, sealed = spans.run_spans(result, given, wire.Names())
    assert spans.run_spans(result, given, wire.Names()) == [run, attempt, sealed]
    assert run.context == spans.run_context(given, "run")
    assert (run.start, run.end, run.parent) == (AT, AT + timedelta(seconds=2), TraceContext(TRACE, PARENT))
    assert attempt.parent == run.context
    assert (sealed.start, sealed.end, sealed.parent) == (result.finished_at, result.finished_at, run.context)


def test_switched_off_headers_stay_as_they_are() -> None:
    given = record(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=1", other="x")
    assert tracing.exporter() is None
    assert spans.run_headers(given, "run") == given.headers
    assert spans.run_trace(given, "run") == {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1"}
    assert spans.run_facts(given, "run") == {"trace_id": TRACE}
    assert spans.run_trace(record(traceparent="broken"), "run") == {}


def test_lines_about_a_held_run_name_its_trace_once_it_is_known() -> None:
    held = HeldRun(RunTicket(run_id="run", request_id="r", function="f"), None, 1)
    assert held.ids() == {"request_id": "r", "run_id": "run", "function": "f"}
    held.trace_id = TRACE
    assert held.ids() == {"request_id": "r", "run_id": "run", "function": "f", "trace_id": TRACE}


def test_a_span_that_cannot_be_made_hurts_nobody() -> None:
    class Broken:
        @property
        def counted(self) -> tracing.Counted:
            return tracing.Counted()

        def samples(self, trace_id: str, parent: TraceContext | None, name: str, kind: tracing.Kind) -> bool:
            return True

        def export(self, span: tracing.Span) -> None:
            raise ValueError("no")

        def around(self) -> TraceContext | None:
            return None

    before = tracing.use(Broken())
    try:
        context = TraceContext(TRACE, PARENT)
        tracing.tell(lambda: [tracing.Span("x", tracing.Kind.INTERNAL, context, None, AT, AT)])
    finally:
        tracing.use(before)


@pytest.mark.parametrize("text", ["", "00-0-0-00", f"00-{TRACE}-{PARENT}-01-x", f"ff-{TRACE}-{PARENT}-01"])
def test_what_is_no_trace_is_none(text: str) -> None:
    assert TraceContext.of({"traceparent": text}) is None


def test_a_traceparent_does_not_count_as_what_callers_choose() -> None:
    named = {"a": "b", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert wire.callers_header_bytes(named) == wire.callers_header_bytes({"a": "b"})
    assert wire.callers_header_bytes({"traceparent": "x" * 100}) > 100
