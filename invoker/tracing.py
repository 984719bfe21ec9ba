"""Tracing as the rest of the project knows it: spans as plain values, and one switch for the whole process.

Off unless a program switches it on (`invoker.tracing_switch`): then nothing here does anything, and nothing of
OpenTelemetry is loaded. Pure but for the switch. A span is told once, when it is over, with the ids that
`invoker.spans` derives: so a span that is told twice, by two processes, is still one span.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, TypeAlias

from invoker import wire

Value: TypeAlias = str | int | float | bool | Sequence[str]
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Kind(StrEnum):
    """Which side of a call or a message a span is on."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace, as W3C's headers name it. `sampled` says whether it is told to anybody."""

    trace_id: str
    span_id: str
    sampled: bool = True
    state: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str] | None) -> TraceContext | None:
        """The span that headers name; None without a usable `traceparent`."""
        traceparent = wire.header(headers, wire.H_TRACEPARENT)
        return None if traceparent is None else _parsed(traceparent, wire.header(headers, wire.H_TRACESTATE))

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def headers(self) -> dict[str, str]:
        """The headers that name this span."""
        named = {wire.H_TRACEPARENT: self.traceparent}
        return named if self.state is None else named | {wire.H_TRACESTATE: self.state}

    def names_same(self, other: TraceContext) -> bool:
        """Whether both are the same span."""
        return (self.trace_id, self.span_id) == (other.trace_id, other.span_id)

    def child(self, span_id: str) -> TraceContext:
        """A span of the same trace, told to the same extent."""
        return TraceContext(self.trace_id, span_id, self.sampled, self.state)


@lru_cache(maxsize=1024)  # a run asks a dozen times for the same one
def _parsed(traceparent: str, tracestate: str | None) -> TraceContext | None:
    match = _TRACEPARENT.fullmatch(wire.usable_traceparent(traceparent) or "")
    if match is None:
        return None
    state = wire.trace_headers({wire.H_TRACEPARENT: traceparent, wire.H_TRACESTATE: tracestate or ""})
    return TraceContext(match[1], match[2], bool(int(match[3], 16) & 1), state.get(wire.H_TRACESTATE))


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    at: datetime
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. `parent` is in the same trace; `links` may be in others. `error` is None for a success."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    start: datetime
    end: datetime
    attributes: Mapping[str, Value] = field(default_factory=dict)
    links: tuple[TraceContext, ...] = ()
    events: tuple[SpanEvent, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of the spans of an exporter so far."""

    sent: int = 0
    dropped: int = 0


class Exporter(Protocol):
    """Takes finished spans somewhere else. None of its methods waits for anybody or raises."""

    def samples(self, trace_id: str, parent: TraceContext | None, name: str, kind: Kind) -> bool:
        """Whether spans of this trace are told from here on. Always the same answer for the same trace and parent."""
        ...

    def export(self, span: Span) -> None:
        """Take a finished span; it may be dropped."""
        ...

    @property
    def counted(self) -> Counted:
        """What became of them so far."""
        ...

    def around(self) -> TraceContext | None:
        """The span that the program around us is in, when it traces itself with OpenTelemetry."""
        ...


_exporter: Exporter | None = None


def use(exporter: Exporter | None) -> Exporter | None:
    """From here on spans of this process go there, or nowhere; returns where they went before."""
    global _exporter
    before, _exporter = _exporter, exporter
    return before


def exporter() -> Exporter | None:
    """Where spans go; None while tracing is off, and then nothing about them is to be worked out."""
    return _exporter


def counted() -> Counted:
    """What became of this process' spans so far; nothing while tracing is off."""
    return _exporter.counted if _exporter is not None else Counted()


def entered(parent: TraceContext | None, trace_id: str, span_id: str, name: str, kind: Kind) -> TraceContext:
    """A span where a trace comes in, or begins when there is no `parent`: the sampler decides whether it is told."""
    told, trace_id = _exporter, parent.trace_id if parent is not None else trace_id
    sampled = told is not None and told.samples(trace_id, parent, name, kind)
    return TraceContext(trace_id, span_id, sampled, parent.state if parent is not None else None)


def new_id(size_bytes: int) -> str:
    """An id that nothing has: 16 bytes for a trace, 8 for a span."""
    return os.urandom(size_bytes).hex()


def tell(spans: Callable[[], Iterable[Span]]) -> None:
    """Hand finished spans on. Never raises: a span that cannot be made is nobody's failure. `spans` is not even called
    while tracing is off."""
    if _exporter is None:
        return
    try:
        for span in spans():
            if span.context.sampled:
                _exporter.export(span)
    except Exception as error:  # whatever it is, what the span is about goes on
        import structlog

        structlog.get_logger(component="tracing").warning("span not told", error_message=str(error)[:300])
