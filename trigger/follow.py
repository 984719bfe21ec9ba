"""Follow: what RESULTS and the engine say about held runs. Two loops, both of levels: what is missed is asked again.

A result may come from the run API, from `cancel`, from another controller; an end comes from the engine. Whichever is
seen first leads to the same look-up of the stored result, and only an ended run without one gets a verdict here.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import api

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import BackPressureError, InvokerError, ServerUnreachableError
from invoker.request import RequestRecord
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.results.nats import ResultStream
from trigger.custody import Custody, HeldRun
from trigger.engine import Engine, Phase, RunStatus
from trigger.finish import Finisher
from trigger.function import Function
from trigger.moments import Moment, Moments
from trigger.seal import Sealer
from trigger.verdict import Verdict, judge, known_attempts

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.js.client import JetStreamContext

log = structlog.get_logger(component="follow")

HEARTBEAT_SECONDS = 2.0
RETRY_SECONDS = 0.5


class Follower:
    """Sees ends and results of held runs, and hands them to the finisher."""

    def __init__(
        self,
        client: NatsClient,
        jetstream: JetStreamContext,
        names: wire.Names,
        custody: Custody,
        engine: Engine,
        results: ResultStream,
        sealer: Sealer,
        finisher: Finisher,
        moments: Moments,
    ) -> None:
        self._client = client
        self._js = jetstream
        self._names = names
        self._custody = custody
        self._engine = engine
        self._results = results
        self._sealer = sealer
        self._finisher = finisher
        self._moments = moments

    async def follow_results(self, tasks: asyncio.TaskGroup) -> None:
        """Hear of every stored result, live, until cancelled. After each break all held runs are looked up."""
        while True:
            try:
                await self._hear(tasks)
            except (InvokerError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.warning("following results again", error_message=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def follow_engine(self, tasks: asyncio.TaskGroup) -> None:
        """Hear every level of the engine until cancelled."""
        async for status in self._engine.watch():
            held = self._custody.observe(status)
            if held is None:
                continue
            if status.phase is Phase.ENDED:
                if not held.concluding:
                    tasks.create_task(self.settle(held))
            elif status.phase is Phase.RUNNING:
                tasks.create_task(self._tell(held, status))

    def sealed(self, result: Result, record: RequestRecord, tasks: asyncio.TaskGroup) -> None:
        """A result was stored by this process: conclude its run without reading it again, if it is held here.

        Only a short cut: the notice from the stream comes as well, and finds the run concluding already.
        """
        held = self._custody.get(result.run_id)
        if held is not None and not held.concluding:
            self._moments.reached(Moment.OUTPUT_STORED)
            tasks.create_task(self._finisher.conclude(held, result, record))

    async def settle(self, held: HeldRun) -> None:
        """Conclude a held run if it has a result, or if its engine side has ended: then it gets one here.

        One at a time for a run, since notices and look-ups tell of the same end: two would each store its output. What
        is told meanwhile is looked at afterwards.
        """
        if held.settling:
            held.told_again = True
            return
        held.settling = True
        try:
            await self._settle_until_quiet(held)
        finally:
            held.settling = False

    async def _settle_until_quiet(self, held: HeldRun) -> None:
        while not held.concluding:
            held.told_again = False
            try:
                await self._settle(held)
            except (BackPressureError, ServerUnreachableError) as error:
                log.warning("waiting to settle a run", **held.ids(), error_message=error.message)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception:
                # A bug must not stop other runs: this one stays held, and the next look-up tries again.
                log.exception("a run could not be settled", **held.ids())
            if not held.told_again:
                return

    async def _settle(self, held: HeldRun) -> None:
        result = await self._results.result(held.ticket.request_id, held.ticket.function)
        if result is None and held.status is not None and held.status.phase is Phase.ENDED:
            result = await self._verdict(held, held.status)
        if result is None:
            return
        if result.succeeded:
            self._moments.reached(Moment.OUTPUT_STORED)
        await self._finisher.conclude(held, result)

    async def settle_all(self, tasks: asyncio.TaskGroup) -> None:
        """Look up every started run once: whatever was missed is found here.

        Looked up by the hundred, since ten thousand may be held; finished beside each other: a function that lingers
        after its answer delays no other.
        """
        started = [held for held in self._custody.all() if held.started and not held.concluding]
        sealed = await self._results.sealed([_key(held) for held in started])
        for held in started:
            if not held.concluding and (_has_ended(held) or _key(held) in sealed):
                tasks.create_task(self.settle(held))

    async def _verdict(self, held: HeldRun, status: RunStatus) -> Result:
        record = await self._results.record(held.ticket.request_id)
        verdict, output = judge(status, held.facts)
        if held.function is not None and output is not None:
            verdict, output = checked_output(held.function, verdict, output)
        return await self._sealer.seal(held.ticket, record, verdict, facts=held.facts, status=status, output=output)

    async def _tell(self, held: HeldRun, status: RunStatus) -> None:
        """Publish the news that an attempt runs; lossy, so trouble is not waited out."""
        try:
            record = await self._results.record(held.ticket.request_id)
            if record is not None and not held.concluding:
                await self._results.put_status(running_status(held, status, record))
        except Exception as error:  # lossy by promise: whatever it is, it is only news
            log.debug("status not told", **held.ids(), error_message=str(error))

    async def _hear(self, tasks: asyncio.TaskGroup) -> None:
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            with nats_errors("following results"):
                await self._js.add_consumer(self._names.results_stream, self._consumer(inbox))
            # After, not before: a result stored in between is heard, one stored earlier is looked up.
            await self.settle_all(tasks)
            while True:
                async with asyncio.timeout(3 * HEARTBEAT_SECONDS):
                    message = await subscription.next_msg(timeout=None)
                if message.reply.startswith("$JS.ACK"):
                    self._notice(message, tasks)
        except TimeoutError as error:
            raise ServerUnreachableError("no sign of life from the results consumer") from error
        finally:
            if not self._client.is_closed:
                await asyncio.shield(subscription.unsubscribe())

    def _consumer(self, inbox: str) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=api.DeliverPolicy.NEW,
            ack_policy=api.AckPolicy.NONE,
            filter_subject=self._names.result("*", "*"),
            headers_only=True,
            idle_heartbeat=HEARTBEAT_SECONDS,
            inactive_threshold=30.0,
            mem_storage=True,
            num_replicas=1,
        )

    def _notice(self, message: Msg, tasks: asyncio.TaskGroup) -> None:
        held = self._custody.get(wire.header(message.headers, wire.H_RUN_ID) or "")
        if held is not None and not held.concluding:
            tasks.create_task(self.settle(held))


def _key(held: HeldRun) -> tuple[str, str]:
    return held.ticket.request_id, held.ticket.function


def _has_ended(held: HeldRun) -> bool:
    return held.status is not None and held.status.phase is Phase.ENDED


def checked_output(function: Function, verdict: Verdict, output: bytes) -> tuple[Verdict, bytes | None]:
    """The verdict on an output that the engine collected, after the function's schema has seen it. Pure."""
    content_type = wire.CONTENT_TYPE_JSON if function.output.schema is not None else None
    problems = function.check_output(output, content_type) if function.output.schema is not None else []
    if problems:
        message = f"the output does not fit the schema of {function.name}"
        return Verdict(Reason.INVALID_OUTPUT, message, tuple(problems)), None
    return replace(verdict, content_type=content_type), output


def running_status(held: HeldRun, status: RunStatus, record: RequestRecord) -> RunStatusDocument:
    """The news that a run's latest attempt runs. Pure."""
    attempts = known_attempts(status)
    return RunStatusDocument(
        run_id=held.run_id,
        request_id=held.ticket.request_id,
        function=held.ticket.function,
        topic=record.topic,
        state=State.RUNNING,
        attempts=attempts,
        queued_at=record.received_at,
        dispatched_at=held.facts.dispatched_at,
        started_at=next((attempt.started_at for attempt in attempts if attempt.started_at), None),
        at=datetime.now(UTC),
        engine=held.facts.engine,
        job=status.job,
        spec_hash=held.facts.spec_hash,
        catalog=held.facts.catalog,
        root_request_id=record.root_request_id,
        parent_run_id=record.parent_run_id,
    )
