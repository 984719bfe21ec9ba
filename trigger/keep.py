"""Keep: heartbeats for held runs, the end of runs whose time is over, and the audit of what nobody holds.

Each duty is one pass (`beat`, `end_overdue`, `audit`) that may be repeated, driven by a loop that does nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import nats.js.errors
import structlog

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.connection import nats_errors
from invoker.errors import InvokerError
from invoker.request import RunTicket
from invoker.result import Reason
from invoker.results.nats import ResultStream
from trigger.consumers import Backlog, Consumers
from trigger.custody import Custody, HeldRun, overdue
from trigger.decision import EXPIRY_SHARE
from trigger.engine import Engine
from trigger.finish import Finisher
from trigger.jetstream import Acks
from trigger.metrics import Metrics
from trigger.seal import Sealer
from trigger.verdict import Verdict

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

log = structlog.get_logger(component="keep")

RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class KeepRules:
    """The periods of the three duties, in seconds, and the retention that decides what has expired."""

    heartbeat_seconds: float = 3.0
    ack_wait_seconds: float = 10.0
    audit_seconds: float = 10.0
    sweep_seconds: float = 600.0
    retention_seconds: float = 172_800.0


class Keeper:
    """Looks after held runs, and after what nobody holds."""

    def __init__(
        self,
        rules: KeepRules,
        jetstream: JetStreamContext,
        names: wire.Names,
        custody: Custody,
        consumers: Consumers,
        engine: Engine,
        results: ResultStream,
        claims: ClaimStore,
        sealer: Sealer,
        finisher: Finisher,
        acks: Acks,
        metrics: Metrics,
    ) -> None:
        self._rules = rules
        self._js = jetstream
        self._names = names
        self._custody = custody
        self._consumers = consumers
        self._engine = engine
        self._results = results
        self._claims = claims
        self._sealer = sealer
        self._finisher = finisher
        self._acks = acks
        self._metrics = metrics
        self._neglected: set[str] = set()

    async def heartbeats(self, tasks: asyncio.TaskGroup) -> None:
        """Keep every held run's message from being handed out again, until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._rules.heartbeat_seconds)
            if loop.time() - before > self._rules.ack_wait_seconds / 2:
                self._metrics.heartbeats_late.inc()
            before = loop.time()
            await self._guarded(self.beat)
            for held in overdue(self._custody.all(), datetime.now(UTC)):
                held.overdue = True
                tasks.create_task(self._end_overdue(held))

    async def audits(self, tasks: asyncio.TaskGroup, orphaned: Callable[[set[str]], Awaitable[None]]) -> None:
        """Compare what is stored with what is looked after, until cancelled. `orphaned` is told the functions that
        have runs which no consumer accounts for."""
        swept = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._rules.audit_seconds)

            async def audit_once() -> None:
                functions = await self.audit()
                if functions:
                    await orphaned(functions)
                await self.expire_queued(tasks)
                await self.release_ended()

            await self._guarded(audit_once)
            if asyncio.get_running_loop().time() - swept >= self._rules.sweep_seconds:
                swept = asyncio.get_running_loop().time()
                await self._guarded(self.sweep_claims)

    async def look_ups(self, settle_all: Callable[[], Awaitable[None]]) -> None:
        """Look up every started run now and then, until cancelled: what a notice missed is found here."""
        while True:
            await asyncio.sleep(self._rules.audit_seconds)
            await self._guarded(settle_all)

    async def beat(self) -> None:
        """One heartbeat for every held run."""
        for held in self._custody.all():
            if held.ack_subject is not None:
                await self._acks.working(held.ack_subject)

    async def audit(self) -> set[str]:
        """The functions with runs that nobody looks after: no consumer accounts for them, or nobody asks theirs.

        On a work queue the sum of all consumers' waiting and handed-out messages equals the stream's messages. When it
        does not, a consumer is missing (deleted by hand, or its function left the catalog before it had one). When it
        does, one may still be neglected: its function left the catalog, and then a half accepted event was completed.
        """
        with nats_errors("auditing runs"):
            state = (await self._js.stream_info(self._names.runs_stream)).state
            backlogs = await self._consumers.backlogs()
        # Twice in a row: between two requests of a controller that looks after it, nobody asks for a moment.
        before, self._neglected = self._neglected, neglected(backlogs)
        if state.messages == accounted_for(backlogs):
            return before & self._neglected
        return {function for function in await self.functions_with_runs() if function not in backlogs}

    async def functions_with_runs(self) -> set[str]:
        """Every function that has an unfinished run."""
        with nats_errors("listing unfinished runs"):
            info = await self._js.stream_info(self._names.runs_stream, subjects_filter=self._names.run("*", "*"))
        return {subject.split(".")[-2] for subject in (info.state.subjects or {})}

    async def expire_queued(self, tasks: asyncio.TaskGroup) -> None:
        """Finish the runs that waited in the queue for 0.9 of the retention, whoever should have started them.

        With some grace: a run that is held is ended by its holder first.
        """
        retention = self._rules.retention_seconds
        grace = min(30.0, 0.05 * retention)
        before = datetime.now(UTC) - timedelta(seconds=EXPIRY_SHARE * retention + grace)
        sequence = 1
        while True:
            found = await self._next_ticket(sequence)
            if found is None or found[1] > before:
                return
            ticket, _, sequence = found
            held = self._custody.take_expired(ticket, sequence) if ticket is not None else None
            if held is not None:
                tasks.create_task(self._expire(held))
            sequence += 1

    async def release_ended(self) -> None:
        """Release what the engine keeps of runs that are finished and that nobody holds: their controller died
        between the ack and the release."""
        for run_id in self._custody.ended_unheld():
            if await self._results.ticket(run_id) is None:
                await self._engine.release(run_id)
                self._custody.take_end(run_id)

    async def sweep_claims(self) -> None:
        """Remove payloads last used longer ago than the retention, unless an event still waits that may need them."""
        hour = timedelta(hours=1)
        before = datetime.now(UTC) - timedelta(seconds=self._rules.retention_seconds) - hour
        with nats_errors("reading the oldest event"):
            state = (await self._js.stream_info(self._names.events_stream)).state
        if state.messages:
            oldest = await self._oldest_event()
            before = min(before, oldest - hour) if oldest is not None else before
        removed = await self._claims.sweep(before=before)
        if removed:
            log.info("payloads removed", count=removed)

    async def _oldest_event(self) -> datetime | None:
        with nats_errors("reading the oldest event"):
            try:
                message = await self._js.get_msg(self._names.events_stream, seq=1, subject=">", next=True)
            except nats.js.errors.NotFoundError:
                return None
        return message.time

    async def _next_ticket(self, sequence: int) -> tuple[RunTicket | None, datetime, int] | None:
        with nats_errors("reading the oldest run"):
            try:
                message = await self._js.get_msg(
                    self._names.runs_stream, seq=sequence, subject=self._names.run("*", "*"), next=True
                )
            except nats.js.errors.NotFoundError:
                return None
        stored_at = message.time or datetime.now(UTC)
        return RunTicket.read(message.data or b""), stored_at, message.seq or sequence

    async def _expire(self, held: HeldRun) -> None:
        verdict = Verdict(Reason.EXPIRED_IN_QUEUE, f"had not started {EXPIRY_SHARE} of the retention after acceptance")
        await self._seal_and_conclude(held, verdict)

    async def _end_overdue(self, held: HeldRun) -> None:
        words = f"still unfinished {EXPIRY_SHARE} of the retention after its acceptance"
        reason = Reason.TIMEOUT if held.started else Reason.EXPIRED_IN_QUEUE
        await self._seal_and_conclude(held, Verdict(reason, words))

    async def _seal_and_conclude(self, held: HeldRun, verdict: Verdict) -> None:
        try:
            record = await self._results.record(held.ticket.request_id)
            result = await self._sealer.seal(held.ticket, record, verdict, facts=held.facts, status=held.status)
            await self._finisher.conclude(held, result)
        except InvokerError as error:
            log.warning("run could not be ended yet", **held.ids(), error_message=error.message)
            held.overdue = False
            if held.from_queue and not held.concluding:
                # Nobody begins it here, even if it was delivered meanwhile: kept, it would be kept for ever.
                await self._finisher.give_back(held, delay_seconds=RETRY_SECONDS)

    async def _guarded(self, duty: Callable[[], Awaitable[None]]) -> None:
        """One pass of a duty; trouble with NATS is logged, and the next pass does it all again."""
        try:
            await duty()
        except InvokerError as error:
            log.warning("duty skipped", duty=getattr(duty, "__name__", "duty"), error_message=error.message)
        except Exception:
            # A bug in one duty must not end the controller and what it holds: the log says why.
            log.exception("duty skipped", duty=getattr(duty, "__name__", "duty"))


def accounted_for(backlogs: dict[str, Backlog]) -> int:
    """The messages that consumers know of: waiting and handed out. Pure."""
    return sum(backlog.waiting + backlog.handed_out for backlog in backlogs.values())


def neglected(backlogs: dict[str, Backlog]) -> set[str]:
    """The functions whose runs wait while nobody has one or asks for one, on any controller. Pure."""
    return {
        function
        for function, backlog in backlogs.items()
        if backlog.waiting and not (backlog.handed_out or backlog.paused or backlog.asked)
    }
