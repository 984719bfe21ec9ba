"""The composition root: builds every part, starts them in order, and stops them in the reverse one.

Order of start: NATS and streams, catalog, engine, HTTP, then the loops; intake comes last, since nothing may be
accepted before a catalog was loaded and before somebody looks after what is accepted. One TaskGroup owns every task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect, words_about_server
from invoker.connection_log import ConnectionLog
from invoker.gateway.http_server import Routes, Served, http_server, probe_routes
from invoker.gateway.patience import ProbePlace
from invoker.gateway.run_api import RunApi
from invoker.publish import EventPublisher
from invoker.results.nats import ResultStream
from invoker.streams import ensure_streams
from trigger.catalog import Catalog
from trigger.catalog_source.directory import DirectorySource
from trigger.controller import Controller
from trigger.engines import engine_of, request_reasons
from trigger.input_file import InputReader
from trigger.metrics import Metrics
from trigger.settings import ControllerSettings
from trigger.task_owner import TaskOwner

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

log = structlog.get_logger(component="app")


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
                        ready(_facts(controller))
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


def _facts(controller: Controller) -> Running:
    """Where it is, and with what it works."""
    return Running(controller.http_url, controller.probe_url, controller.catalog, controller.engine.name)


def _trouble(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What ended the tasks, other than the stop: the error itself where there is one, as callers are promised. Pure."""
    rest: BaseException | None = group.split(_StoppedError)[1]
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest


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
        probes = probe_routes(
            lambda: holder[0].unready() if holder else ["starting"],
            lambda: holder[0].exposition(),
            lambda: holder[0].degraded() if holder else [],
        )
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
