"""Publishing an event: the one place where a topic, bytes and headers become a message in EVENTS.

Used by the SDK, the run API, finish, the call services, replay and redrive, so that all events look alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.js.errors

from invoker import spans, tracing, wire
from invoker.claimcheck import ClaimStore
from invoker.connection import STORE_FULL, nats_errors
from invoker.errors import BackPressureError, InvokerError, PayloadTooLargeError, RequestIdError
from invoker.request import ClaimCheck, Content

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.js.client import JetStreamContext

DEFAULT_MAX_EVENT_BYTES = 1024**3
STORED, DUPLICATE = "stored", "duplicate"
"""How a publish ended, besides the codes of the errors that it raises."""
PUBLISH_OUTCOMES = (
    STORED, DUPLICATE, "claim-check", "internal", "invalid-request-id", "invalid-topic", "payload-too-large",
    "server-unreachable", "stream-full", "stream-mismatch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where an event comes from: the chain it belongs to, the run that caused it, how many stages before it."""

    root_request_id: str | None = None
    parent_run_id: str | None = None
    hops: int = 0
    replay_of: str | None = None

    def headers(self) -> dict[str, str]:
        given = {
            wire.H_ROOT_REQUEST_ID: self.root_request_id,
            wire.H_PARENT_RUN_ID: self.parent_run_id,
            wire.H_HOPS: str(self.hops) if self.hops else None,
            wire.H_REPLAY_OF: self.replay_of,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event to be published. `request_id` is the message id: publishing twice with the same one stores one event
    (within 2 minutes by the stream, later by the request record). `reply_to` is where results go."""

    topic: str
    data: bytes | Content | AsyncIterable[bytes] = b""
    content_type: str | None = None
    request_id: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    lineage: Lineage = Lineage()


@dataclass(frozen=True, slots=True)
class Published:
    """An acknowledged publish: never lost from here on. `duplicate` says that the stream knew the id already."""

    stream: str
    sequence: int
    duplicate: bool


class EventPublisher:
    """Publishes events of one instance; large bytes go behind a claim check by themselves."""

    def __init__(
        self,
        client: NatsClient,
        jetstream: JetStreamContext,
        claims: ClaimStore,
        names: wire.Names,
        *,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> None:
        self._client = client
        self._js = jetstream
        self._claims = claims
        self._names = names
        self.max_event_bytes = max_event_bytes
        self.on_outcome: Callable[[str], None] = lambda outcome: None
        """Told how each publish ended, one of `PUBLISH_OUTCOMES`."""

    async def publish(self, event: OutgoingEvent) -> Published:
        """When this returns the event is stored and will not be lost. Safe to repeat with the same request id.

        Raises `TopicError`, `RequestIdError` or `PayloadTooLargeError` (naming size and limit) before anything is
        sent, `BackPressureError` when the stream is full, `ServerUnreachableError` when there is no answer.
        """
        try:
            published = await self._publish(event)
        except InvokerError as error:
            self.on_outcome(error.code)
            raise
        self.on_outcome(DUPLICATE if published.duplicate else STORED)
        return published

    async def _publish(self, event: OutgoingEvent) -> Published:
        wire.check_topic(event.topic)
        return await (self._stored(event) if tracing.exporter() is None else self._traced(event))

    async def _traced(self, event: OutgoingEvent) -> Published:
        """Publish with a span of its own, which the event carries on."""
        start, error = datetime.now(UTC), "interrupted"
        contexts = spans.publish_context(event.headers, event.topic, event.lineage.parent_run_id, event.request_id)
        try:
            published = await self._stored(replace(event, headers=spans.carried(event.headers, contexts[0])))
            error = ""
            return published
        except Exception as failure:
            error = str(failure)[: spans.MAX_TEXT] or type(failure).__name__
            raise
        finally:
            tracing.tell(lambda: [self._span(event, contexts, start, error or None)])

    def _span(self, event: OutgoingEvent, contexts: spans.Contexts, start: datetime, error: str | None) -> tracing.Span:
        return spans.publish_span(
            contexts, topic=event.topic, subject=self._names.event(event.topic), request_id=event.request_id,
            body_bytes=_size(event.data), start=start, end=datetime.now(UTC), error=error,
        )  # fmt: skip

    async def _stored(self, event: OutgoingEvent) -> Published:
        if event.request_id is not None and not event.request_id.isprintable():
            raise RequestIdError("the request id has a control character")
        headers = self._headers(event)
        body = await self._body(event, headers)
        with nats_errors(f"publishing on {event.topic}"):
            try:
                ack = await self._js.publish(self._names.event(event.topic), body, headers=headers or None)
            except nats.js.errors.APIError as error:
                if error.code == 503:
                    raise _full(event.topic, error.err_code, error.description) from error
                raise
        return Published(stream=ack.stream, sequence=ack.seq, duplicate=bool(ack.duplicate))

    def claim_threshold(self) -> int:
        """Bytes above this travel by claim check: 512 KiB, less where the server's max_payload is small.

        Three quarters of the room there: a record and a dead letter hold them as base64.
        """
        room = (self._client.max_payload - wire.WIRE_MARGIN_BYTES) * 3 // 4
        return max(0, min(wire.CLAIM_THRESHOLD_BYTES, room))

    def _headers(self, event: OutgoingEvent) -> dict[str, str]:
        headers = wire.copied_headers(event.headers)
        headers |= {f"{wire.H_PARAM_PREFIX}{name}": value for name, value in event.params.items()}
        headers |= event.lineage.headers()
        if event.content_type:
            headers = {name: value for name, value in headers.items() if name.lower() != wire.H_CONTENT_TYPE.lower()}
            headers[wire.H_CONTENT_TYPE] = event.content_type
        if event.reply_to:
            headers[wire.H_REPLY_TO] = event.reply_to
        if event.request_id:
            headers[wire.H_MESSAGE_ID] = event.request_id
        size = wire.callers_header_bytes(headers)
        if size > wire.MAX_COPIED_HEADER_BYTES:
            raise PayloadTooLargeError(
                f"the headers take {size} bytes, at most {wire.MAX_COPIED_HEADER_BYTES} are allowed",
                limit_bytes=wire.MAX_COPIED_HEADER_BYTES,
            )
        return headers

    async def _body(self, event: OutgoingEvent, headers: dict[str, str]) -> bytes:
        data = event.data
        if isinstance(data, Content):
            inline = data.inline_bytes()
            if data.claim is not None:
                return _claimed(data.claim, headers)
            data = inline or b""
        if isinstance(data, bytes):
            self._check_size(len(data))
            if len(data) <= self.claim_threshold():
                return data
        claim = await self._claims.put(data, owner="event", limit_bytes=self.max_event_bytes)
        return _claimed(claim, headers)

    def _check_size(self, size: int) -> None:
        if size > self.max_event_bytes:
            raise PayloadTooLargeError(
                f"the event has {size} bytes, at most {self.max_event_bytes} are allowed (INVOKER_MAX_EVENT_BYTES)",
                limit_bytes=self.max_event_bytes,
            )


def _full(topic: str, code: int | None, description: str | None) -> BackPressureError:
    """The stream has reached its bound, or the server has no room for any stream. It does not tell a full disk from a
    store that has reached its own bound, so both are named."""
    if code in STORE_FULL:
        return BackPressureError(
            f"publishing on {topic}: at NATS its JetStream store, or the disk below it, is full ({description})",
            hint="nothing was stored; make room on that disk or raise max_file_store, then publish again",
        )
    return BackPressureError(
        f"publishing on {topic}: the events stream is full ({description})",
        hint="nothing was stored; publish again when the backlog is smaller",
    )


def _size(data: bytes | Content | AsyncIterable[bytes]) -> int | None:
    """The bytes of an event, None for a stream, whose end nobody has seen."""
    if isinstance(data, Content):
        return data.size_bytes
    return len(data) if isinstance(data, bytes) else None


def _claimed(claim: ClaimCheck, headers: dict[str, str]) -> bytes:
    document = claim.to_json()
    headers[wire.H_CLAIM] = document.decode()
    return document
