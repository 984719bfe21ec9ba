"""Which spans there are, and what they say: from requests, runs and results to spans.

Ids derive from what a span is about (`docs/design/0015`): a request is accepted once, a run is one run, whoever
tells of it and however often. So a run's span is known before the run begins, is the parent of what its function does,
and needs no memory that a killed process could lose. Times come from what is stored, for the same reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

from invoker import tracing, wire
from invoker.request import Event, RequestRecord
from invoker.result import Attempt, Result
from invoker.tracing import Kind, Span, SpanEvent, TraceContext, Value

CONVENTIONS = "1.44.0"
"""The version of OpenTelemetry's semantic conventions that names of attributes are taken from."""
MAX_TEXT = 300

Contexts: TypeAlias = tuple[TraceContext, TraceContext | None]
"""A span and its parent."""


def derived_id(kind: str, *ids: str) -> str:
    """A span's id: always the same for the same thing."""
    return hashlib.sha256("\n".join((kind, *ids)).encode()).hexdigest()[:16]


def derived_trace(request_id: str) -> str:
    """The trace of a chain whose first event named none."""
    return hashlib.sha256(f"trace\n{request_id}".encode()).hexdigest()[:32]


def entry_of(event: Event, original: RequestRecord | None) -> Contexts:
    """The span of an event's acceptance, and its parent.

    An event that names no trace begins one. So does a replay that only carries on the trace of its original: it is
    linked to that instead. Only while tracing is on.
    """
    parent = TraceContext.of(event.headers)
    if parent is not None and original is not None and parent.trace_id == request_context(original).trace_id:
        parent = None
    trace_id = derived_trace(event.root_request_id or event.request_id)
    # With the parent in it: who publishes the same request again gets a span of his own, a new delivery does not.
    own = derived_id("accept", event.request_id, parent.span_id if parent is not None else "")
    name = f"accept {event.topic}"
    return tracing.entered(parent, trace_id, own, name, Kind.CONSUMER), parent


def request_context(record: RequestRecord) -> TraceContext:
    """The span that a request's runs belong under: its acceptance, or whatever its record names."""
    named = TraceContext.of(record.headers)
    return named or TraceContext(
        derived_trace(record.root_request_id), derived_id("accept", record.request_id, ""), False
    )


def run_context(record: RequestRecord, run_id: str) -> TraceContext:
    """The span of a run."""
    return request_context(record).child(derived_id("run", run_id))


def carried(headers: Mapping[str, str], context: TraceContext) -> dict[str, str]:
    """The headers, with that span instead of the one that they name."""
    ours = (wire.H_TRACEPARENT, wire.H_TRACESTATE)
    return {name: value for name, value in headers.items() if name.lower() not in ours} | context.headers()


def run_headers(record: RequestRecord, run_id: str) -> dict[str, str]:
    """A request's headers for what its run brings about: with the run's span, while tracing is on."""
    if tracing.exporter() is None:
        return dict(record.headers)
    return carried(record.headers, run_context(record, run_id))


def run_trace(record: RequestRecord, run_id: str) -> dict[str, str]:
    """`traceparent` and `tracestate` as a run's function goes on with them, those that there are."""
    found = wire.trace_headers(run_headers(record, run_id))
    return {name: found[name] for name in (wire.H_TRACEPARENT, wire.H_TRACESTATE) if name in found}


def request_facts(record: RequestRecord) -> dict[str, str]:
    """For log lines about a request: `call_id`, `trace_id`, and while tracing is on `span_id`; those that are known."""
    facts = wire.trace_facts(record.headers)
    if tracing.exporter() is not None:
        facts |= {"trace_id": request_context(record).trace_id, "span_id": request_context(record).span_id}
    return facts


def in_trace(trace_id: str, run_id: str) -> dict[str, str]:
    """For log lines about a run of that trace."""
    if tracing.exporter() is None:
        return {"trace_id": trace_id}
    return {"trace_id": trace_id, "span_id": derived_id("run", run_id)}


def run_facts(record: RequestRecord | None, run_id: str) -> dict[str, str]:
    """The same for log lines about a run."""
    if record is None:
        return {}
    facts = request_facts(record)
    return facts | {"span_id": derived_id("run", run_id)} if "span_id" in facts else facts


def publish_context(
    headers: Mapping[str, str], topic: str, parent_run_id: str | None, request_id: str | None
) -> Contexts:
    """The span of a publish, and its parent: what the headers name, else the span around the program.

    What a run publishes has an id of its run and position, and so has its span: repeated, it is the same one.
    """
    repeatable = parent_run_id is not None and request_id is not None
    own = derived_id("publish", request_id or "") if repeatable else tracing.new_id(8)
    told = tracing.exporter()
    parent = TraceContext.of(headers) or (told.around() if told is not None else None)
    return tracing.entered(parent, tracing.new_id(16), own, f"publish {topic}", Kind.PRODUCER), parent


def call_context(headers: Mapping[str, str], method: str) -> Contexts:
    """The span of an HTTP call, and its parent: what its headers name."""
    parent = TraceContext.of(headers)
    return tracing.entered(parent, tracing.new_id(16), tracing.new_id(8), method, Kind.SERVER), parent


def publish_span(
    contexts: Contexts,
    *,
    topic: str,
    subject: str,
    request_id: str | None,
    body_bytes: int | None,
    start: datetime,
    end: datetime,
    error: str | None = None,
) -> Span:
    """An event is published."""
    attributes: dict[str, Value] = {
        **_messaging("publish", "send", subject),
        "invoker.topic": topic,
    }
    if body_bytes is not None:
        attributes["messaging.message.body.size"] = body_bytes
    if request_id is not None:
        attributes["messaging.message.id"] = request_id
    return Span(f"publish {topic}", Kind.PRODUCER, *contexts, start, end, attributes, error=error)


def accept_span(
    record: RequestRecord,
    parent: TraceContext | None,
    original: RequestRecord | None,
    patterns: tuple[str, ...],
    names: wire.Names,
) -> Span:
    """A request is accepted, from the moment its event was stored: matched, recorded, its runs queued."""
    attributes: dict[str, Value] = {
        **_messaging("accept", "process", names.event(record.topic)),
        "messaging.message.id": record.request_id,
        "messaging.consumer.group.name": names.intake_consumer,
        "messaging.message.body.size": record.body.size_bytes,
        "invoker.request_id": record.request_id,
        "invoker.topic": record.topic,
        "invoker.functions": record.functions,
        "invoker.hops": record.hops,
    }
    if patterns:
        attributes["messaging.destination.template"] = patterns[0]
    if record.replay_of is not None:
        attributes["invoker.replay_of"] = record.replay_of
    links = (request_context(original),) if original is not None else ()
    context = request_context(record)
    return Span(
        f"accept {patterns[0] if patterns else record.topic}", Kind.CONSUMER, context, parent,
        record.received_at, max(record.received_at, record.accepted_at), attributes, links,
    )  # fmt: skip


def repeat_span(contexts: Contexts, record: RequestRecord, event: Event, names: wire.Names, now: datetime) -> Span:
    """The same request was published again: a span below that publish, linked to the request's own."""
    attributes: dict[str, Value] = {
        **_messaging("accept", "process", names.event(event.topic)),
        "messaging.message.id": record.request_id,
        "invoker.request_id": record.request_id,
        "invoker.topic": event.topic,
        "invoker.repeated": True,
    }
    return Span(
        f"accept {event.topic}", Kind.CONSUMER, *contexts, event.received_at, max(event.received_at, now), attributes,
        (request_context(record),),
    )  # fmt: skip


def dead_span(
    headers: Mapping[str, str],
    *,
    dead_id: str,
    reason: str,
    message: str,
    topic: str,
    subject: str,
    request_id: str | None,
    start: datetime,
    end: datetime,
) -> Span:
    """An event became a dead letter: below what its headers name, or the beginning of the trace that its request would
    have begun. Its id follows from the letter's, so the letter of a redelivered event has one."""
    attributes: dict[str, Value] = {
        **_messaging("dead", "process", subject),
        "invoker.dead_id": dead_id,
        "invoker.topic": topic,
        "error.type": reason,
    }
    if request_id is not None:
        attributes |= {"messaging.message.id": request_id, "invoker.request_id": request_id}
    parent, name = TraceContext.of(headers), f"dead {reason}"
    own = derived_id("dead", dead_id)
    context = tracing.entered(parent, derived_trace(request_id or dead_id), own, name, Kind.CONSUMER)
    words = message.encode("utf-8", "replace").decode()[:MAX_TEXT]
    return Span(name, Kind.CONSUMER, context, parent, start, max(start, end), attributes, error=words)


def run_spans(result: Result, record: RequestRecord, names: wire.Names) -> list[Span]:
    """A finished run, from its acceptance to its result, with spans for the attempts that began and for the result.

    Told together by whoever finishes the run, and again by who repeats that: the one who stored the result, gateway or
    controller, may be dead before he could tell of it, and nobody else would know that it was not told.
    """
    context = run_context(record, result.run_id)
    start = min(record.accepted_at, result.finished_at)
    begun = [SpanEvent("started", result.started_at)] if result.started_at is not None else []
    run = Span(
        f"run {result.function}", Kind.CONSUMER, context, request_context(record), start, result.finished_at,
        _run_attributes(result, names), events=tuple(begun),
        error=None if result.succeeded else (result.message or str(result.reason))[:MAX_TEXT],
    )  # fmt: skip
    attempts = (_attempt_span(result, attempt, context) for attempt in result.attempts if attempt.started_at)
    return [run, *attempts, _result_span(result, context, names)]


def _result_span(result: Result, run: TraceContext, names: wire.Names) -> Span:
    """A run's result is made, and stored since: a moment, as stored. When it was stored only that one process knew."""
    attributes: dict[str, Value] = {
        **_messaging("publish", "send", names.result(result.request_id, result.function)),
        **_ids(result),
        "messaging.message.body.size": result.output.size_bytes,
    }
    context = run.child(derived_id("result", result.run_id))
    at = result.finished_at
    return Span(f"result {result.function}", Kind.PRODUCER, context, run, at, at, attributes)


def reply_context(record: RequestRecord, run_id: str) -> TraceContext:
    """The span of a run's reply."""
    return run_context(record, run_id).child(derived_id("reply", run_id))


def reply_span(result: Result, record: RequestRecord, subject: str, start: datetime, end: datetime) -> Span:
    """A run's reply is sent."""
    attributes: dict[str, Value] = {**_messaging("reply", "send", subject), **_ids(result)}
    context = reply_context(record, result.run_id)
    return Span(
        f"reply {result.function}", Kind.PRODUCER, context, run_context(record, result.run_id), start, end, attributes
    )


def call_span(
    contexts: Contexts,
    *,
    method: str,
    route: str,
    status: int,
    call_id: str,
    ids: Mapping[str, str],
    start: datetime,
    end: datetime,
) -> Span:
    """An HTTP call is answered. The path itself is not told: it may hold the token of a run."""
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "invoker.call_id": call_id,
        **{f"invoker.{name}": value for name, value in ids.items()},
    }
    error = str(status) if status >= 500 else None
    if error is not None:
        attributes["error.type"] = error
    return Span(f"{method} {route}", Kind.SERVER, *contexts, start, end, attributes, error=error)


def _messaging(name: str, kind: str, destination: str) -> dict[str, Value]:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }


def _ids(result: Result) -> dict[str, Value]:
    return {
        "messaging.message.id": result.request_id,
        "faas.invocation_id": result.run_id,
        "invoker.request_id": result.request_id,
        "invoker.run_id": result.run_id,
        "invoker.function": result.function,
        "invoker.state": str(result.state),
        "invoker.reason": str(result.reason),
    }


def _run_attributes(result: Result, names: wire.Names) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        **_messaging("run", "process", names.event(result.topic)),
        **_ids(result),
        "messaging.consumer.group.name": names.run_consumer(result.function),
        "faas.trigger": "pubsub",
        "faas.name": result.function,
        "invoker.topic": result.topic,
        "invoker.attempts": len(result.attempts),
    }
    if not result.succeeded:
        attributes["error.type"] = str(result.reason)
    optional = {"invoker.engine": result.engine, "invoker.spec_hash": result.spec_hash}
    namespace, _, job = (result.job or "").partition("/")
    if job:
        optional |= {"k8s.namespace.name": namespace, "k8s.job.name": job}
    return attributes | {name: value for name, value in optional.items() if value is not None}


def _attempt_span(result: Result, attempt: Attempt, run: TraceContext) -> Span:
    start = attempt.started_at or result.finished_at
    end = max(start, attempt.finished_at or result.finished_at)
    attributes: dict[str, Value] = {**_ids(result), "invoker.attempt": attempt.number}
    if attempt.exit_code is not None:
        attributes["process.exit.code"] = attempt.exit_code
    if attempt.reason is not None:
        attributes["invoker.reason"] = str(attempt.reason)
    failed = attempt.reason is not None and str(attempt.reason) != "completed"
    if failed:
        attributes["error.type"] = attempt.error.type if attempt.error and attempt.error.type else str(attempt.reason)
    words = attempt.error.message if attempt.error else ""
    return Span(
        f"attempt {attempt.number}", Kind.INTERNAL,
        run.child(derived_id("attempt", result.run_id, str(attempt.number))), run, start, end, attributes,
        error=(words or str(attempt.reason))[:MAX_TEXT] if failed else None,
    )  # fmt: skip
