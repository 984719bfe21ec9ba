"""A collector that is away, stands still or refuses: spans are dropped and counted, and nobody waits."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import capture_logs

from invoker import spans, tracing
from invoker.exposition import begun_registry, exposition_of
from invoker.logs import configure_logs
from invoker.otel import Batching, OtlpTracing
from invoker.tracing import Kind, Span, TraceContext
from tests.tracing.receiver import otlp_receiver

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def span(number: int = 1, **more: object) -> Span:
    return Span(f"span {number}", Kind.INTERNAL, TraceContext("1" * 32, f"{number:016x}"), None, AT, AT, **more)  # type: ignore[arg-type]  # a test's own fields


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_collector_that_stands_still_delays_nobody(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")  # seconds: whoever waits for an answer waits for that
    with capture_logs() as lines:
        exporter = OtlpTracing("x", Batching(delay_seconds=0.01, queue=100, batch=10))
        began = time.perf_counter()
        for number in range(1, 5001):
            exporter.export(span(number))
        assert time.perf_counter() - began < 90
        began = time.perf_counter()
        exporter.close(within_seconds=0.2)
        assert time.perf_counter() - began < 90
    assert exporter.counted.dropped >= 4800
    said = [line for line in lines if line["event"] == "spans are dropped"]
    assert [line["reason"] for line in said] == ["more than the queue holds"], "once, not for each"
    (end,) = [line for line in lines if line["event"] == "spans were not sent"]
    assert end["dropped"] == exporter.counted.dropped


def test_a_collector_that_is_away_is_told_of_once_and_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        receiver.status = 400  # refused for good, so not tried again
        with capture_logs() as lines:
            exporter = OtlpTracing("x", Batching(delay_seconds=0.01))
            for number in (1, 2):
                exporter.export(span(number))
                until(lambda number=number: exporter.counted.dropped == number)  # type: ignore[misc]
            receiver.status = 200
            exporter.export(span(3))
            until(lambda: any(line["event"] == "spans are sent again" for line in lines))
            exporter.close()
        assert receiver.named("span 3")
    assert [line["event"] for line in lines if print(line) is None] == [
        "spans are dropped",
        "spans are sent again",
        "spans were not sent",
    ]
    assert lines[1]["dropped"] == 2
    before = tracing.use(exporter)
    try:
        told = exposition_of(begun_registry("gateway")).decode().splitlines()
    finally:
        tracing.use(before)
    assert {'invoker_spans_total{reason="dropped"} 2.0', 'invoker_spans_total{reason="sent"} 1.0'} <= set(told)
    assert exporter.counted.sent == 1


def test_the_library_writes_no_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    log = StringIO()
    configure_logs("json", "debug", log)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    exporter = OtlpTracing("x", Batching(delay_seconds=0.01))
    exporter.export(span())
    exporter.close(within_seconds=0.3)
    assert {json.loads(line)["component"] for line in log.getvalue().splitlines()} == {"tracing"}


def test_sampling_is_as_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    exporter = OtlpTracing("x")
    try:
        low, high = "1" * 16 + "0" * 16, "1" * 16 + "f" * 16
        assert exporter.samples(low, None, "x", Kind.INTERNAL)
        assert not exporter.samples(high, None, "x", Kind.INTERNAL)
        assert exporter.samples(high, TraceContext(high, "1" * 16, True), "x", Kind.INTERNAL)
        assert not exporter.samples(low, TraceContext(low, "1" * 16, False), "x", Kind.INTERNAL)
    finally:
        exporter.close()


def test_what_a_program_publishes_is_below_the_span_that_it_is_in() -> None:
    exporter = OtlpTracing("x")
    before = tracing.use(exporter)
    try:
        assert spans.publish_context({}, "t", None, None)[1] is None
        with TracerProvider(shutdown_on_exit=False).get_tracer("theirs").start_as_current_span("mine") as mine:
            own, parent = spans.publish_context({}, "t", None, None)
            assert parent is not None
            assert int(parent.span_id, 16) == mine.get_span_context().span_id
            assert (own.trace_id, own.sampled) == (parent.trace_id, True)
            named = {"traceparent": f"00-{'3' * 32}-{'4' * 16}-01"}
            assert spans.publish_context(named, "t", None, None)[0].trace_id == "3" * 32, "what an event says counts"
    finally:
        tracing.use(before)
        exporter.close()


def test_names_and_times_arrive_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        exporter = OtlpTracing("x")
        exporter.export(span(attributes={"a": "é", "n": 1, "list": ("x", "y")}, error="no"))
        exporter.close(within_seconds=60)
        (seen,) = receiver.spans
    assert (seen.service, seen.start, seen.failed, seen.message) == ("mine", 1767323045678901000, True, "no")
    assert seen.attributes == {"a": "é", "n": 1, "list": ["x", "y"]}


def until(done: object) -> None:
    deadline = time.monotonic() + 60
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
