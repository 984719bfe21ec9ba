"""One controller: its parts, the loops that it starts, what keeps it from working, what it hands back at its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from invoker.claimcheck import ClaimStore
from invoker.connection import connection_problems, nats_errors
from invoker.errors import BackPressureError, InvokerError, ServerUnreachableError, StreamMismatchError
from invoker.publish import EventPublisher
from invoker.request import RequestRecord
from invoker.result import Result
from invoker.results.nats import ResultStream
from invoker.streams import ensure_streams
from trigger.accept import Acceptor
from trigger.catalog import Catalog
from trigger.catalog_source.directory import DirectorySource
from trigger.consumers import Consumers
from trigger.control import ControlServices
from trigger.custody import Custody, Slots
from trigger.deadletter import DeadLetters
from trigger.dispatch import Dispatcher, DispatchRules
from trigger.engine import Engine
from trigger.engines import problem_of
from trigger.finish import Finisher
from trigger.follow import Follower
from trigger.function import Function
from trigger.intake import IN_FLIGHT, Intake, IntakeRules
from trigger.jetstream import Acks, ConsumerGoneError, Pull
from trigger.keep import Keeper, KeepRules
from trigger.metrics import Metrics
from trigger.moments import Moments
from trigger.reply import Replier
from trigger.room import ResultsRoom
from trigger.seal import Sealer
from trigger.settings import ControllerSettings
from trigger.stream_levels import StreamLevels

log = structlog.get_logger(component="app")

DRAIN_SECONDS = 3.0
"""A stopping controller lets runs that are being finished get so far as their ack."""
RETRY_SECONDS = 1.0


class Controller:
    """The parts of one controller. Built and driven by `trigger.app` only."""

    def __init__(
        self,
        settings: ControllerSettings,
        client: NatsClient,
        source: DirectorySource,
        catalog: Catalog,
        engine: Engine,
        metrics: Metrics,
        results: ResultStream,
        claims: ClaimStore,
        publisher: EventPublisher,
        http_url: str,
        probe_url: str,
        token_key: bytes,
    ) -> None:
        names, js = settings.names, client.jetstream()
        moments = Moments.parse(settings.test_crash_at, settings.test_crash_proof)
        acks, replier = Acks(client), Replier(client, claims)
        self.settings = settings
        self.catalog = catalog
        self.engine = engine
        self.http_url = http_url
        self.probe_url = probe_url
        self._client = client
        self._js = js
        self._source = source
        self._metrics = metrics
        self._publisher = publisher
        self._results = results
        self._replier = replier
        self._acks = acks
        self._moments = moments
        self._claims = claims
        self._consumers = Consumers(js, names, ack_wait_seconds=settings.ack_wait_seconds)
        self._custody = Custody(Slots(settings.max_running))
        self._room = ResultsRoom(js, names, settings.results_bytes)
        self._sealer = Sealer(results, claims, moments)
        self._dead = DeadLetters(js, claims, publisher, names)
        self._finisher = Finisher(
            js, names, self._custody, engine, results, claims, publisher, replier, acks, self._dead.put_event,
            self.current, metrics, moments,
        )  # fmt: skip
        self._dispatcher = Dispatcher(
            DispatchRules(
                settings.run_api_url or http_url, token_key, settings.retention_seconds, settings.max_output_bytes
            ),
            names, self.current, self._consumers, self._custody, engine, results, claims, self._sealer,
            self._finisher, metrics, moments,
        )  # fmt: skip
        self._follower = Follower(
            client, js, names, self._custody, engine, results, self._sealer, self._finisher, moments
        )
        self._keeper = Keeper(
            KeepRules(
                settings.heartbeat_seconds,
                settings.ack_wait_seconds,
                settings.audit_seconds,
                retention_seconds=settings.retention_seconds,
            ),
            js, names, self._custody, self._consumers, engine, results, claims, self._sealer, self._finisher, acks,
            metrics,
        )  # fmt: skip
        self._taking: list[asyncio.Task[None]] = []
        self._stream_problem: str | None = None
        self._tasks: asyncio.TaskGroup | None = None

    def current(self) -> Catalog:
        """The catalog in use; swapped whole by one loop."""
        return self.catalog

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """When this returns every loop runs and events are taken."""
        self._tasks = tasks
        await self._consumers.ensure_intake(IN_FLIGHT * 2)
        self._count_catalog()
        if self.settings.sole_controller:
            await self._consumers.reclaim()
        tasks.create_task(self._follower.follow_engine(tasks), name="follow-engine")
        tasks.create_task(self._follower.follow_results(tasks), name="follow-results")
        tasks.create_task(self._keeper.heartbeats(tasks), name="heartbeats")
        tasks.create_task(self._keeper.audits(tasks, self._adopt), name="audits")
        tasks.create_task(self._keeper.look_ups(self._look_up), name="look-ups")
        levels = StreamLevels(self._js, self.settings.names, self._metrics, self.settings.audit_seconds)
        tasks.create_task(levels.run(), name="stream-levels")
        await self._follow_functions(at_start=True)
        await self._control().serve(tasks)
        tasks.create_task(self._watch_catalog(), name="catalog")
        created = await self._events_created()
        self._taking.append(tasks.create_task(self._take_events(created, tasks), name="intake"))
        with suppress(NotImplementedError, RuntimeError, ValueError):  # no signals outside of the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._source.poke)

    async def drain(self) -> None:
        """Take nothing new, and let what is being finished get to its ack, for a few seconds."""
        for task in self._taking:
            task.cancel()
        self._dispatcher.stop()
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while any(held.concluding and held.ended.is_set() for held in self._custody.all()):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.02)

    async def hand_back(self) -> None:
        """Give every held run back, so that it is handed out again at once instead of after its ack wait."""
        for held in self._custody.all():
            await self._finisher.give_back(held)
        with suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.flush(timeout=2)

    def sealed(self, result: Result, record: RequestRecord) -> None:
        """The run API of this process has stored a result."""
        if self._tasks is not None:
            self._follower.sealed(result, record, self._tasks)

    def version(self, name: str, spec_hash: str) -> Function | None:
        """The version of a function that a run was started with, the present one when no such run is held here."""
        present = self.catalog.functions.get(name)
        if present is not None and present.spec_hash == spec_hash:
            return present
        return self._custody.version(name, spec_hash) or present

    def unready(self) -> list[str]:
        """What keeps this controller from working, in words; empty when nothing does."""
        missing = [] if self._taking else ["starting"]
        missing += connection_problems(self._client, self.settings.names.instance)
        if self._stream_problem is not None:
            missing.append(self._stream_problem)
        if (problem := problem_of(self.engine)) is not None:
            missing.append(problem)
        missing += [broken.message for broken in self.catalog.broken if not broken.kept]
        return missing

    def degraded(self) -> list[str]:
        """What is not as its author wants it and hinders no work: files that were refused, in words."""
        return [f"{broken.message}; its last good version is in use" for broken in self.catalog.broken if broken.kept]

    def exposition(self) -> bytes:
        """The metrics, with the gauges as of now. May be called in any thread."""
        self._metrics.nats_connected.set(1 if self._client.is_connected else 0)
        active = Counter(held.ticket.function for held in self._custody.all())
        concurrency = {name: function.concurrency for name, function in self.catalog.functions.items()}
        self._metrics.follow_functions(concurrency, active, time.monotonic())
        return self._metrics.exposition()

    def _control(self) -> ControlServices:
        return ControlServices(
            self._client, self.settings.names, self.current, self._source.reload, self._consumers, self._custody,
            self.engine, self._results, self._publisher, self._dead, self._sealer, self.settings.reply_subjects,
        )  # fmt: skip

    async def _take_events(self, created: str, tasks: asyncio.TaskGroup) -> None:
        names = self.settings.names
        intake = Intake(
            IntakeRules(names, self.settings.reply_subjects, names.events_stream, created),
            self.current,
            Acceptor(self._results, self._claims, self._publisher, self._room, self._moments),
            self._dead,
            self._replier,
            self._acks,
            self._metrics,
            self._moments,
        )
        while True:
            try:
                await intake.run(Pull(self._client, names.events_stream, names.intake_consumer, batch=64), tasks)
            except ConsumerGoneError:
                log.warning("the intake consumer is gone, making it again")
                await self._retried(lambda: self._consumers.ensure_intake(IN_FLIGHT * 2))
            except ServerUnreachableError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch_catalog(self) -> None:
        async for catalog in self._source.watch(self.catalog):
            self.catalog = catalog
            self._count_catalog()
            log.info("catalog loaded", catalog=catalog.version, functions=len(catalog.functions))
            for broken in catalog.broken:
                log.warning(
                    "function cannot be loaded", error_message=broken.message, last_good_version_kept=broken.kept
                )
            await self._retried(self._follow_functions)

    async def _follow_functions(self, *, at_start: bool = False) -> None:
        """One loop for every function in the catalog, and for every one that still has runs."""
        functions = set(self.catalog.functions) | await self._keeper.functions_with_runs()
        await self._dispatcher.follow_catalog(functions, self._make_pull, self._owner(), at_start=at_start)

    async def _look_up(self) -> None:
        # Streams too: the status stream lives in memory, and a server that was started again has lost it.
        await self._follower.settle_all(self._owner())
        try:
            await ensure_streams(self._js, self.settings.names, self.settings.stream_limits)
        except (StreamMismatchError, BackPressureError) as error:
            self._stream_problem = error.message
            raise
        self._stream_problem = None

    async def _adopt(self, functions: set[str]) -> None:
        log.warning("runs without a consumer", functions=sorted(functions))
        await self._follow_functions()

    async def _retried(self, step: Callable[[], object]) -> None:
        while True:
            try:
                await step()  # type: ignore[misc]  # every step given here is a coroutine function
                return
            except InvokerError as error:
                log.warning("trying again", error_message=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _events_created(self) -> str:
        with nats_errors("reading the events stream"):
            info = await self._js.stream_info(self.settings.names.events_stream)
        return str(info.created)

    def _make_pull(self, function: str) -> Pull:
        names = self.settings.names
        return Pull(self._client, names.runs_stream, names.run_consumer(function), batch=32)

    def _owner(self) -> asyncio.TaskGroup:
        assert self._tasks is not None, "start comes first"
        return self._tasks

    def _count_catalog(self) -> None:
        self._metrics.catalog_loads.inc()
        self._metrics.catalog_functions.set(len(self.catalog.functions))
        unreadable = [broken for broken in self.catalog.broken if broken.file == "."]
        self._metrics.catalog_broken_functions.set(len(self.catalog.broken) - len(unreadable))
        self._metrics.catalog_readable.set(0 if unreadable else 1)
