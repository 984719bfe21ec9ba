"""What tracing costs a run of a chain: switched off, and switched on with a collector on the same machine.

    .venv/bin/python benchmarks/tracing.py [--runs 5000] [--rounds 7]

    passed on   what was done before there were spans, and is done in any case: the trace's headers are read three times
                (for the log, for the next event, for the reply); the reference
    off         the same with everything that a run asks of tracing while it is switched off
    on          the same while it is switched on: eight spans are made of the documents (publish, acceptance, run, one
                attempt, result, reply, next publish, and an HTTP call) and put into the exporter's queue
    sent        the processor time of the whole process for `on`, until a collector in another process has all spans

Microseconds for each run, the best round of each, all measured in turn. The sending is done by a thread of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from invoker import spans, tracing, wire
from invoker.otel import Batching, OtlpTracing
from invoker.request import Event, RequestRecord
from invoker.result import Attempt, Reason, Result, State

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = wire.Names()
HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-tenant": "t"}
RECORD = RequestRecord(
    request_id="r" * 26, topic="orders.created", received_at=AT, accepted_at=AT, sha256="0" * 64, catalog="c",
    functions=("convert",), root_request_id="r" * 26, headers=HEADERS,
)  # fmt: skip
RUN_ID = wire.run_id_of(RECORD.request_id, "convert")
RESULT = Result(
    request_id=RECORD.request_id, run_id=RUN_ID, function="convert", topic=RECORD.topic, state=State.SUCCEEDED,
    reason=Reason.COMPLETED, attempts=(Attempt(number=1, started_at=AT, finished_at=AT, reason=Reason.COMPLETED),),
    started_at=AT, finished_at=AT + timedelta(seconds=1), engine="local", root_request_id=RECORD.request_id,
)  # fmt: skip
EVENT = Event(RECORD.topic, RECORD.request_id, RECORD.body, RECORD.sha256, HEADERS, AT)
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        return
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def passed_on() -> None:
    """The headers of a trace, as they go through a run in any case."""
    for _ in range(3):
        wire.trace_facts(RECORD.headers)


def traced() -> None:
    """Everything that a run asks of tracing, from its event to its reply."""
    headers = {name: value for name, value in HEADERS.items() if name != "x-tenant"}
    if tracing.exporter() is not None:
        call = spans.call_context(headers, "POST")
        tracing.tell(
            lambda: [
                spans.call_span(
                    call, method="POST", route="/v1/topics/{topic}", status=202, call_id="c", ids={}, start=AT, end=AT
                )
            ]
        )
        _publish(None)
        entry = spans.entry_of(EVENT, None)
        spans.carried(EVENT.headers, entry[0])
        tracing.tell(lambda: [spans.accept_span(RECORD, entry[1], None, ("orders.*",), NAMES)])
        _publish(RUN_ID)
        spans.reply_context(RECORD, RUN_ID)
    spans.request_facts(RECORD)
    spans.run_facts(RECORD, RUN_ID)
    spans.run_trace(RECORD, RUN_ID)
    spans.run_headers(RECORD, RUN_ID)
    tracing.tell(lambda: [spans.sealed_span(RESULT, RECORD, NAMES, AT, AT)])
    tracing.tell(lambda: [spans.reply_span(RESULT, RECORD, "replies.x", AT, AT)])
    tracing.tell(lambda: spans.run_spans(RESULT, RECORD, NAMES))


def _publish(parent_run_id: str | None) -> None:
    contexts = spans.publish_context(HEADERS, RECORD.topic, parent_run_id, RECORD.request_id)
    tracing.tell(
        lambda: [
            spans.publish_span(
                contexts, topic=RECORD.topic, subject="events.orders.created", request_id=RECORD.request_id,
                body_bytes=10, start=AT, end=AT,
            )
        ]
    )  # fmt: skip


def microseconds(work: Callable[[], None], runs: int) -> float:
    began = time.perf_counter()
    for _ in range(runs):
        work()
    return (time.perf_counter() - began) / runs * 1e6


def sent_round(runs: int, url: str) -> tuple[float, float]:
    """The event loop's share while tracing is on, and the processor time of all of it, in microseconds of a run."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    exporter = OtlpTracing("bench", Batching(queue=runs * 8 + 1))
    before, began = tracing.use(exporter), time.process_time()
    try:
        # In bursts, as runs come: the thread that sends works in between.
        alone = []
        for _ in range(runs // 50):
            alone.append(microseconds(traced, 50))
            time.sleep(0.01)
    finally:
        tracing.use(before)
    exporter.close(60.0)
    assert exporter.counted.dropped == 0, exporter.counted
    alone.sort()
    return alone[len(alone) // 2], (time.process_time() - began) / (runs // 50 * 50) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    collector = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        assert collector.stdout is not None
        url = f"http://127.0.0.1:{collector.stdout.readline().strip()}"
        best = {"passed on": 1e9, "off": 1e9, "on": 1e9, "sent": 1e9}
        for _ in range(given.rounds):
            on, sent = sent_round(given.runs // 5, url)
            found = {"passed on": microseconds(passed_on, given.runs), "off": microseconds(traced, given.runs)}
            for name, value in {**found, "on": on, "sent": sent}.items():
                best[name] = min(best[name], value)
    finally:
        collector.terminate()
        collector.wait()
    for name, value in best.items():
        print(f"{name:10} {value:8.1f} µs a run   {value - best['passed on']:+8.1f} µs")


if __name__ == "__main__":
    main()
