"""From a message on EVENTS to an `Event`, or to the reason why it cannot be one. Pure.

Every rule about what comes from outside is checked here, before anything is stored under its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from invoker import wire
from invoker.claimcheck import claim_of
from invoker.errors import (
    HopLimitError,
    InvokerError,
    PayloadTooLargeError,
    RequestIdError,
    TopicError,
)
from invoker.request import Content, Event


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as the stream delivered it. `created` is the stream's creation time, `deliveries` counts from 1."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    stream: str
    created: str
    sequence: int
    stored_at: datetime
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Why a message is no event. `reply_to` is set only when an error may be sent there."""

    error: InvokerError
    request_id: str
    reply_to: str | None = None


def decode(incoming: Incoming, names: wire.Names, reply_subjects: Iterable[str]) -> Event | Undecodable:
    """The event in a message, or why there is none: an illegal topic, too large headers, a forbidden reply subject,
    a claim check that cannot be read, or more than 32 hops. The same message always gives the same answer."""
    request_id = wire.request_id_of(
        wire.header(incoming.headers, wire.H_MESSAGE_ID),
        stream=incoming.stream,
        created=incoming.created,
        sequence=incoming.sequence,
        stored_at=incoming.stored_at,
    )
    reply_to = wire.header(incoming.headers, wire.H_REPLY_TO) or None
    try:
        if reply_to is not None:
            wire.check_reply_subject(reply_to, reply_subjects)
    except InvokerError as error:
        return Undecodable(error, request_id)
    try:
        return _event(incoming, names, request_id, reply_to)
    except InvokerError as error:
        return Undecodable(error, request_id, reply_to)


def direct_function(incoming_subject: str, names: wire.Names) -> str | None:
    """The function that a message on a reserved topic calls, None for ordinary topics."""
    return names.function_of_direct_topic(names.topic_of(incoming_subject))


def _event(incoming: Incoming, names: wire.Names, request_id: str, reply_to: str | None) -> Event:
    topic = _topic(incoming, names)
    headers = wire.copied_headers(incoming.headers)
    size = wire.callers_header_bytes(headers)
    if size > wire.MAX_COPIED_HEADER_BYTES:
        raise PayloadTooLargeError(
            f"the headers take {size} bytes, at most {wire.MAX_COPIED_HEADER_BYTES} are allowed",
            limit_bytes=wire.MAX_COPIED_HEADER_BYTES,
        )
    message_id = wire.header(incoming.headers, wire.H_MESSAGE_ID)
    content_type = wire.header(headers, wire.H_CONTENT_TYPE)
    content, sha256 = _content(incoming, content_type)
    return Event(
        topic=topic,
        request_id=request_id,
        content=content,
        sha256=sha256,
        headers={key: value for key, value in headers.items() if not _ours(key)},
        received_at=incoming.stored_at,
        message_id=message_id if message_id and message_id != request_id else None,
        reply_to=reply_to,
        root_request_id=_token(headers, wire.H_ROOT_REQUEST_ID),
        parent_run_id=_token(headers, wire.H_PARENT_RUN_ID),
        hops=_hops(headers),
        replay_of=_token(headers, wire.H_REPLAY_OF),
        params=_params(headers),
    )


def _topic(incoming: Incoming, names: wire.Names) -> str:
    topic = wire.check_topic(names.topic_of(incoming.subject))
    function = names.function_of_direct_topic(topic)
    if function is not None:
        wire.check_function_name(function)
        # A replay of one run calls its function directly, and the function still sees the topic of the original.
        return wire.check_topic(wire.header(incoming.headers, wire.H_TOPIC) or topic)
    if names.is_reserved(topic):
        raise TopicError(f"topic {topic!r} is reserved: topics may not begin with {names.instance!r}")
    return topic


def _content(incoming: Incoming, content_type: str | None) -> tuple[Content, str]:
    claim = claim_of(dict(incoming.headers))
    if claim is not None:
        return Content.claimed(claim, content_type), claim.sha256
    return Content.inline(incoming.data, content_type), wire.sha256_hex(incoming.data)


def _hops(headers: Mapping[str, str]) -> int:
    text = wire.header(headers, wire.H_HOPS) or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise RequestIdError(f"the header {wire.H_HOPS} is not a number")
    if int(text) > wire.MAX_HOPS:
        raise HopLimitError(
            f"the chain has {text} hops, at most {wire.MAX_HOPS} are allowed: does a function publish to a topic that "
            "leads back to itself?",
            hops=int(text),
        )
    return int(text)


def _token(headers: Mapping[str, str], name: str) -> str | None:
    """An id in a header: it becomes part of documents and screens, so it must be a plain token."""
    value = wire.header(headers, name)
    if value is not None and not wire.is_plain_id(value):
        raise RequestIdError(f"the header {name} is not an id")
    return value


def _params(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = wire.H_PARAM_PREFIX.lower()
    return {key[len(prefix) :]: value for key, value in headers.items() if key.lower().startswith(prefix)}


def _ours(key: str) -> bool:
    return key.lower().startswith("invoker-")
