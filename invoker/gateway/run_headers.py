"""The headers of the run API, both ways: about an event that is handed in, and of an event that a function publishes.

Pure: no I/O, no clock, no environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from invoker import spans, wire
from invoker.errors import HopLimitError, ReservedHeaderError, RunApiRefusedError, TopicError
from invoker.publish import Lineage, OutgoingEvent
from invoker.request import RequestRecord
from invoker.runtime.headers import decode_headers, decode_text, encode_headers, encode_text

H_PARAMS = "Invoker-Params"
H_HEADERS = "Invoker-Headers"
H_EVENT_TIME = "Invoker-Event-Time"
H_SHA256 = "Invoker-Sha256"
MAX_POSITION = 10**9


def input_headers(record: RequestRecord, names: wire.Names) -> dict[str, str]:
    """The headers of `GET input`: everything about the event but its bytes."""
    topic = record.topic
    if names.function_of_direct_topic(topic) is not None:
        topic = wire.header(record.headers, wire.H_TOPIC) or topic
    headers = {
        wire.H_CONTENT_TYPE: _printable(record.body.content_type) or wire.CONTENT_TYPE_BYTES,
        "Content-Length": str(record.body.size_bytes),
        wire.H_TOPIC: encode_text(topic),
        wire.H_REQUEST_ID: record.request_id,
        H_PARAMS: json.dumps(record.params),
        H_HEADERS: encode_headers(record.headers),
        H_EVENT_TIME: record.received_at.isoformat(),
        wire.H_ROOT_REQUEST_ID: record.root_request_id,
        wire.H_HOPS: str(record.hops),
        H_SHA256: record.sha256,
    }
    if record.parent_run_id:
        headers[wire.H_PARENT_RUN_ID] = record.parent_run_id
    return headers


def _printable(content_type: str | None) -> str | None:
    """The content type if HTTP can carry it; one that is no ASCII names no type that anybody knows."""
    return content_type if content_type and content_type.isascii() and content_type.isprintable() else None


def outgoing_event(run_id: str, record: RequestRecord, headers: Mapping[str, str], names: wire.Names) -> OutgoingEvent:
    """The event that a function publishes, without its bytes.

    Its id comes from the run and the position, so an attempt that is repeated publishes the same events, not more.
    Raises `HopLimitError`, `TopicError`, `ReservedHeaderError` or `RunApiRefusedError`.
    """
    hops = record.hops + 1
    if hops > wire.MAX_HOPS:
        raise HopLimitError(
            f"the event would be {hops} stages away from request {record.root_request_id}, "
            f"at most {wire.MAX_HOPS} are allowed: does the chain loop?",
            limit=wire.MAX_HOPS,
        )
    try:
        topic = wire.check_topic(decode_text(headers.get(wire.H_TOPIC, "")))
        own = checked_headers(decode_headers(headers.get(H_HEADERS)))
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise TopicError(f"the header {wire.H_TOPIC} or {H_HEADERS} is not percent-encoded UTF-8") from error
    except ValueError as error:
        raise RunApiRefusedError(f"the header {H_HEADERS} {error}") from error
    if names.is_reserved(topic):
        raise TopicError(f"topic {topic[:80]!a} is reserved: topics may not begin with {names.instance!r}")
    position = number_in(headers.get(wire.H_POSITION), MAX_POSITION)
    if position is None:
        raise RunApiRefusedError(f"the header {wire.H_POSITION} must count this run's events from 0")
    for name, value in _trace(run_id, headers, record).items():
        if wire.header(own, name) is None:
            own[name] = value
    return OutgoingEvent(
        topic=topic,
        content_type=headers.get("content-type"),
        request_id=wire.chained_id(run_id, "published", position),
        headers=own,
        lineage=Lineage(root_request_id=record.root_request_id, parent_run_id=run_id, hops=hops),
    )


def _trace(run_id: str, headers: Mapping[str, str], record: RequestRecord) -> dict[str, str]:
    """The names of the call that all began with; the trace as the function goes on with it, else as it came."""
    carried = wire.trace_headers(spans.run_headers(record, run_id))
    own = wire.trace_headers(
        {name: headers[name] for name in (wire.H_TRACEPARENT, wire.H_TRACESTATE) if name in headers}
    )
    if wire.H_TRACEPARENT in own:
        carried.pop(wire.H_TRACESTATE, None)  # it belongs to the other traceparent
    return carried | own


def checked_headers(headers: dict[str, str]) -> dict[str, str]:
    """The headers if NATS can carry them and a function may choose them. Raises `ValueError` for a line break, which
    would begin another header, and `ReservedHeaderError` for what would say things that only Invoker knows: where
    replies go, what the event stems from, where its bytes are."""
    for name, value in headers.items():
        lowered = name.lower()
        if lowered.startswith(("invoker-", "nats-")) and not lowered.startswith(wire.H_PARAM_PREFIX.lower()):
            raise ReservedHeaderError(f"the header {name[:80]!a} is one of Invoker's own; a function cannot set it")
        if not name or not all("!" <= character <= "~" and character != ":" for character in name):
            raise ValueError(f"has the name {name[:80]!a}; names are printable ASCII without blanks and ':'")
        if any(ord(character) < 32 and character != "\t" for character in value) or "\x7f" in value:
            raise ValueError(f"has a control character in the value of {name[:80]}")
    return headers


def number_in(text: str | None, highest: int) -> int | None:
    """The number in a header, None without one or when it is none from 0 to `highest`."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return int(text) if int(text) <= highest else None
