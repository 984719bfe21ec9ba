"""Intake: every event of EVENTS is decoded, matched, accepted, and only then acked.

One durable consumer is shared by all controllers. Nothing is pulled before a catalog was loaded completely: an empty
catalog would record "no match" for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg

from invoker import spans, tracing, wire
from invoker.errors import (
    BackPressureError,
    ClaimCheckError,
    IdempotencyMismatchError,
    InvokerError,
    NoSubscriptionError,
    ServerUnreachableError,
)
from invoker.request import Event, RequestRecord
from invoker.result import Result
from trigger.accept import Accepted, Acceptor
from trigger.catalog import Catalog
from trigger.deadletter import DeadLetters
from trigger.decode import Incoming, Undecodable, decode, direct_function
from trigger.filter import EventAttributes
from trigger.jetstream import Acks, Pull, delivery_of
from trigger.metrics import Metrics
from trigger.moments import Moment, Moments
from trigger.reply import Replier, error_reply, no_subscription_problem

log = structlog.get_logger(component="intake")

IN_FLIGHT = 128
"""Events being accepted at once: bounds memory (128 × max_payload) and keeps the stream's round trips overlapped."""
BATCH = 64
RETRY_SECONDS = 1.0
MOST_DELIVERIES = 20
"""An event whose accepting raises something unforeseen is tried so often, then it is a dead letter."""


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """What intake must know of the settings, and of the stream it reads (name and creation time make ids)."""

    names: wire.Names
    reply_subjects: tuple[str, ...]
    stream: str
    created: str


class Intake:
    """The first step of the path. `run` is the loop, `take` one event."""

    def __init__(
        self,
        rules: IntakeRules,
        catalog: Callable[[], Catalog],
        acceptor: Acceptor,
        dead_letters: DeadLetters,
        replier: Replier,
        acks: Acks,
        metrics: Metrics,
        moments: Moments,
    ) -> None:
        self._rules = rules
        self._catalog = catalog
        self._acceptor = acceptor
        self._dead = dead_letters
        self._replier = replier
        self._acks = acks
        self._metrics = metrics
        self._moments = moments
        self._room = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, pull: Pull, tasks: asyncio.TaskGroup) -> None:
        """Take events until cancelled. Raises `ConsumerGoneError` when the consumer has to be made again."""
        async for message in pull.messages():
            await self._room.acquire()
            tasks.create_task(self._take_one(message))

    async def _take_one(self, message: Msg) -> None:
        try:
            await self.take(message)
        finally:
            self._room.release()

    async def take(self, message: Msg) -> None:
        """Bring one event to its end: accepted, or a dead letter, and acked; or given back to be tried again."""
        delivery = delivery_of(message)
        incoming = Incoming(
            subject=message.subject,
            data=message.data,
            headers=message.headers or {},
            stream=self._rules.stream,
            created=self._rules.created,
            sequence=delivery.sequence,
            stored_at=delivery.stored_at,
            deliveries=delivery.deliveries,
        )
        self._metrics.events_received.labels(self._rules.stream).inc()
        self._moments.reached(Moment.EVENT_STORED)
        try:
            await self._settle(incoming)
        except (BackPressureError, ServerUnreachableError) as error:
            log.warning("event given back", sequence=delivery.sequence, error_message=error.message)
            await self._give_back(delivery.ack_subject)
            return
        except Exception:
            # A bug must not stop everybody else's events: this one comes back, and the log says why.
            log.exception("event given back", sequence=delivery.sequence, deliveries=delivery.deliveries)
            if delivery.deliveries < MOST_DELIVERIES or not await self._give_up(incoming):
                await self._give_back(delivery.ack_subject)
                return
        await self._acks.done(delivery.ack_subject)
        self._moments.reached(Moment.EVENT_ACKED)

    async def _give_up(self, incoming: Incoming) -> bool:
        """Make a dead letter of an event that fails every time; False when not even that works now."""
        error = InvokerError(
            f"could not be accepted in {incoming.deliveries} deliveries; the controller's log says why"
        )
        try:
            await self._bury(
                incoming, error, wire.digest_id("given-up", incoming.created, str(incoming.sequence)), None
            )
        except Exception:
            log.exception("dead letter not stored", sequence=incoming.sequence)
            return False
        return True

    async def _settle(self, incoming: Incoming) -> None:
        decoded = decode(incoming, self._rules.names, self._rules.reply_subjects)
        if isinstance(decoded, Undecodable):
            await self._bury(incoming, decoded.error, decoded.request_id, decoded.reply_to)
            return
        # One snapshot for the whole event: its list of functions and its version belong together.
        catalog = self._catalog()
        functions = self._functions(incoming, decoded, catalog)
        if not functions and not catalog.complete and not await self._acceptor.knows(decoded.request_id):
            broken = ", ".join(broken.file for broken in catalog.broken if not broken.kept)
            error = NoSubscriptionError(
                f"no subscription matches {decoded.topic!r}, but functions cannot be loaded now: {broken}",
                hint="mend the function's file, then `invoker dead redrive`",
            )
            await self._bury(incoming, error, decoded.request_id, decoded.reply_to)
            return
        original, entry, entered = None, None, decoded
        if tracing.exporter() is not None:
            original = await self._acceptor.record(decoded.replay_of) if decoded.replay_of is not None else None
            entry = spans.entry_of(decoded, original)
            entered = replace(decoded, headers=spans.carried(decoded.headers, entry[0]))
        try:
            accepted = await self._acceptor.accept(
                entered, functions, catalog.version, now=datetime.now(UTC), repeated=incoming.deliveries > 1
            )
        except (IdempotencyMismatchError, ClaimCheckError) as error:
            await self._bury(incoming, error, decoded.request_id, decoded.reply_to)
            return
        if entry is not None:
            self._trace(entry, decoded, accepted.record, original, catalog)
        await self._tell(accepted, catalog)
        if decoded.reply_to is not None and not accepted.new and incoming.deliveries == 1:
            # Published a second time under the same id: whoever asks again is answered from what is stored.
            for result in accepted.finished:
                if not _forwarded(result, catalog):
                    await self._replier.answer(decoded.reply_to, result, accepted.record)

    def _functions(self, incoming: Incoming, event: Event, catalog: Catalog) -> tuple[str, ...]:
        direct = direct_function(incoming.subject, self._rules.names)
        if direct is not None:
            return (direct,) if direct in catalog.functions else ()
        return catalog.matcher.match(EventAttributes.of(event))

    def _trace(
        self, entry: spans.Contexts, event: Event, record: RequestRecord, original: RequestRecord | None,
        catalog: Catalog,
    ) -> None:  # fmt: skip
        """Tell of the acceptance, or that the same request was published once more. A new delivery of an event tells of
        its acceptance again, as the same span: whoever was killed may not have."""
        names = self._rules.names

        def told() -> list[tracing.Span]:
            if not entry[0].names_same(spans.request_context(record)):
                return [spans.repeat_span(entry, record, event, names, datetime.now(UTC))]
            found = catalog.matcher.explain(EventAttributes.of(event)) if record.functions else ()
            patterns = tuple(one.pattern for one in found if one.matched)
            return [spans.accept_span(record, entry[1], original, patterns, names)]

        tracing.tell(told)

    async def _tell(self, accepted: Accepted, catalog: Catalog) -> None:
        record = accepted.record
        line = log.bind(request_id=record.request_id, topic=record.topic, **spans.request_facts(record))
        if record.functions:
            for function in record.functions if accepted.new else ():
                self._metrics.of(function).accepted.inc()
            line.info("request accepted", functions=list(record.functions), repeated=not accepted.new)
            return
        if accepted.new:  # once for a request, however often its event is delivered or published again
            self._metrics.events_unmatched.inc()
        line.warning("request matched nothing")
        if record.reply_to is not None:
            error = no_subscription_problem(record, catalog.matcher.nearest(record.topic))
            await self._replier.send(record.reply_to, error_reply(error, record.request_id))

    async def _bury(self, incoming: Incoming, error: InvokerError, request_id: str, reply_to: str | None) -> None:
        dead_id = await self._dead.put(incoming, error, request_id, datetime.now(UTC))
        self._metrics.events_dead.labels(error.code).inc()
        line = log.bind(dead_id=dead_id, request_id=request_id, **wire.trace_facts(incoming.headers))
        line.warning("dead letter", reason=error.code, error_message=error.message)
        if reply_to is not None:
            await self._replier.send(reply_to, error_reply(error, request_id))

    async def _give_back(self, ack_subject: str) -> None:
        try:
            await self._acks.later(ack_subject, delay_seconds=RETRY_SECONDS)
        except InvokerError:
            return  # not told: the message comes back by itself after its ack wait


def _forwarded(result: Result, catalog: Catalog) -> bool:
    """Whether the caller's answer is a later stage's: this run handed its reply subject on. Pure."""
    function = catalog.functions.get(result.function)
    following = function.on_success if function is not None and result.succeeded else None
    return following is not None and following.forward_reply
