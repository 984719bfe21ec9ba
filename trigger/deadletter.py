"""Dead letters: events that could not become runs, each with its reason, kept 30 days, ready to be sent again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import nats.js.errors
from pydantic import AwareDatetime, Field

from invoker import spans, tracing, wire
from invoker.claimcheck import ClaimStore, claim_of
from invoker.connection import nats_errors
from invoker.errors import ClaimCheckError, InvokerError, UnknownIdError
from invoker.publish import EventPublisher, Lineage, OutgoingEvent
from invoker.request import Content, Document
from trigger.decode import Incoming

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext


class DeadLetter(Document):
    """What is kept of an event that became no runs; `reason` is an error code of `docs/errors.md`."""

    version: int = 1
    id: str
    reason: str
    message: str
    topic: str
    subject: str
    stream: str
    sequence: int
    dead_at: AwareDatetime
    request_id: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: Content = Content()


class DeadLetters:
    """Writes dead letters and sends them again."""

    def __init__(
        self, jetstream: JetStreamContext, claims: ClaimStore, publisher: EventPublisher, names: wire.Names
    ) -> None:
        self._js = jetstream
        self._claims = claims
        self._publisher = publisher
        self._names = names

    async def put(self, incoming: Incoming, error: InvokerError, request_id: str, now: datetime) -> str:
        """When this returns the letter is stored; its id derives from the message, so a repeat is the same letter."""
        dead_id = wire.digest_id("dead", incoming.stream, incoming.created, str(incoming.sequence))
        letter = DeadLetter(
            id=dead_id,
            reason=error.code,
            message=error.message,
            topic=_readable(self._names.topic_of(incoming.subject)),
            subject=_readable(incoming.subject),
            stream=incoming.stream,
            sequence=incoming.sequence,
            dead_at=now,
            request_id=request_id,
            headers=_bounded(wire.copied_headers(incoming.headers)),
            body=await self._body(incoming),
        )
        headers = {wire.H_MESSAGE_ID: dead_id, wire.H_REASON: error.code, wire.H_REQUEST_ID: request_id}
        with nats_errors("storing a dead letter"):
            await self._js.publish(self._names.dead(dead_id), letter.to_json(), headers=headers)
        _tell(letter, incoming.stored_at)
        return dead_id

    async def put_event(self, event: OutgoingEvent, error: InvokerError, now: datetime) -> str:
        """When this returns the letter of an event that could not be published is stored: a stage's next one."""
        dead_id = wire.digest_id("dead-event", event.request_id or "")
        data = event.data
        letter = DeadLetter(
            id=dead_id,
            reason=error.code,
            message=error.message,
            topic=event.topic,
            subject=self._names.event(event.topic),
            stream=self._names.events_stream,
            sequence=0,
            dead_at=now,
            request_id=event.request_id,
            headers=_bounded(dict(event.headers)),
            body=data if isinstance(data, Content) else Content(),
        )
        headers = {wire.H_MESSAGE_ID: dead_id, wire.H_REASON: error.code}
        with nats_errors("storing a dead letter"):
            await self._js.publish(self._names.dead(dead_id), letter.to_json(), headers=headers)
        _tell(letter, now)
        return dead_id

    async def get(self, dead_id: str) -> DeadLetter:
        """The letter of that id; raises `UnknownIdError`."""
        with nats_errors("reading a dead letter"):
            try:
                message = await self._js.get_msg(self._names.dead_stream, subject=self._names.dead(dead_id))
            except nats.js.errors.NotFoundError as error:
                raise UnknownIdError(f"no dead letter {dead_id}", hint="invoker dead list") from error
        return DeadLetter.model_validate_json(message.data or b"{}")

    async def redrive(self, dead_id: str) -> str:
        """Publish the letter's event again as a new request that names the original; returns the new request id.

        The id derives from the letter, so pressing the button twice makes one request. Raises `TopicError` when the
        event's topic is what was wrong with it.
        """
        letter = await self.get(dead_id)
        params = {
            key[len(wire.H_PARAM_PREFIX) :]: value
            for key, value in letter.headers.items()
            if key.lower().startswith(wire.H_PARAM_PREFIX.lower())
        }
        user_headers = {key: value for key, value in letter.headers.items() if not key.lower().startswith("invoker-")}
        request_id = wire.digest_id("redrive", dead_id)
        await self._publisher.publish(
            OutgoingEvent(
                topic=letter.topic,
                data=letter.body,
                content_type=letter.body.content_type,
                request_id=request_id,
                headers=user_headers,
                params=params,
                lineage=Lineage(replay_of=letter.request_id),
            )
        )
        return request_id

    async def _body(self, incoming: Incoming) -> Content:
        content_type = wire.header(incoming.headers, wire.H_CONTENT_TYPE)
        try:
            claim = claim_of(dict(incoming.headers))
        except ClaimCheckError:
            claim = None
        if claim is not None:
            return Content.claimed(claim, content_type)
        if len(incoming.data) > self._publisher.claim_threshold():
            return Content.claimed(await self._claims.put(incoming.data, owner="dead"), content_type)
        return Content.inline(incoming.data, content_type)


def _tell(letter: DeadLetter, since: datetime) -> None:
    """The letter's span, from the moment its event was stored."""
    tracing.tell(
        lambda: [
            spans.dead_span(
                letter.headers, dead_id=letter.id, reason=letter.reason, message=letter.message, topic=letter.topic,
                subject=letter.subject, request_id=letter.request_id, start=since, end=letter.dead_at,
            )
        ]
    )  # fmt: skip


def _readable(subject: str) -> str:
    """The subject as text that any reader can decode: bytes that are no UTF-8 become `\\xff`."""
    return subject.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _bounded(headers: dict[str, str]) -> dict[str, str]:
    """The headers up to the limit that any event has: a dead letter must fit into a message itself."""
    kept: dict[str, str] = {}
    for key, value in headers.items():
        if wire.header_bytes(kept | {key: value}) > wire.MAX_COPIED_HEADER_BYTES:
            break
        kept[key] = value
    return kept
