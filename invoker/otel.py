"""The one module that knows OpenTelemetry: our spans become its own, and go to a collector by OTLP over HTTP.

Loaded only when tracing is switched on. One thread sends what is queued; the queue is bounded, and what does not fit or
does not arrive is counted, told of once, and forgotten: nobody waits for a collector.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState

from invoker.errors import SettingsError
from invoker.tracing import Counted, Kind, Span, TraceContext
from invoker.version import __version__

log = structlog.get_logger(component="tracing")

_SCOPE = InstrumentationScope("invoker", __version__, Schemas.V1_44_0.value)
_KINDS = {kind: api.SpanKind[kind.value] for kind in Kind}
_LAST_SECONDS = 0.3
_QUIET = ("opentelemetry.exporter", "opentelemetry.sdk")


@dataclass(frozen=True, slots=True)
class Batching:
    """How spans are sent, as OpenTelemetry's OTEL_BSP_… variables have it: seconds and spans."""

    delay_seconds: float = 5.0
    queue: int = 2048
    batch: int = 512


class OtlpTracing:
    """Sends spans to the collector that the OTEL_… variables name. `close` it at the end."""

    def __init__(self, service: str, batching: Batching | None = None, *, own_process: bool = True) -> None:
        """`service` is the name for a service that OTEL_SERVICE_NAME does not name. `own_process`: nobody else's log
        lines about OpenTelemetry are wanted in this process. Raises `SettingsError` for variables that cannot be used.
        """
        if own_process:
            for name in _QUIET:
                logging.getLogger(name).setLevel(logging.CRITICAL)  # told of here, in our own words, once
        self._batching = batching or Batching()
        try:
            self._resource = _resource(service)
            self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
            self._exporter: SpanExporter = OTLPSpanExporter()
        except Exception as error:  # its own kinds, of several libraries; each is about a variable
            raise SettingsError(f"OTEL_…: OpenTelemetry cannot be set up: {error}") from error
        self._queue: deque[Span] = deque()
        self._awake = threading.Condition()
        self._closing = False
        self._sent = self._dropped = self._told_of = self._under_way = 0
        self._sender = threading.Thread(target=self._send, name="tracing", daemon=True)
        self._sender.start()

    @property
    def counted(self) -> Counted:
        return Counted(self._sent, self._dropped)

    def samples(self, trace_id: str, parent: TraceContext | None, name: str, kind: Kind) -> bool:
        context = api.set_span_in_context(NonRecordingSpan(_context(parent)), Context()) if parent else Context()
        result = self._sampler.should_sample(context, int(trace_id, 16), name, _KINDS[kind], {}, [])
        return bool(result.decision.is_sampled())  # type: ignore[no-untyped-call]  # it has no types

    def around(self) -> TraceContext | None:
        found = api.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        state = found.trace_state.to_header() or None
        return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled, state)

    def export(self, span: Span) -> None:
        with self._awake:
            if self._closing or len(self._queue) >= self._batching.queue:
                self._dropped += 1
                if self._dropped == 1:
                    log.warning("spans are dropped", reason="more than the queue holds", queue=self._batching.queue)
                return
            self._queue.append(span)
            if len(self._queue) == self._batching.batch:
                self._awake.notify()

    def close(self, within_seconds: float = 3.0) -> None:
        """Send what is queued, for so long at most. Safe to repeat."""
        with self._awake:
            if self._closing:
                return
            self._closing = True
            self._awake.notify()
        self._sender.join(within_seconds)
        self._exporter.shutdown()  # also ends the waiting between two tries
        self._sender.join(_LAST_SECONDS)
        with self._awake:
            self._dropped += len(self._queue) + self._under_way
            self._under_way = 0
            self._queue.clear()
        if self._dropped:
            log.warning("spans were not sent", dropped=self._dropped, sent=self._sent)

    def _send(self) -> None:
        while True:
            with self._awake:
                if not self._closing and len(self._queue) < self._batching.batch:
                    self._awake.wait(self._batching.delay_seconds)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batching.batch))]
                self._under_way = len(batch)
                if not batch and self._closing:
                    return
            if batch:
                self._send_batch(batch)

    def _send_batch(self, batch: list[Span]) -> None:
        try:
            arrived = self._exporter.export([self._readable(span) for span in batch]) is SpanExportResult.SUCCESS
            words = "the collector did not take them"
        except Exception as error:  # a span that it cannot write, or whatever else: tracing only loses spans
            arrived, words = False, str(error)[:300]
        with self._awake:
            if not self._under_way:
                return  # closed meanwhile, and counted there
            self._under_way = 0
            if arrived:
                self._sent += len(batch)
                recovered, self._told_of = self._told_of, 0
            else:
                self._dropped += len(batch)
                recovered, first = 0, not self._told_of
                self._told_of += len(batch)
        if recovered:
            log.info("spans are sent again", dropped=recovered)
        if not arrived and first:
            log.warning("spans are dropped", reason=words)

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_context(span.context),
            parent=_context(span.parent) if span.parent is not None else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            events=[Event(event.name, dict(event.attributes), _nanoseconds(event.at)) for event in span.events],
            links=[Link(_context(one)) for one in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error is not None else Status(),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=_SCOPE,
        )


def _resource(service: str) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and our own name where they give none."""
    found = Resource.create()
    own: Mapping[str, str] = {"service.version": __version__}
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": service}))
    return Resource(own).merge(found)


def _context(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), True, flags, state)


def _nanoseconds(at: datetime) -> int:
    # By whole microseconds: a float of seconds has not the digits.
    return round(at.timestamp() * 1_000_000) * 1_000
