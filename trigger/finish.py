"""Finish: reply, next topic, wait for the end, ack, release. Every step may be repeated after a crash.

Why this order: the result is stored before anything is said about it, so a poller finds it before the reply arrives.
The reply and the next event come before the ack, since after the ack nobody would send them. The ack waits until the
engine says that nothing of the run lives: its slot would be free while it still works. And it says so for certain only
when it has answered a start that is under way. Release comes last: whatever the engine still keeps of the run is what
another controller would finish from.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import nats.js.errors
import structlog

from invoker import spans, tracing, wire
from invoker.claimcheck import ClaimStore
from invoker.connection import nats_errors
from invoker.errors import BackPressureError, ClaimCheckError, InvokerError, ServerUnreachableError
from invoker.publish import EventPublisher, Lineage, OutgoingEvent
from invoker.request import Content, RequestRecord
from invoker.result import Result, RunStatusDocument, State
from invoker.results.nats import ResultStream
from trigger.catalog import Catalog
from trigger.custody import Custody, HeldRun, Once
from trigger.engine import Engine
from trigger.function import NextTopic
from trigger.jetstream import Acks
from trigger.metrics import Metrics
from trigger.moments import Moment, Moments
from trigger.reply import Replier, error_reply

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

T = TypeVar("T")

log = structlog.get_logger(component="finish")

Bury = Callable[[OutgoingEvent, InvokerError, datetime], Awaitable[str]]
"""Makes a dead letter of an event that was refused for good."""

ANSWERED_GRACE_SECONDS = 30.0
"""A function that has answered may tidy up for so long before it is stopped."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0


class Finisher:
    """Finishes held runs whose result is stored."""

    def __init__(
        self,
        jetstream: JetStreamContext,
        names: wire.Names,
        custody: Custody,
        engine: Engine,
        results: ResultStream,
        claims: ClaimStore,
        publisher: EventPublisher,
        replier: Replier,
        acks: Acks,
        bury: Bury,
        catalog: Callable[[], Catalog],
        metrics: Metrics,
        moments: Moments,
    ) -> None:
        self._js = jetstream
        self._names = names
        self._custody = custody
        self._engine = engine
        self._results = results
        self._claims = claims
        self._publisher = publisher
        self._replier = replier
        self._acks = acks
        self._bury = bury
        self._catalog = catalog
        self._metrics = metrics
        self._moments = moments

    async def conclude(self, held: HeldRun, result: Result, record: RequestRecord | None = None) -> None:
        """Bring a run with a stored result to its end. At most one call per held run does anything.

        `record` spares reading the request's record when the caller has it.

        Transient trouble (NATS away, a full stream) is waited out: the run stays held meanwhile.
        """
        if held.concluding:
            return
        held.concluding = True
        line = log.bind(**held.ids())
        try:
            line = line.bind(**await self._conclude(held, result, record))
        except Exception:
            # A bug must not lose the run: given back, it is delivered again and found with its result.
            line.exception("finishing failed, the run is given back")
            await self.give_back(held, delay_seconds=5.0)
            return
        line.info("run finished", state=str(result.state), reason=str(result.reason), attempts=len(result.attempts))

    async def give_back(self, held: HeldRun, *, delay_seconds: float = 0.0) -> None:
        """Not held any more, and delivered again after the delay; without a connection, after its ack wait."""
        self._custody.drop(held)
        if held.ack_subject is None:
            return
        try:
            await self._acks.later(held.ack_subject, delay_seconds=delay_seconds)
        except InvokerError:
            return

    async def discard(self, ack_subject: str) -> None:
        """Take a message out of the queue that is no run at all; unconfirmed, it comes back and is discarded again."""
        await self._acks.done(ack_subject)

    async def _conclude(self, held: HeldRun, result: Result, record: RequestRecord | None) -> dict[str, str]:
        """Returns what a line of the log says about the run's trace."""
        starting = _start_under_way(held)
        if result.state is not State.SUCCEEDED and not held.ended.is_set():
            await self._engine.stop(held.run_id, str(result.reason))  # also keeps a start under way from beginning
        if record is None:
            record = await _until_done(held, lambda: self._results.record(result.request_id))
        if record is not None:
            await self._reply(held, result, record)
            await self._publish_next(held, result, record)
        await _until_done(held, lambda: self._publish_status(result))
        if starting is not None:
            await self._see_start_through(held, result, starting)
        await self._wait_for_end(held, result)
        await self._keep_log(held, result)
        if record is not None:
            # Before the ack: killed before it, the run comes back, and its span is told again as the same one.
            told = record
            tracing.tell(lambda: spans.run_spans(result, told, self._names))
        await self._acknowledge(held)
        self._moments.reached(Moment.RUN_ACKED)
        self._custody.drop(held)
        await self._engine.release(held.run_id)
        self._count(held, result)
        return spans.run_facts(record, result.run_id)

    async def _reply(self, held: HeldRun, result: Result, record: RequestRecord) -> None:
        reply_to, following = record.reply_to, self._next(held, result)
        if reply_to is None or (following is not None and following.forward_reply and result.succeeded):
            return
        try:
            await _until_done(held, lambda: self._replier.answer(reply_to, result, record))
        except InvokerError as error:
            # Nothing that may pass (that is waited out above): the caller hears why, and the run goes on to its end.
            log.error("the reply could not be made", **held.ids(), error_message=error.message)
            refusal = error_reply(error, result.request_id)
            await _until_done(held, lambda: self._replier.send(reply_to, refusal))
        delay = (datetime.now(UTC) - result.finished_at).total_seconds()
        self._metrics.of(result.function).reply_delay_seconds.observe(max(0.0, delay))
        self._moments.reached(Moment.REPLY_SENT)

    async def _publish_next(self, held: HeldRun, result: Result, record: RequestRecord) -> None:
        following = self._next(held, result)
        if following is None:
            return
        event = await self._next_event(held, following, result, record)
        try:
            await _until_done(held, lambda: self._publisher.publish(event))
        except InvokerError as error:
            # Nothing that may pass: a dead letter, since trying again would only send the reply again and again.
            refused_for_good = error
            log.error("the next event was refused", **held.ids(), topic=event.topic, error_message=error.message)
            await _until_done(held, lambda: self._bury(event, refused_for_good, datetime.now(UTC)))
            self._metrics.events_dead.labels(error.code).inc()
        self._moments.reached(Moment.NEXT_PUBLISHED)

    def _next(self, held: HeldRun, result: Result) -> NextTopic | None:
        # The version that ran, or after a restart the present one: the spec of a run that is over is not kept.
        function = held.function or self._catalog().functions.get(result.function)
        if function is None or result.state is State.CANCELLED:
            return None
        return function.on_success if result.succeeded else function.on_failure

    async def _next_event(
        self, held: HeldRun, following: NextTopic, result: Result, record: RequestRecord
    ) -> OutgoingEvent:
        if result.succeeded:
            data, content_type = await self._output(held, result), result.output.content_type
        else:
            data, content_type = Content.inline(_json(result)), wire.CONTENT_TYPE_JSON
        kind = "onSuccess" if result.succeeded else "onFailure"
        return OutgoingEvent(
            topic=following.publish,
            data=data,
            content_type=content_type,
            request_id=wire.chained_id(result.run_id, kind),
            reply_to=record.reply_to if following.forward_reply else None,
            headers={
                key: value
                for key, value in spans.run_headers(record, result.run_id).items()
                if key.lower() != "content-type"
            },
            lineage=Lineage(record.root_request_id, result.run_id, record.hops + 1),
        )

    async def _output(self, held: HeldRun, result: Result) -> Content:
        """The output for the next stage: inline while it fits into a message, since any NATS client can read that."""
        claim = result.output.claim
        if claim is None or claim.size_bytes > self._publisher.claim_threshold():
            return result.output
        try:
            data = await _until_done(held, lambda: self._claims.read(claim))
        except ClaimCheckError:
            return result.output  # removed by hand: the next stage's event becomes a dead letter that says so
        return Content.inline(data, result.output.content_type)

    async def _publish_status(self, result: Result) -> None:
        await self._results.put_status(
            RunStatusDocument(
                run_id=result.run_id,
                request_id=result.request_id,
                function=result.function,
                topic=result.topic,
                state=result.state,
                reason=result.reason,
                attempts=result.attempts,
                text=result.message,
                queued_at=result.queued_at,
                dispatched_at=result.dispatched_at,
                started_at=result.started_at,
                at=result.finished_at,
                engine=result.engine,
                job=result.job,
                spec_hash=result.spec_hash,
                catalog=result.catalog,
                root_request_id=result.root_request_id,
                parent_run_id=result.parent_run_id,
            )
        )

    async def _see_start_through(self, held: HeldRun, result: Result, starting: Once) -> None:
        """When this returns a start that was under way as the result came has its answer, and is undone if need be.

        Why before the end is waited for: asked while its Job is still being made, the engine says that nothing of the
        run is there. Acked and released on that word, the run would begin a moment later, and nobody would hold it.
        """
        await starting.wait()
        if not result.succeeded:
            held.ended = Once()  # what was said before the answer says nothing of what the answer brought
            await self._engine.stop(held.run_id, str(result.reason))

    async def _wait_for_end(self, held: HeldRun, result: Result) -> None:
        if held.ended.is_set():
            return
        if not held.started:
            # Not started here: whatever another controller left of it is ended, and then the engine says so.
            await self._engine.stop(held.run_id, str(result.reason))
        else:
            try:
                async with asyncio.timeout(ANSWERED_GRACE_SECONDS):
                    await held.ended.wait()
            except TimeoutError:
                await self._engine.stop(held.run_id, "answered, but did not end")
        await held.ended.wait()

    async def _keep_log(self, held: HeldRun, result: Result) -> None:
        """A result sealed by the function's own answer could not hold what was still being written then."""
        tail = held.status.end.log_tail if held.status and held.status.end else b""
        if tail and result.log_tail is None:
            await _until_done(held, lambda: self._claims.put_log(held.run_id, tail))

    async def _acknowledge(self, held: HeldRun) -> None:
        if held.ack_subject is not None:
            await self._acks.done(held.ack_subject)
            return
        with nats_errors("removing an expired run"):
            try:
                await self._js.delete_msg(self._names.runs_stream, held.sequence)
            except nats.js.errors.APIError:
                return  # gone already: another controller was faster

    def _count(self, held: HeldRun, result: Result) -> None:
        series = self._metrics.of(result.function)
        series.finished(result.state, result.reason)
        for attempt in result.attempts:
            series.attempt_ended(attempt.reason)
        if result.started_at is not None and held.started_at is not None:  # a run that was adopted began unseen
            series.start_seconds.observe(max(0.0, (result.started_at - held.started_at).total_seconds()))
        if result.started_at is not None:
            seconds = (result.finished_at - result.started_at).total_seconds()
            series.duration_seconds.observe(max(0.0, seconds))


def _start_under_way(held: HeldRun) -> Once | None:
    """What is set once the engine has answered a start that it was asked for and has not answered yet. Pure."""
    answered = held.start_answered
    return None if answered is None or answered.is_set() else answered


async def _until_done(held: HeldRun, step: Callable[[], Awaitable[T]]) -> T:
    """The step's value, however often it takes: transient trouble is waited out with growing pauses."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await step()
        except (BackPressureError, ServerUnreachableError) as error:
            log.warning("waiting to finish a run", **held.ids(), error_message=error.message, pause_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


def _json(result: Result) -> bytes:
    return json.dumps(result.problem() | {"topic": result.topic}, ensure_ascii=False, default=str).encode()
