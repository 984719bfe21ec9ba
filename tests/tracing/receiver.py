"""An OTLP receiver: a real HTTP server that decodes what the exporter sends, and keeps every span."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan


@dataclass(frozen=True)
class Seen:
    """One span as it arrived. `parent` is None for the first of a trace; times are nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str | None
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    events: tuple[str, ...]
    failed: bool
    message: str


@dataclass
class Receiver:
    """What has arrived so far."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    calls: int = 0
    status: int = 200

    def of(self, trace_id: str) -> Receiver:
        """What has arrived of one trace."""
        return Receiver(self.url, [span for span in self.spans if span.trace_id == trace_id])

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Seen:
        """The span of that name; told more than once, it must be the same every time."""
        found = {(span.trace_id, span.span_id) for span in self.named(name)}
        assert len(found) == 1, f"{name}: {len(found)} spans; there are {sorted({s.name for s in self.spans})}"
        return self.named(name)[-1]

    def ids(self) -> set[str]:
        return {span.span_id for span in self.spans}

    def take(self, data: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(data)
        self.calls += 1
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_seen(service, span) for span in scope.spans]


@contextmanager
def otlp_receiver(port: int = 0) -> Iterator[Receiver]:
    """A receiver on this machine, until this is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.status == 200 and self.path == "/v1/traces":
                receiver.take(data)
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(receiver.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _seen(service: str, span: WireSpan) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex() or None,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple(event.name for event in span.events),
        failed=span.status.code == 2,
        message=span.status.message,
    )


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in given}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
