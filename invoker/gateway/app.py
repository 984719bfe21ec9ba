"""The composition root of the gateway: connection, feed, catalog, routes, door, listeners; stopped in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.connection_log import ConnectionLog
from invoker.ending import cancelled
from invoker.errors import InputRefusedError, InvokerError, MethodRefusedError, NoSuchPathError
from invoker.gateway import gitfaas
from invoker.gateway.access.limits import CallLimiter, address_finder, peer_counter
from invoker.gateway.access.login import CallerLogin
from invoker.gateway.access.web_pages import PageGuard, allowing_pages, warnings_about
from invoker.gateway.answers import problem, unexpected
from invoker.gateway.bodies import Bodies
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dashboard import paths as dashboard_paths
from invoker.gateway.dashboard.refusal import refusal_page
from invoker.gateway.dashboard.session import BrowserSession
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.door import Door, shown_path
from invoker.gateway.gateway import Gateway
from invoker.gateway.http_protocol import ServerLimits
from invoker.gateway.http_server import http_server, probe_routes
from invoker.gateway.metrics import GatewayMetrics
from invoker.gateway.patience import ProbePlace
from invoker.gateway.request_target import OriginForm
from invoker.gateway.result_source import ToldSource, chosen_results
from invoker.gateway.routes import routers
from invoker.gateway.run_address import PATH_PREFIX
from invoker.gateway.run_api import RunApi
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.topic_table import TopicTable
from invoker.gateway.witness import CallWitness
from invoker.shared_reads import SharedReads
from invoker.version import __version__

log = structlog.get_logger(component="gateway")


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway that is up: where its public side and its probes listen, and what its routes stand on."""

    url: str
    probe_url: str
    gateway: Gateway


@asynccontextmanager
async def opened_gateway(settings: GatewaySettings, options: ConnectionOptions) -> AsyncIterator[Gateway]:
    """What the routes stand on, connected; its tasks run until this is left. Raises `ServerUnreachableError`."""
    told = ConnectionLog("gateway")
    async with Client.connect(options, names=settings.names, timeout=5.0, listener=told) as client:
        client.allow_events_of(settings.max_event_bytes)
        catalog, runs, topics = CatalogCopy(client), RunTable(client.feed), TopicTable(client.feed, settings.names)
        dead = DeadNews(client)
        tasks = [
            asyncio.create_task(client.feed.run(), name="feed"),
            asyncio.create_task(catalog.run(), name="catalog"),
            asyncio.create_task(_read_past(runs, topics), name="recent-runs"),
            asyncio.create_task(dead.run(), name="dead-letters"),
        ]
        try:
            async with chosen_results(settings, client) as filler:
                requests = SharedReads(client.stored.request)
                closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                run_api = run_api_of(settings, client, catalog)
                gateway = Gateway(
                    settings, client, catalog, runs, topics, dead, requests, run_api=run_api, closing=closing,
                    filler=filler,
                )  # fmt: skip
                client.custody.publisher.on_outcome = gateway.metrics.published
                yield gateway
        finally:
            told.end()
            await cancelled(*tasks)


async def _read_past(runs: RunTable, topics: TopicTable) -> None:
    """One after the other: lists of runs are asked for more, and both at once would take twice as long."""
    await runs.run()
    await topics.run()


def gateway_app(gateway: Gateway, inner: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The gateway's application. `inner` are routes with doors of their own (run API, probes): they come first."""
    settings = gateway.settings
    app = FastAPI(
        title="Invoker",
        version=__version__,
        openapi_url=None,  # made from the catalog as it is: invoker/gateway/openapi.py
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the address would be made of whatever Host the caller sends
        routes=list(inner),
    )
    ours = routers(gateway)
    for router in ours:
        app.include_router(router)
    calls = [*inner, *(route for router in ours for route in router.routes)]
    gateway.metrics.expect_calls((one.path, one.methods or ()) for one in calls if isinstance(one, Route))
    app.add_exception_handler(InvokerError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)
    own_doors = tuple(route.path for route in inner if hasattr(route, "path") and "{" not in route.path)
    door = Door(
        ToldSource(app, gateway.metrics),
        login=CallerLogin(settings),
        limiter=CallLimiter(settings),
        witness=CallWitness(gateway.metrics),
        guard=PageGuard.of(settings),
        is_open=dashboard_paths.is_open,
        has_own_door=lambda path: path.startswith(PATH_PREFIX) or gitfaas.has_own_door(path) or path in own_doors,
        address_of=address_finder(settings),
        bodies=Bodies(
            settings.gateway_body_seconds, settings.gateway_body_bytes_per_second, settings.gateway_max_held_bytes
        ),
        closing=gateway.closing or asyncio.get_running_loop().create_future(),
    )
    browsers = BrowserSession(door, refusal_page) if settings.gateway_dashboard else door
    return OriginForm(allowing_pages(browsers, settings.gateway_cors_origins))


def run_api_of(settings: GatewaySettings, client: Client, catalog: CatalogCopy) -> RunApi | None:
    """The run API, when the key of its tokens is known here."""
    if settings.run_token_key is None:
        return None
    custody = client.custody
    return RunApi(
        custody.results,
        custody.claims,
        custody.publisher,
        key=settings.run_token_key.encode(),
        max_output_bytes=settings.max_output_bytes,
        max_event_bytes=settings.max_event_bytes,
        check_output=catalog.output_problems,
        has_output_schema=catalog.has_output_schema,
        learn=catalog.learn,
        names=settings.names,
    )


async def run_gateway(
    settings: GatewaySettings,
    options: ConnectionOptions,
    *,
    ready: Callable[[RunningGateway], None] | None = None,
    stopping: asyncio.Event | None = None,
) -> None:
    """A gateway, until `stopping` is set or this is cancelled; calls that are being answered get some seconds.

    `ready` is called once, when calls are taken. Raises `SettingsError` or `ServerUnreachableError` when it cannot
    start; later outages of NATS are told by `/readyz` and by the answers, and end by themselves.
    """
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(opened_gateway(settings, options))
        limits = ServerLimits(
            settings.gateway_max_connections, settings.gateway_header_seconds, settings.gateway_body_seconds,
            address_connections=settings.gateway_address_connections, counted_as=peer_counter(settings),
        )  # fmt: skip
        probes = probe_routes(lambda: unready(gateway), lambda: exposition(gateway))
        probe_url = await stack.enter_async_context(
            http_server(probes, settings.gateway_probe_host, settings.gateway_probe_port, "INVOKER_GATEWAY_PROBE_PORT")
        )
        app = gateway_app(gateway, gateway.run_api.routes() if gateway.run_api is not None else ())
        url = await stack.enter_async_context(
            http_server(app, settings.gateway_host, settings.gateway_port, "INVOKER_GATEWAY_PORT", limits)
        )
        stack.callback(gateway.close)  # before the servers stop: they give what is being answered two seconds
        for words in warnings_about(settings):
            log.warning("about the settings", advice=words)
        if ready is not None:
            ready(RunningGateway(url, probe_url, gateway))
        await (stopping or asyncio.Event()).wait()
        log.info("gateway stopping")


async def before_start(options: ConnectionOptions) -> None:
    """What a start needs of others, tried and undone: a NATS that takes us. Raises `ServerUnreachableError`."""
    client = await connect(options, timeout=5.0)
    await client.close()


def probe_place(settings: GatewaySettings) -> ProbePlace:
    """Where the probes of a gateway with these settings are, before it works too."""
    return ProbePlace(
        settings.gateway_probe_host, settings.gateway_probe_port, "INVOKER_GATEWAY_PROBE_PORT",
        lambda: GatewayMetrics().exposition(),
    )  # fmt: skip


def unready(gateway: Gateway) -> list[str]:
    """What keeps the gateway from working, in words; empty when nothing does.

    Controllers must have answered once. When they are away later, events are kept and polls answered all the same: were
    that no readiness, an outage of theirs would close every gateway's door as well.
    """
    missing = gateway.client.problems
    if gateway.catalog.problem is not None and not gateway.catalog.is_known:
        missing.append(f"controllers: {gateway.catalog.problem}")
    return missing


def exposition(gateway: Gateway) -> bytes:
    """The metrics, with the gauges as of now."""
    connected = gateway.client.is_connected
    gateway.metrics.nats_connected.set(1 if connected else 0)
    gateway.metrics.controllers_answer.set(1 if gateway.catalog.problem is None else 0)
    gateway.metrics.told_store("nats", up=connected)
    if (filler := gateway.filler) is not None:
        behind = gateway.client.feed.position - filler.sequence
        gateway.metrics.told_store("redis", up=filler.is_reachable, behind=behind)
    gateway.metrics.recent_runs.set(len(gateway.runs))
    gateway.metrics.recent_runs_loaded.set(1 if gateway.runs.loaded else 0)
    return gateway.metrics.exposition()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvokerError)
    return problem(error, instance=shown_path(request.scope))


async def _failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw, told without any of it; the door logs it."""
    return problem(unexpected(), instance=shown_path(request.scope))


async def _invalid(request: Request, error: Exception) -> Response:
    """A parameter or a body that does not fit, field by field, as a problem document like all others."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": "/" + "/".join(str(part) for part in one["loc"]), "detail": str(one["msg"])[:300]}
        for one in error.errors()[:20]
    ]
    words = f"{errors[0]['pointer']}: {errors[0]['detail']}" if errors else "it does not fit"
    return problem(
        InputRefusedError(f"the call cannot be read: {words}", errors=errors), instance=shown_path(request.scope)
    )


async def _no_route(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, or not with that method."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    words = f"nothing here takes {request.method} {path!a}"
    kind = MethodRefusedError if error.status_code == 405 else NoSuchPathError
    refused = kind(words, hint="GET /openapi.json lists everything", allow=(error.headers or {}).get("Allow"))
    answer = problem(refused, instance=path)
    if error.headers:
        answer.headers.update(error.headers)
    return answer
