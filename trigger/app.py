"""The composition root: builds every part, starts them in order, and stops them in the reverse one.

Order of start: NATS and streams, catalog, engine, HTTP, then the loops; intake comes last, since nothing may be
accepted before a catalog was loaded and before somebody looks after what is accepted. One TaskGroup owns every task.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect, connection_problems, nats_errors, words_about_server
from invoker.connection_log import ConnectionLog
from invoker.errors import BackPressureError, InvokerError, ServerUnreachableError, StreamMismatchError
from invoker.gateway.http_server import Routes, Served, http_server, probe_routes
from invoker.gateway.patience import ProbePlace
from invoker.gateway.run_api import RunApi
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
from trigger.engines import engine_of, problem_of, request_reasons
from trigger.finish import Finisher
from trigger.follow import Follower
from trigger.function import Function
from trigger.input_file import InputReader
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
from trigger.task_owner import TaskOwner

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

log = structlog.get_logger(component="app")

DRAIN_SECONDS = 3.0
"""A stopping controller lets runs that are being finished get so far as their ack."""
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A controller that is up: where its run API and its probes listen, its first catalog, its engine."""

    http_url: str
    probe_url: str
    catalog: Catalog
    engine: str


Compose = Callable[[Routes], Served]


class _StoppedError(Exception):
    """Ends the task group in an orderly way."""


async def run_controller(
    settings: ControllerSettings,
    connection: ConnectionOptions,
    *,
    ready: Callable[[Running], None] | None = None,
    stopping: asyncio.Event | None = None,
    compose: Compose = list,
) -> None:
    """A controller, until `stopping` is set or this is cancelled; what it held is given back to the stream.

    `ready` is called once, when events are taken. `compose` makes what is served by HTTP of the controller's own routes
    (run API, probes, metrics), for a program that has more to serve there. Raises `SettingsError`,
    `ServerUnreachableError` or `StreamMismatchError` when it cannot start.
    """
    async with AsyncExitStack() as stack:
        controller = await stack.enter_async_context(_assembled(settings, connection, compose))
        try:
            async with TaskOwner() as tasks:
                try:
                    await controller.start(tasks)
                    if ready is not None:
                        ready(controller.facts())
                    await (stopping or asyncio.Event()).wait()
                    await controller.drain()
                    raise _StoppedError
                finally:
                    await tasks.end()
        except BaseExceptionGroup as group:
            trouble = _trouble(group)
            if trouble is not None:
                raise trouble from None
            log.info("controller stopped")
        finally:
            await asyncio.shield(controller.hand_back())


async def before_start(settings: ControllerSettings, options: ConnectionOptions) -> None:
    """What a start needs of others, tried and undone: a NATS that takes us, streams that are as the settings say.

    Safe to repeat. Raises `ServerUnreachableError` or `StreamMismatchError`.
    """
    client = await connect(options, timeout=5)
    try:
        await ensure_streams(client.jetstream(), settings.names, settings.stream_limits)
    finally:
        with suppress(nats.errors.Error, TimeoutError, OSError):
            await client.close()


def probe_place(settings: ControllerSettings) -> ProbePlace:
    """Where the probes of a controller with these settings are, before it works too."""
    port, setting = settings.http_port, "INVOKER_HTTP_PORT"
    if settings.probe_port is not None:
        port, setting = settings.probe_port, "INVOKER_PROBE_PORT"
    return ProbePlace(settings.http_host, port, setting, lambda: metrics_of(settings).exposition())


def metrics_of(settings: ControllerSettings) -> Metrics:
    """The metrics of a controller with these settings, all of them at zero."""
    metrics = Metrics(settings.engine, settings.names)
    metrics.runs_limit.set(settings.max_running)
    metrics.expect_requests(request_reasons(settings.engine))
    return metrics


def _trouble(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What ended the tasks, other than the stop: the error itself where there is one, as callers are promised. Pure."""
    rest: BaseException | None = group.split(_StoppedError)[1]
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest


class Controller:
    """The parts of one controller. Built by `run_controller` only."""

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

    def facts(self) -> Running:
        """Where it is, and with what it works."""
        return Running(self.http_url, self.probe_url, self.catalog, self.engine.name)

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


@asynccontextmanager
async def _assembled(
    settings: ControllerSettings, options: ConnectionOptions, compose: Compose
) -> AsyncIterator[Controller]:
    """A controller with everything it stands on, not yet started; all of it is closed when this is left."""
    async with AsyncExitStack() as stack:
        metrics = metrics_of(settings)
        client = await stack.enter_async_context(_connected(options, metrics))
        js: JetStreamContext = client.jetstream()
        await ensure_streams(js, settings.names, settings.stream_limits)
        source = DirectorySource(settings.catalog, settings.catalog_interval_seconds)
        catalog = await asyncio.to_thread(source.load)
        claims, results = ClaimStore(js, settings.names), ResultStream(client, js, settings.names)
        publisher = EventPublisher(client, js, claims, settings.names, max_event_bytes=settings.max_event_bytes)
        publisher.on_outcome = metrics.published
        holder: list[Controller] = []
        inputs = InputReader(results, claims)
        engine = await stack.enter_async_context(
            engine_of(settings, inputs, metrics, lambda: holder[0].current() if holder else catalog)
        )
        key = settings.token_key()
        run_api = RunApi(
            results,
            claims,
            publisher,
            key=key,
            max_output_bytes=settings.max_output_bytes,
            check_output=lambda name, spec, data, kind: _check_output(holder, name, spec, data, kind),
            has_output_schema=lambda name, spec: _has_output_schema(holder, name, spec),
            on_sealed=lambda result, record: holder[0].sealed(result, record) if holder else None,
            names=settings.names,
        )
        probes = probe_routes(lambda: holder[0].unready() if holder else ["starting"], lambda: holder[0].exposition())
        own: Routes = [*run_api.routes(), *probes]
        probe_url = None
        if settings.probe_port is not None:
            own = [*run_api.routes()]
            probe_url = await stack.enter_async_context(
                http_server(probes, settings.http_host, settings.probe_port, "INVOKER_PROBE_PORT")
            )
        url = await stack.enter_async_context(
            http_server(compose(own), settings.http_host, settings.http_port, "INVOKER_HTTP_PORT")
        )
        holder.append(
            Controller(
                settings,
                client,
                source,
                catalog,
                engine,
                metrics,
                results,
                claims,
                publisher,
                url,
                probe_url or url,
                key,
            )
        )
        yield holder[0]


def _check_output(
    holder: list[Controller], name: str, spec_hash: str, data: bytes, content_type: str | None
) -> list[dict[str, str]]:
    function = holder[0].version(name, spec_hash) if holder else None
    return [dict(problem) for problem in function.check_output(data, content_type)] if function else []


def _has_output_schema(holder: list[Controller], name: str, spec_hash: str) -> bool:
    function = holder[0].version(name, spec_hash) if holder else None
    return function is not None and function.output.schema is not None


@asynccontextmanager
async def _connected(options: ConnectionOptions, metrics: Metrics) -> AsyncIterator[NatsClient]:
    told = ConnectionLog("app")

    async def listener(event: str) -> None:
        await told(event)
        if event == "reconnected":
            metrics.nats_reconnects.inc()

    client = await connect(options, timeout=5, listener=listener)
    if (words := words_about_server(client)) is not None:
        log.warning("about the NATS server", advice=words)
    try:
        yield client
    finally:
        told.end()
        with suppress(nats.errors.Error, TimeoutError, OSError):
            await client.close()
