"""Sending events and waiting for what becomes of them: publish, request, call, replay.

A publish with an id that was used before is compared with what is stored under it; a request never waits for a reply
that was lost, because the stored results say the same.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from invoker import tracing, wire
from invoker.chains import ChainFollower
from invoker.claimcheck import ClaimStore, claim_of
from invoker.connection import nats_errors
from invoker.errors import (
    IdempotencyMismatchError,
    InvokerError,
    NoSubscriptionError,
    ReplySubjectError,
    RequestIdError,
    ServerUnreachableError,
    TopicError,
    WaitExpiredError,
)
from invoker.payload import Payload, check_headers, encoded, settled
from invoker.publish import DUPLICATE, EventPublisher, Lineage, OutgoingEvent
from invoker.reading import StreamReader
from invoker.replies import Replies, Reply, reply_of_result
from invoker.request import Content, RequestRecord
from invoker.result import Result
from invoker.results.nats import ResultStream
from invoker.unaccepted import UnacceptedEvents
from invoker.views import DeadLetter, Receipt

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.aio.msg import Msg


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event as the caller gave it; what is None is filled in."""

    topic: str
    data: Payload | Content = b""
    content_type: str | None = None
    headers: Mapping[str, str] | None = None
    params: Mapping[str, Any] | None = None
    request_id: str | None = None
    reply_to: str | None = None
    lineage: Lineage = field(default_factory=Lineage)
    is_new: bool = False
    """The id was made for this event (`new_request_id`): nothing of it can be there yet, so nobody is asked."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What makes two events with one id the same request."""

    topic: str
    sha256: str
    content_type: str | None
    params: Mapping[str, str]
    """Their names in lower case: they travel as headers."""
    function: str | None = None
    """The one function that is called, whatever the topic; None of an event that runs what listens to it."""

    def difference(self, other: _Identity) -> str:
        """What makes it another one, in words."""
        if self.topic != other.topic:
            return "topic"
        if self.function != other.function:
            return "function"
        if self.sha256 != other.sha256:
            return "body"
        return "content type" if self.content_type != other.content_type else "set of parameters"


class Requester:
    """Publishes events of one connection and collects their replies."""

    def __init__(
        self,
        client: NatsClient,
        publisher: EventPublisher,
        claims: ClaimStore,
        results: ResultStream,
        reader: StreamReader,
        chains: ChainFollower,
        unaccepted: UnacceptedEvents,
        names: wire.Names,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._claims = claims
        self._results = results
        self._reader = reader
        self._chains = chains
        self._unaccepted = unaccepted
        self._names = names
        self._inboxes: set[asyncio.Queue[Msg | None]] = set()

    async def publish(self, event: Outgoing) -> Receipt:
        """When this returns the event is stored; see `Client.publish`."""
        self._check(event)
        data, content_type = await self._body(event)
        request_id = wire.canonical_id(event.request_id) if event.request_id else new_request_id()
        params = header_params(event.params)
        identity = _Identity(
            self._seen_topic(event.topic, event.headers),
            _sha256(data),
            _seen_type(content_type or wire.header(event.headers, wire.H_CONTENT_TYPE)),
            _seen_params(params),
            self._names.function_of_direct_topic(event.topic),
        )
        asked = event.request_id is not None and not event.is_new
        if asked and await self._is_known(request_id, identity):
            self._publisher.on_outcome(DUPLICATE)
            return Receipt(request_id, event.topic, self._names.events_stream, 0, duplicate=True)
        outgoing = OutgoingEvent(
            topic=event.topic,
            data=data,
            content_type=content_type,
            request_id=event.request_id or request_id,
            reply_to=event.reply_to,
            headers=event.headers or {},
            params=params,
            lineage=event.lineage,
        )
        try:
            published = await self._publisher.publish(outgoing)
            if published.duplicate:
                await self._is_known(request_id, identity, published.sequence)
        except ServerUnreachableError as error:
            # Nobody knows whether the event is stored: sent again with this id, it is there once.
            error.fields.setdefault("request_id", outgoing.request_id)
            raise
        return Receipt(request_id, event.topic, published.stream, published.sequence, published.duplicate)

    async def request(self, event: Outgoing, timeout: float) -> list[Reply]:
        """Publish, then wait for as many replies as there are runs; see `Client.request`."""
        async with self._inbox() as (subject, queue):
            receipt = await self.publish(replace(event, reply_to=subject))
            try:
                return await self._collect(queue, receipt, timeout)
            except (NoSubscriptionError, WaitExpiredError):
                raise
            except InvokerError as error:
                raise _cut_short(receipt, error) from error

    def interrupted(self) -> None:
        """The connection was made anew: replies may have gone by, so the stored results are looked at."""
        for queue in self._inboxes:
            queue.put_nowait(None)

    @asynccontextmanager
    async def _inbox(self) -> AsyncIterator[tuple[str, asyncio.Queue[Msg | None]]]:
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()
        subject = self._client.new_inbox()

        async def arrived(message: Msg) -> None:
            queue.put_nowait(message)

        with nats_errors("waiting for replies"):
            subscription = await self._client.subscribe(subject, cb=arrived)
        self._inboxes.add(queue)
        try:
            yield subject, queue
        finally:
            self._inboxes.discard(queue)
            if not self._client.is_closed:
                await asyncio.shield(subscription.unsubscribe())

    async def _collect(self, queue: asyncio.Queue[Msg | None], receipt: Receipt, timeout: float) -> list[Reply]:
        replies = Replies(receipt.request_id)
        try:
            async with asyncio.timeout(timeout):
                if receipt.duplicate:
                    return await self._stored_at_last(receipt.request_id)
                while not replies.complete:
                    message = await queue.get()
                    if message is not None:
                        replies.add(message.data, message.headers or {}, self._claims)
                        await self._learn_expected(replies)
                    elif stored := await self._stored(receipt.request_id):
                        return stored
        except TimeoutError:
            stored = await self._stored(receipt.request_id)
            if stored is None:
                raise _expired(receipt, timeout, replies) from None
            return stored
        return replies.list

    async def _learn_expected(self, replies: Replies) -> None:
        """A forwarded reply may come first, and does not say how many runs our own request has."""
        if replies.expected is None:
            record = await self._results.record(replies.request_id)
            if record is not None:
                replies.announced[replies.request_id] = len(record.functions)

    async def _stored_at_last(self, request_id: str) -> list[Reply]:
        """What the first request's caller was or will be answered, from what is stored."""
        async with aclosing(self._chains.follow(request_id)) as changes:
            async for chain in changes:
                stored = await self._stored(request_id)
                if stored is not None or chain.settled:
                    return stored or []
        return []

    async def _stored(self, request_id: str) -> list[Reply] | None:
        """The replies that the stored results stand for, None while there are not all of them."""
        answers = await self._results.answers(request_id)
        if answers.record is None:
            return None
        if not answers.record.functions:
            raise no_match(answers.record)
        if not answers.complete:
            return None
        found = await asyncio.gather(*(self._replies_of(result) for result in answers.results.values()))
        parts = [part for part in found if part is not None]
        return [reply for part in parts for reply in part] if len(parts) == len(found) else None

    async def _replies_of(self, result: Result) -> list[Reply] | None:
        """The reply of one finished run, or the ones of the request it handed its reply on to; None: not yet sure."""
        if result.succeeded:
            # Asked in this order: the next event is stored before the run leaves its queue, its record before it leaves
            # its own.
            if await self._results.ticket(result.run_id, result.function) is not None:
                return None
            next_id = wire.chained_id(result.run_id, "onSuccess")
            if await self._unaccepted.queued_topic(next_id) is not None:
                return None
            following = await self._results.record(next_id)
            if following is not None and following.reply_to is not None:
                return await self._stored(following.request_id)
        return [reply_of_result(result, self._claims)]

    def _check(self, event: Outgoing) -> None:
        wire.check_topic(event.topic)
        if self._names.is_reserved(event.topic):
            function = self._names.function_of_direct_topic(event.topic)
            if function is None:
                raise TopicError(
                    f"topic {event.topic!r} is reserved: topics may not begin with {self._names.instance!r}"
                )
            wire.check_function_name(function)
        if event.request_id is not None:
            check_request_id(event.request_id)
        if event.reply_to is not None:
            self._check_reply_to(event.reply_to)
        check_headers(event.headers or {})
        check_headers({f"{wire.H_PARAM_PREFIX}{name}": value for name, value in header_params(event.params).items()})
        if event.content_type is not None:
            check_headers({wire.H_CONTENT_TYPE: event.content_type})

    def _check_reply_to(self, subject: str) -> None:
        """What no controller can allow; which of the others are allowed is its setting."""
        wire.check_reply_subject(subject, (">",))
        own = (f"{self._names.instance}.", f"{self._names.topic_prefix}.", "$")
        if subject.startswith(own):
            raise ReplySubjectError(f"reply subject {subject!r} belongs to Invoker or to the NATS server itself")

    async def _body(self, event: Outgoing) -> tuple[bytes | Content, str | None]:
        if isinstance(event.data, Content):
            return event.data, event.content_type or event.data.content_type
        given, content_type = encoded(event.data, event.content_type or wire.header(event.headers, wire.H_CONTENT_TYPE))
        data = await settled(given, self._publisher.claim_threshold())
        return await self._stored_body(data, content_type), content_type

    async def _stored_body(self, data: bytes | AsyncIterable[bytes], content_type: str | None) -> bytes | Content:
        if isinstance(data, bytes):
            return data
        # Stored here and not by the publisher, because the sha256 of a stream is known only afterwards.
        claim = await self._claims.put(data, owner="event", limit_bytes=self._publisher.max_event_bytes)
        return Content.claimed(claim, content_type)

    def _seen_topic(self, topic: str, headers: Mapping[str, str] | None) -> str:
        """The topic that the record will have: a direct call may carry the topic of the original."""
        if self._names.function_of_direct_topic(topic) is None:
            return topic
        return wire.header(headers, wire.H_TOPIC) or topic

    async def _is_known(self, request_id: str, identity: _Identity, sequence: int = 0) -> bool:
        """Whether the request exists. Raises `IdempotencyMismatchError` when it is not the same in what counts."""
        known = await self._identity(request_id, sequence, identity.function)
        if known is None:
            return False
        if known != identity:
            raise IdempotencyMismatchError(
                f"request {request_id} exists with another {known.difference(identity)}; the first one stands",
                hint="give another request id, or none",
                request_id=request_id,
                topic=known.topic,
            )
        return True

    async def _identity(self, request_id: str, sequence: int, function: str | None) -> _Identity | None:
        """What is stored under the id. A record does not say whether its function was called or listened: when it could
        be a call of `function`, it is taken for one."""
        record = await self._results.record(request_id)
        if record is None and sequence:
            message = await self._reader.at(self._names.events_stream, sequence)
            if message is not None:
                claim = claim_of(dict(message.headers))
                topic = self._seen_topic(self._names.topic_of(message.subject), message.headers)
                sha256 = claim.sha256 if claim else wire.sha256_hex(message.data)
                kind = _seen_type(wire.header(message.headers, wire.H_CONTENT_TYPE))
                params, called = _seen_params(params_in(message.headers)), self._called(message.subject)
                return _Identity(topic, sha256, kind, params, called)
            # Gone from EVENTS: it was accepted between the two reads (or is a dead letter).
            record = await self._results.record(request_id)
        if record is None:
            return None
        called = function if record.functions in ((), (function,)) else None
        kind, params = _seen_type(record.body.content_type), _seen_params(record.params)
        return _Identity(record.topic, record.sha256, kind, params, called)

    def _called(self, subject: str) -> str | None:
        return self._names.function_of_direct_topic(self._names.topic_of(subject))


def _seen_type(content_type: str | None) -> str | None:
    return (content_type or "").strip() or None


def _seen_params(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters as they are after a way through headers, which have no blanks around and no case."""
    return {name.lower(): value.strip() for name, value in params.items()}


def params_in(headers: Mapping[str, str]) -> dict[str, str]:
    """The parameters that a message's headers hold."""
    prefix = wire.H_PARAM_PREFIX.lower()
    return {name[len(prefix) :]: value for name, value in headers.items() if name.lower().startswith(prefix)}


def check_request_id(request_id: str) -> None:
    """Raise `RequestIdError` for an id that would change on its way: empty, control characters, outer spaces."""
    if not request_id or not request_id.isprintable() or request_id != request_id.strip():
        raise RequestIdError(
            f"request id {request_id[:80]!a} must be printable text without spaces at its ends",
            hint="leave it out and one is made",
        )


def no_match(record: RequestRecord) -> NoSubscriptionError:
    return NoSubscriptionError(
        f"no subscription matches the topic {record.topic!r}",
        hint=f"invoker explain {record.topic}",
        request_id=record.request_id,
    )


def replayed(record: RequestRecord, original: str) -> tuple[dict[str, str], Lineage]:
    """Headers and lineage of a replay: the user's own headers, and the name of the original."""
    own = {name: value for name, value in record.headers.items() if not name.lower().startswith("invoker-")}
    if tracing.exporter() is not None:  # a trace of its own, linked to the original's when it is accepted
        named = (wire.H_TRACEPARENT, wire.H_TRACESTATE)
        own = {name: value for name, value in own.items() if name.lower() not in named}
    return own, Lineage(replay_of=original)


def renewed(stored: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Stored headers, with the given ones instead of those of the same name; another trace has its own state."""
    names = {name.lower() for name in given or {}}
    if wire.H_TRACEPARENT in names:
        names.add(wire.H_TRACESTATE)
    return {name: value for name, value in stored.items() if name.lower() not in names} | dict(given or {})


def redriven(
    letter: DeadLetter,
    data: Any,
    content_type: str | None,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> Outgoing:
    """A dead letter's event with other bytes: its topic, its user's headers and parameters, and its original's name."""
    own = {name: value for name, value in letter.headers.items() if not name.lower().startswith("invoker-")}
    own = renewed(own, headers)
    return Outgoing(
        topic=letter.topic,
        data=data,
        content_type=content_type or letter.body.content_type,
        headers={name: value for name, value in own.items() if name.lower() != wire.H_CONTENT_TYPE.lower()},
        params=params_in(letter.headers),
        request_id=request_id,
        lineage=Lineage(replay_of=letter.request_id),
    )


def _expired(receipt: Receipt, timeout: float, replies: Replies) -> WaitExpiredError:
    came = f"{len(replies.by_run)} of {replies.expected} replies" if replies.expected else "no reply"
    error = WaitExpiredError(
        f"{came} within {timeout:g} s for request {receipt.request_id}; its runs go on",
        hint=f"invoker result {receipt.request_id} --wait 60",
        request_id=receipt.request_id,
    )
    error.partial = replies.list
    return error


def _cut_short(receipt: Receipt, error: InvokerError) -> WaitExpiredError:
    """The event is stored, whatever went wrong afterwards: an error that says less would have it sent twice."""
    expired = WaitExpiredError(
        f"request {receipt.request_id} is stored and its runs go on, but waiting for them ended: {error.message}",
        hint=f"invoker result {receipt.request_id} --wait 60",
        request_id=receipt.request_id,
    )
    expired.partial = []
    return expired


def header_params(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Parameters as header values: text as it is, everything else as JSON (`true`, `3`, `[1,2]`)."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in (params or {}).items()}


def _sha256(data: bytes | Content) -> str:
    if isinstance(data, bytes):
        return wire.sha256_hex(data)
    return data.claim.sha256 if data.claim else wire.sha256_hex(data.inline_bytes() or b"")


def new_request_id() -> str:
    """A request id of now: sorts by time."""
    return wire.new_request_id(datetime.now(UTC), os.urandom(10))
