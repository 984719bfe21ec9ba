"""The servers of `invoker dev` in one process: nats-server as a child, controller, run API and local engine inside.

Start: lock the state, end what a killed dev left, nats-server, controller, `dev.json`. Stop: the same backwards. If
this process is killed, the kernel ends the nats-server (`parent_bound`), and the lock is free again.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from invoker.cli.dev_state import DevFacts, StateFolder, parent_bound, started_at
from invoker.cli.ports import LOOPBACK, choose_port
from invoker.connection import ConnectionOptions
from invoker.ending import cancelled
from invoker.errors import InvokerError, ServerUnreachableError, SettingsError
from invoker.nats_server import nats_server

if TYPE_CHECKING:
    from invoker.gateway.settings import GatewaySettings
    from trigger.app import Running
    from trigger.settings import ControllerSettings

NATS_PORT, HTTP_PORT = 4222, 7222
STOP_SECONDS = 8.0
"""An orderly stop takes this long at most; then what is left is cancelled."""
LOOK_SECONDS = 0.5


class LogSink(Protocol):
    """What the controller's log lines are written to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DevPlan:
    """What a dev is to be. Ports: None takes the usual one or the next free one, 0 any free one.

    `http_host` is where HTTP listens, `cluster` the settings of the Kubernetes engine that options gave; `kind` is what
    a new name of the state begins with.
    """

    state: StateFolder
    catalog: Path | None = None
    port: int | None = None
    http_port: int | None = None
    engine: str = "local"
    fresh: bool = False
    log: LogSink | None = None
    http_host: str | None = None
    cluster: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "dev"


@dataclass(frozen=True, slots=True)
class Dev:
    """A ready dev. `stop` ends it in an orderly way, from a signal handler too."""

    facts: DevFacts
    running: Running
    stop: Callable[[], None]


class InterruptedStartError(Exception):
    """A signal came before the servers were ready."""


def clean_up(plan: DevPlan) -> None:
    """End and remove what a killed dev left on the locked state; with `fresh` drop all that was kept."""
    # The server first: one that is still writing would put removed files back.
    plan.state.end_stale_server()
    plan.state.forget()
    if plan.fresh:
        plan.state.clear()


async def serve(plan: DevPlan, use: Callable[[Dev], Coroutine[Any, Any, None]]) -> None:
    """Run a dev until it is stopped (SIGINT, SIGTERM, `Dev.stop`); `use` runs beside it from the moment it is ready.

    Raises `InterruptedStartError` for a signal before that, and what kept the servers from starting or working.
    """
    stopping, task = asyncio.Event(), asyncio.current_task()
    assert task is not None  # a coroutine that runs has a task
    interrupted, ready = False, False

    def stop() -> None:
        nonlocal interrupted
        stopping.set()
        if not ready:
            interrupted = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop)
    try:
        async with _servers(plan, stopping) as dev:
            ready = True
            await _until_stopped(dev, use, stopping)
    except asyncio.CancelledError:
        if not interrupted:
            raise
        task.uncancel()
        raise InterruptedStartError from None


async def _until_stopped(
    dev: _Started, use: Callable[[Dev], Coroutine[Any, Any, None]], stopping: asyncio.Event
) -> None:
    """`use` beside the servers; its end is not theirs, its error is."""
    ready = Dev(dev.facts, dev.running, stopping.set)
    using = asyncio.create_task(use(ready), name="use")
    waiting = asyncio.create_task(stopping.wait(), name="stopping")
    try:
        watched = {waiting, dev.controller, dev.server_watch}
        while not stopping.is_set():
            live = watched if using.done() else {*watched, using}
            done, _ = await asyncio.wait(live, return_when=asyncio.FIRST_COMPLETED)
            if using in done and using.exception() is not None:
                # If its server is gone, that is the news, not what failed because of it.
                await asyncio.wait({dev.server_watch}, timeout=2 * LOOK_SECONDS)
            for task in (dev.server_watch, dev.controller, using):
                if task.done():
                    task.result()
            if dev.controller.done():
                return
    finally:
        await cancelled(using, waiting)


@dataclass(frozen=True, slots=True)
class _Started:
    facts: DevFacts
    running: Running
    controller: asyncio.Task[None]
    server_watch: asyncio.Task[None]


@asynccontextmanager
async def _servers(plan: DevPlan, stopping: asyncio.Event) -> AsyncIterator[_Started]:
    import os

    state = plan.state
    port = choose_port(plan.port, NATS_PORT, "--port")
    http_port = choose_port(plan.http_port, HTTP_PORT, "--http-port", settings_of(plan).http_host)
    log = state.path / "nats-server.log"
    # Any free port is the servers' own to take: one that was found free before may be another's by then.
    async with nats_server(state.jetstream, port=port or -1, launcher=parent_bound(), log_file=log) as server:
        state.remember_server(server.pid)
        began = started_at(server.pid)
        try:
            async with _controller(plan, server.url, http_port, stopping) as (running, controller):
                watch = asyncio.create_task(_server_lives(server.pid, began), name="server-watch")
                facts = DevFacts(server.url, running.http_url, os.getpid(), _catalog_of(plan))
                state.tell(facts)
                try:
                    yield _Started(facts, running, controller, watch)
                finally:
                    # First of all: nobody new is to come while the servers go.
                    state.forget()
                    await cancelled(watch)
        finally:
            state.forget_server()


@asynccontextmanager
async def _controller(
    plan: DevPlan, nats_url: str, http_port: int, stopping: asyncio.Event
) -> AsyncIterator[tuple[Running, asyncio.Task[None]]]:
    """The controller as a task, ready; stopped in an orderly way when this is left."""
    from invoker.logs import configure_logs
    from invoker.tracing_switch import traced

    settings = settings_of(plan, http_port)
    if settings.run_token_key is None:
        # Controller and gateway must have the same one: answers of functions come in at both.
        settings = settings.model_copy(update={"run_token_key": secrets.token_hex(32)})
    configure_logs("json", settings.log_level, cast(TextIO | None, plan.log))
    with traced("invoker-dev"):
        async with _both(settings, nats_url, stopping) as both:
            yield both


@asynccontextmanager
async def _both(
    settings: ControllerSettings, nats_url: str, stopping: asyncio.Event
) -> AsyncIterator[tuple[Running, asyncio.Task[None]]]:
    """Controller and gateway with the same settings."""
    from invoker.gateway.app import gateway_app, opened_gateway
    from trigger.app import run_controller

    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    options = ConnectionOptions(url=nats_url, name="invoker dev")
    async with opened_gateway(gateway_settings(settings), options) as gateway:
        task = asyncio.create_task(
            run_controller(
                settings,
                options,
                ready=ready.set_result,
                stopping=stopping,
                compose=lambda inner: gateway_app(gateway, inner),
            ),
            name="controller",
        )
        async with _watched(task, ready, stopping) as running:
            try:
                yield running, task
            finally:
                gateway.close()  # before the controller stops, and with it the server that they share


@asynccontextmanager
async def _watched(
    task: asyncio.Task[None], ready: asyncio.Future[Running], stopping: asyncio.Event
) -> AsyncIterator[Running]:
    """The controller, ready; stopped in an orderly way when this is left."""
    try:
        both: set[asyncio.Future[Any]] = {task, ready}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await task
            raise InvokerError("the controller ended before it was ready")
        yield ready.result()
    finally:
        stopping.set()
        _, left = await asyncio.wait({task}, timeout=STOP_SECONDS)
        if left:
            await cancelled(task)
        elif not task.cancelled():
            task.exception()  # looked at: whoever waits for the task has seen it


def gateway_settings(settings: ControllerSettings) -> GatewaySettings:
    """The gateway inside of a dev. Where only this machine reaches it everything is allowed without login; on another
    address, which pods need for their runs, calls need what the settings of a gateway say."""
    from invoker.gateway.access.web_pages import is_loopback
    from invoker.gateway.settings import load_gateway_settings

    let_in: dict[str, Any] = {"gateway_anonymous": ("admin",)} if is_loopback(settings.http_host) else {}
    return load_gateway_settings(
        instance=settings.instance,
        topic_prefix=settings.topic_prefix,
        run_token_key=settings.run_token_key,
        max_event_bytes=settings.max_event_bytes,
        max_output_bytes=settings.max_output_bytes,
        gateway_host=settings.http_host,
        gateway_gitfaas=True,
        **let_in,
    )


def dashboard_url(plan: DevPlan, http_url: str) -> str | None:
    """Where a browser finds the dashboard, None when it is switched off."""
    return f"{http_url}/ui" if gateway_settings(settings_of(plan)).gateway_dashboard else None


def access_warnings(plan: DevPlan) -> list[str]:
    """What is to be known about who may call this dev's HTTP; nothing when it listens on this machine only."""
    from invoker.gateway.access.web_pages import warnings_about

    settings = settings_of(plan)
    return [f"HTTP on {settings.http_host}: {words}" for words in warnings_about(gateway_settings(settings))]


def settings_of(plan: DevPlan, http_port: int = 0) -> ControllerSettings:
    """The controller's settings. Raises `SettingsError` for those that cannot be used, and, with the Kubernetes engine,
    when no pod would reach the run API."""
    from invoker.cli.dev_cluster import HOST_HINT, settings_given
    from trigger.settings import load_settings

    given: dict[str, Any] = {
        "state_dir": plan.state.path,
        "http_host": plan.http_host or LOOPBACK,
        "http_port": http_port,
        "engine": plan.engine,
        "sole_controller": True,
    }
    if plan.catalog is not None:
        given["catalog"] = plan.catalog
    if plan.engine == "local":
        return load_settings(**given)
    try:
        return load_settings(**given | settings_given(plan))
    except SettingsError as error:
        if "INVOKER_RUN_API_URL" not in error.message:
            raise
        raise SettingsError(error.message, hint=HOST_HINT) from error


def catalog_meant(given: Path | None) -> Path:
    """The folder that a dev takes for its catalog: the one that is given, else that of the settings."""
    from trigger.settings import load_settings

    return given or load_settings(engine="local").catalog


def check_catalog(plan: DevPlan) -> Path:
    """The catalog's folder. Raises `SettingsError` saying what to do when there is none."""
    folder = settings_of(plan).catalog
    if not folder.is_dir():
        option = "--catalog" if plan.catalog is not None else "no functions here"
        if folder.exists():
            raise SettingsError(
                f"{option}: {folder} is a file, not a folder",
                hint="name the folder with your functions (--catalog DIR)",
            )
        raise SettingsError(
            f"{option}: the folder {folder} does not exist",
            hint="name the folder with your functions (--catalog DIR), or begin one",
            try_command="invoker functions new hello",
        )
    return folder


def _catalog_of(plan: DevPlan) -> str:
    return str(settings_of(plan).catalog.resolve())


async def _server_lives(pid: int, began: str) -> None:
    """Raises `ServerUnreachableError` once the nats-server that began then is gone: nothing works any more, and it
    should be seen. When it began is asked by who started it: of one that has ended meanwhile nobody could tell."""
    while began and started_at(pid) == began:  # noqa: ASYNC110 - the process belongs to `nats_server`, which tells nobody
        await asyncio.sleep(LOOK_SECONDS)
    raise ServerUnreachableError(
        "the nats-server of this dev has ended", hint="the state's nats-server.log may say why"
    )
