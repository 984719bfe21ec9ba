"""`invoker controller`: the production process; everything about it is a setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from invoker.cli.examples import examples
from invoker.cli.session import Session, session_of

if TYPE_CHECKING:
    from invoker.connection import ConnectionOptions
    from trigger.settings import ControllerSettings

EXAMPLES = examples(
    "INVOKER_CATALOG=functions INVOKER_STATE_DIR=.controller INVOKER_HTTP_PORT=0 invoker controller",
    "INVOKER_CONFIG=invoker.toml invoker controller --context production",
)


def register(app: typer.Typer) -> None:
    app.command("controller", epilog=EXAMPLES, short_help="Run a production controller.")(controller)


def controller(context: typer.Context) -> None:
    """Run a controller until SIGTERM: events in, runs started, results and replies out. Logs JSON on standard error.

    Settings come from INVOKER_… variables and the file named by INVOKER_CONFIG; an unusable one ends the start with
    its name and exit code 2. NATS is found as by every command: --server, INVOKER_NATS_…, NATS_…, contexts.
    """
    from trigger.settings import load_settings, nats_options

    session = session_of(context)
    session.refuse_gateway("controller")
    settings = load_settings()
    options = nats_options(server=session.server, context=session.context, creds=session.creds)
    _run(session, settings, options)


def _run(session: Session, settings: ControllerSettings, options: ConnectionOptions) -> None:
    import asyncio

    from invoker.logs import configure_logs

    configure_logs(settings.log_format, "debug" if session.verbose else settings.log_level)
    asyncio.run(_until_signal(settings, options))


async def _until_signal(settings: ControllerSettings, options: ConnectionOptions) -> None:
    """The controller until SIGTERM or SIGINT; a second one does not wait for the orderly end."""
    import asyncio
    import signal

    import structlog

    from trigger.app import Running, run_controller

    log = structlog.get_logger(component="cli")
    stopping, task = asyncio.Event(), asyncio.current_task()
    assert task is not None  # a coroutine that runs has a task

    def stop() -> None:
        if stopping.is_set() or not started:
            task.cancel()
        stopping.set()

    started: list[Running] = []

    def ready(running: Running) -> None:
        started.append(running)
        count = len(running.catalog.functions)
        log.info("controller ready", http_url=running.http_url, nats=options.shown, functions=count)

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop)
    try:
        await run_controller(settings, options, ready=ready, stopping=stopping)
    except asyncio.CancelledError:
        task.uncancel()
        raise typer.Exit(0 if started else 130) from None
