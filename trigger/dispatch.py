"""Dispatch: a delivered run is started, or finished when it already has its result.

One loop per function pulls one run at a time and comes back for the next only when this one has a slot: so at most one
run per function waits here, and a function with ten thousand queued runs is one waiter among others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg

from invoker import spans, wire
from invoker.claimcheck import ClaimStore
from invoker.errors import (
    BackPressureError,
    ClaimCheckError,
    EngineUnavailableError,
    InvokerError,
    SchemaViolationError,
    ServerUnreachableError,
    StartRefusedError,
    StreamMismatchError,
)
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.request import RequestRecord, RunTicket
from invoker.result import Reason, RunStatusDocument, State
from invoker.results.nats import ResultStream
from trigger.catalog import Catalog
from trigger.consumers import Consumers
from trigger.custody import Custody, HeldRun, Once
from trigger.decision import Conclude, Start, Wait, decide, expiry_of
from trigger.engine import Engine
from trigger.finish import Finisher
from trigger.function import Function
from trigger.jetstream import ConsumerGoneError, Pull, delivery_of
from trigger.metrics import Metrics
from trigger.moments import Moment, Moments
from trigger.plan import InputMode, RunPlan
from trigger.planning import plan_run
from trigger.seal import Sealer
from trigger.verdict import RunFacts, Verdict

log = structlog.get_logger(component="dispatch")

MAX_CHECKED_INPUT_BYTES = 16 * 1024 * 1024
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """What dispatch must know of the settings."""

    run_api_url: str
    token_key: bytes
    retention_seconds: float
    max_output_bytes: int


class Dispatcher:
    """Owns the dispatch loops; `follow_catalog` keeps them in step with the functions that may have runs."""

    def __init__(
        self,
        rules: DispatchRules,
        names: wire.Names,
        catalog: Callable[[], Catalog],
        consumers: Consumers,
        custody: Custody,
        engine: Engine,
        results: ResultStream,
        claims: ClaimStore,
        sealer: Sealer,
        finisher: Finisher,
        metrics: Metrics,
        moments: Moments,
    ) -> None:
        self._rules = rules
        self._names = names
        self._catalog = catalog
        self._consumers = consumers
        self._custody = custody
        self._engine = engine
        self._results = results
        self._claims = claims
        self._sealer = sealer
        self._finisher = finisher
        self._metrics = metrics
        self._moments = moments
        self._loops: dict[str, asyncio.Task[None]] = {}

    async def follow_catalog(
        self,
        functions: Iterable[str],
        make_pull: Callable[[str], Pull],
        tasks: asyncio.TaskGroup,
        *,
        at_start: bool = False,
    ) -> None:
        """When this returns exactly these functions have a consumer and a loop. Safe to repeat.

        A consumer with other settings raises `StreamMismatchError` at the start, when somebody looks; later it only
        keeps its own function from running, and the log says so.
        """
        wanted = set(functions)
        for function in sorted(wanted):
            spec = self._catalog().functions.get(function)
            try:
                await self._consumers.ensure_run(function, spec.concurrency if spec else None)
            except StreamMismatchError as error:
                if at_start:
                    raise
                # Somebody changed this one by hand: it is said, and the other functions go on.
                log.error("function has no usable consumer", function=function, error_message=error.message)
                continue
            if spec is None and self._catalog().complete:
                # Removed while paused: nothing of it is started any more, and nobody could resume it by its name.
                await self._consumers.resume(function)
            if function not in self._loops or self._loops[function].done():
                loop = self._loop(function, make_pull, tasks)
                self._loops[function] = tasks.create_task(loop, name=f"dispatch-{function}")
        for function in set(self._loops) - wanted:
            self._loops.pop(function).cancel()
            await self._consumers.remove_run(function)

    def stop(self) -> None:
        """Take no more runs."""
        for loop in self._loops.values():
            loop.cancel()

    async def _loop(self, function: str, make_pull: Callable[[str], Pull], tasks: asyncio.TaskGroup) -> None:
        # A controller that takes over ten thousand runs would otherwise read their records while it lists their Jobs.
        await self._engine.settle()
        while True:
            pull = make_pull(function)
            try:
                async for message in pull.messages(lambda: self._custody.slots.room(function)):
                    await self._take(message, tasks)
            except ConsumerGoneError:
                # Deleted by hand: on a work queue a new one hands out what is unfinished and nothing else.
                log.warning("consumer is gone, making it again", function=function)
                await self._make_again(function)
            except ServerUnreachableError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _make_again(self, function: str) -> None:
        spec = self._catalog().functions.get(function)
        try:
            await self._consumers.ensure_run(function, spec.concurrency if spec else None)
        except InvokerError as error:
            log.warning("consumer cannot be made yet", function=function, error_message=error.message)
            await asyncio.sleep(RETRY_SECONDS)

    async def _take(self, message: Msg, tasks: asyncio.TaskGroup) -> None:
        ticket, delivery = RunTicket.read(message.data), delivery_of(message)
        if ticket is None:
            log.error("not a run, dropped from the queue", subject=message.subject, sequence=delivery.sequence)
            await self._finisher.discard(delivery.ack_subject)
            return
        held = self._custody.take(ticket, delivery.ack_subject, delivery.sequence)
        if held is None:
            return
        self._moments.reached(Moment.RUN_DELIVERED)
        try:
            await self._custody.slots.acquire(ticket.function)
        except asyncio.CancelledError:
            # This loop ends (its function left the catalog, or the controller stops): the run must not stay held.
            await asyncio.shield(self._finisher.give_back(held))
            raise
        if held.concluding:
            # Its result came while it waited: whoever finishes it may be through, and would not give this slot back.
            self._custody.slots.release(ticket.function)
            return
        held.has_slot = True
        tasks.create_task(self.begin(held))

    async def begin(self, held: HeldRun) -> None:
        """Start a held run, or finish it, or give it back."""
        line = log.bind(**held.ids())
        try:
            await self._begin(held, line)
        except (BackPressureError, ServerUnreachableError, EngineUnavailableError) as error:
            line.warning("run given back", error_message=error.message)
            await self._return(held, max(RETRY_SECONDS, error.fields.get("retry_seconds", 0.0)))
        except Exception:
            # A bug must not stop other runs: this one comes back, and the log says why.
            line.exception("run given back")
            await self._return(held, RETRY_SECONDS)

    async def _return(self, held: HeldRun, seconds: float) -> None:
        if not held.concluding:  # else its result was seen meanwhile, and the finisher has it
            await self._finisher.give_back(held, delay_seconds=seconds)

    async def _begin(self, held: HeldRun, line: structlog.stdlib.BoundLogger) -> None:
        ticket = held.ticket
        record, result = await asyncio.gather(
            self._results.record(ticket.request_id), self._results.result(ticket.request_id, ticket.function)
        )
        facts = spans.run_facts(record, held.run_id)
        held.trace_id, line = facts.get("trace_id"), line.bind(**facts)
        decision = decide(
            ticket,
            record,
            result,
            self._catalog(),
            now=datetime.now(UTC),
            retention_seconds=self._rules.retention_seconds,
        )
        if record is not None and not isinstance(decision, Conclude) and await self._adopted(held, record, line):
            return
        match decision:
            case Conclude(result):
                await self._finisher.conclude(held, result, record)
            case Verdict():
                await self._end_unstarted(held, record, decision)
            case Wait(seconds, why):
                line.warning("run waits", reason=why)
                await self._return(held, seconds)
            case Start(function, record):
                await self._start(held, function, record, line)

    async def _adopted(self, held: HeldRun, record: RequestRecord, line: structlog.stdlib.BoundLogger) -> bool:
        """Whether the run goes on already: started by a controller that has died, or before this delivery.

        It keeps what it was started with. The spec may have changed since, or left the catalog.
        """
        found = await self._engine.adopt(held.run_id)
        if found is None:
            return False
        function = self._catalog().functions.get(held.ticket.function)
        held.function = function if function is not None and function.spec_hash == found.spec_hash else None
        held.facts = RunFacts(
            spec_hash=found.spec_hash,
            catalog=found.catalog,
            engine=self._engine.name,
            output=found.output,
            runtime=found.runtime,
            dispatched_at=max(found.dispatched_at, record.received_at),
        )
        held.expires_at = expiry_of(record, self._rules.retention_seconds)
        held.started = True
        line.info("run goes on", spec_hash=found.spec_hash)
        return True

    async def _start(
        self, held: HeldRun, function: Function, record: RequestRecord, line: structlog.stdlib.BoundLogger
    ) -> None:
        held.function = function
        held.facts = facts_of(function, self._catalog().version, self._engine.name)
        held.expires_at = expiry_of(record, self._rules.retention_seconds)
        try:
            body = await self._checked_body(function, record)
            address = self._address(held)
            plan = plan_run(
                function,
                record,
                run_id=held.run_id,
                body=body,
                run_url=run_url(self._rules.run_api_url, address),
                run_token=run_token(self._rules.token_key, address),
                catalog=held.facts.catalog or "",
                deadline_at=held.expires_at,
                output_limit_bytes=self._rules.max_output_bytes,
                trace=spans.run_trace(record, held.run_id),
            )
            if await self._is_finished(held, record):
                return
            self._moments.reached(Moment.BEFORE_START)
            await self._ask_to_start(held, plan)
        except SchemaViolationError as error:
            held.started = False
            errors = tuple(error.fields.get("errors", ()))
            await self._end_unstarted(held, record, Verdict(Reason.INVALID_INPUT, error.message, errors))
            return
        except ClaimCheckError as error:
            await self._end_unstarted(held, record, Verdict(Reason.INVALID_INPUT, error.message))
            return
        except StartRefusedError as error:
            reason = Reason(error.fields.get("reason", Reason.REFUSED))
            await self._end_unstarted(held, record, Verdict(reason, error.message))
            return
        await self._tell_started(held, function, record, line)

    async def _is_finished(self, held: HeldRun, record: RequestRecord) -> bool:
        """Whether the run has its result by now; then it is brought to its end here, or is already.

        Asked after everything that a start waits for (the engine's first list, the body), and before nothing but the
        start. Whoever held the run before may have finished it meanwhile, and the Job by which the engine would have
        known it is gone. What is stored after this look finds a start under way, and waits for its answer.
        """
        result = await self._results.result(held.ticket.request_id, held.ticket.function)
        if result is not None:
            await self._finisher.conclude(held, result, record)
        return held.concluding

    async def _ask_to_start(self, held: HeldRun, plan: RunPlan) -> None:
        # No await between the look at `concluding` and here: whoever concludes the run from now on sees that a start
        # is under way, and whoever did before has kept it from beginning.
        held.started = True
        held.started_at = datetime.now(UTC)
        held.facts = replace(held.facts, dispatched_at=held.started_at)
        held.start_answered = Once()
        try:
            await self._engine.start(plan)
        finally:
            held.start_answered.set()

    async def _tell_started(
        self, held: HeldRun, function: Function, record: RequestRecord, line: structlog.stdlib.BoundLogger
    ) -> None:
        self._moments.reached(Moment.STARTED)
        self._metrics.of(function.name).started.inc()
        if held.started_at is not None:
            queued = (held.started_at - record.received_at).total_seconds()
            self._metrics.of(function.name).queue_seconds.observe(max(0.0, queued))
        line.info("run started", topic=record.topic, spec_hash=function.spec_hash)
        if held.concluding:
            return  # the latest news are that it is finished
        with suppress(InvokerError):  # news may be lost; a run that was started is not given back for them
            await self._results.put_status(starting_status(held, record))

    async def _checked_body(self, function: Function, record: RequestRecord) -> bytes | None:
        """The body where it must be looked at before the start: for the schema, and for `as: env`."""
        if function.input.schema is None and function.input.mode is not InputMode.ENV:
            return None
        limit = MAX_CHECKED_INPUT_BYTES if function.input.schema is not None else wire.MAX_ENV_INPUT_BYTES
        if record.body.size_bytes > limit:
            raise SchemaViolationError(
                f"the input has {record.body.size_bytes} bytes; function {function.name} takes at most {limit}",
                errors=[{"pointer": "", "detail": f"more than {limit} bytes"}],
            )
        body = record.body.inline_bytes()
        if body is None and record.body.claim is not None:
            body = await self._claims.read(record.body.claim)
        problems = function.check_input(body or b"", record.body.content_type)
        if problems:
            raise SchemaViolationError(f"the input does not fit the schema of {function.name}", errors=list(problems))
        return body

    async def _end_unstarted(self, held: HeldRun, record: RequestRecord | None, verdict: Verdict) -> None:
        result = await self._sealer.seal(held.ticket, record, verdict, facts=held.facts)
        await self._finisher.conclude(held, result, record)

    def _address(self, held: HeldRun) -> RunAddress:
        return RunAddress(
            request_id=held.ticket.request_id,
            function=held.ticket.function,
            spec_hash=held.facts.spec_hash or "",
            catalog=held.facts.catalog or "",
            engine=self._engine.name,
            job=self._engine.place_of(held.run_id),
        )


def facts_of(function: Function, catalog: str, engine: str) -> RunFacts:
    """What results say about the version that ran. Pure."""
    return RunFacts(
        spec_hash=function.spec_hash,
        catalog=catalog,
        engine=engine,
        output=function.output.mode,
        runtime=function.code.runtime,
    )


def starting_status(held: HeldRun, record: RequestRecord) -> RunStatusDocument:
    """The news that a run was given to the engine. Pure."""
    return RunStatusDocument(
        run_id=held.run_id,
        request_id=held.ticket.request_id,
        function=held.ticket.function,
        topic=record.topic,
        state=State.STARTING,
        queued_at=record.received_at,
        dispatched_at=held.started_at,
        at=held.started_at or record.received_at,
        engine=held.facts.engine,
        spec_hash=held.facts.spec_hash,
        catalog=held.facts.catalog,
        root_request_id=record.root_request_id,
        parent_run_id=record.parent_run_id,
    )
