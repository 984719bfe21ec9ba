"""`invoker controller`: the production process; everything about it is a setting."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import typer

from invoker.cli.examples import examples
from invoker.cli.program import Ready, run_until_signal
from invoker.cli.session import session_of

if TYPE_CHECKING:
    import asyncio

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
    from trigger.app import Running, run_controller
    from trigger.settings import load_settings, nats_options

    session = session_of(context)
    session.refuse_gateway("controller")
    settings = load_settings()
    options = nats_options(server=session.server, context=session.context, creds=session.creds)

    def serve(ready: Ready, stopping: asyncio.Event) -> Awaitable[None]:
        def running(up: Running) -> None:
            ready(http_url=up.http_url, nats=options.shown, functions=len(up.catalog.functions))

        return run_controller(settings, options, ready=running, stopping=stopping)

    run_until_signal(session, "controller", settings, serve)
