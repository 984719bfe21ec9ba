"""`invoker gateway`: the HTTP side as a process of its own; everything about it is a setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from invoker.cli.examples import examples
from invoker.cli.session import Session, session_of

if TYPE_CHECKING:
    from invoker.connection import ConnectionOptions
    from invoker.gateway.settings import GatewaySettings

EXAMPLES = examples(
    "INVOKER_GATEWAY_ANONYMOUS=publish,read INVOKER_GATEWAY_PORT=0 INVOKER_GATEWAY_PROBE_PORT=0 invoker gateway",
    "INVOKER_GATEWAY_KEYS=keys.json invoker gateway --context production",
)


def register(app: typer.Typer) -> None:
    app.command("gateway", epilog=EXAMPLES, short_help="Run a production gateway (HTTP).")(gateway)


def gateway(context: typer.Context) -> None:
    """Run a gateway until SIGTERM: publish, results and operations over HTTP. Logs JSON on standard error.

    Settings come from INVOKER_… variables and the file named by INVOKER_CONFIG; an unusable one ends the start with
    its name and exit code 2. NATS is found as by every command: --server, INVOKER_NATS_…, NATS_…, contexts.
    """
    from invoker.gateway.settings import load_gateway_settings

    session = session_of(context)
    session.refuse_gateway("gateway")
    _run(session, load_gateway_settings(), session.nats_options())


def _run(session: Session, settings: GatewaySettings, options: ConnectionOptions) -> None:
    import asyncio

    from invoker.logs import configure_logs

    configure_logs(settings.log_format, "debug" if session.verbose else settings.log_level)
    _allow_many_files()
    asyncio.run(_until_signal(settings, options))


def _allow_many_files() -> None:
    """As many connections as the system grants: shells often start programs with room for 1,024 files."""
    import resource
    from contextlib import suppress

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _until_signal(settings: GatewaySettings, options: ConnectionOptions) -> None:
    """The gateway until SIGTERM or SIGINT; a second one does not wait for the orderly end."""
    import asyncio
    import signal

    import structlog

    from invoker.gateway.app import RunningGateway, run_gateway

    log = structlog.get_logger(component="cli")
    stopping, task = asyncio.Event(), asyncio.current_task()
    assert task is not None  # a coroutine that runs has a task
    started: list[RunningGateway] = []

    def stop() -> None:
        if stopping.is_set() or not started:
            task.cancel()
        stopping.set()

    def ready(running: RunningGateway) -> None:
        started.append(running)
        log.info("gateway ready", url=running.url, probe_url=running.probe_url, nats=options.shown)

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop)
    try:
        await run_gateway(settings, options, ready=ready, stopping=stopping)
    except asyncio.CancelledError:
        task.uncancel()
        raise typer.Exit(0 if started else 130) from None
