"""`invoker controller`: the production process; everything about it is a setting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from invoker.cli.examples import examples
from invoker.cli.program import Ready, run_until_signal
from invoker.cli.session import session_of
from invoker.version import __version__

if TYPE_CHECKING:
    import asyncio

    from invoker.connection import ConnectionOptions

EXAMPLES = examples(
    "INVOKER_CATALOG=functions INVOKER_STATE_DIR=.controller INVOKER_HTTP_PORT=0 invoker controller",
    "INVOKER_CONFIG=invoker.toml invoker controller --context production",
)


def register(app: typer.Typer) -> None:
    app.command("controller", epilog=EXAMPLES, short_help="Run a production controller.")(controller)


def controller(context: typer.Context) -> None:
    """Run a controller until SIGTERM: events in, runs started, results and replies out. Logs JSON on standard error.

    Settings come from INVOKER_… variables and the file named by INVOKER_CONFIG; an unusable one ends the start with
    its name and exit code 2. NATS is found as by every command: --server, INVOKER_NATS_…, NATS_…, contexts. While it
    is away or refuses us, the start waits: alive, not ready, with the reason in the log and at /readyz.
    """
    from invoker.gateway.patience import started_patiently
    from trigger.app import Running, before_start, probe_place, run_controller
    from trigger.settings import load_settings, nats_options

    session = session_of(context)
    session.refuse_gateway("controller")
    settings = load_settings()

    def options() -> ConnectionOptions:
        """Read again for every attempt to start: a password in a file may have been mended meanwhile."""
        return nats_options(server=session.server, context=session.context, creds=session.creds)

    def serve(ready: Ready, stopping: asyncio.Event) -> Awaitable[None]:
        def run(working: Callable[[], None]) -> Awaitable[None]:
            nats = replace(options(), read_again=options)  # the same for every attempt to come back

            def running(up: Running) -> None:
                working()
                functions = len(up.catalog.functions)
                ready(version=__version__, http_url=up.http_url, nats=nats.shown, functions=functions)

            return run_controller(settings, nats, ready=running, stopping=stopping)

        return started_patiently(run, lambda: before_start(settings, options()), probe_place(settings))

    run_until_signal(session, "controller", settings, serve)
