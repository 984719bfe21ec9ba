"""`invoker gateway`: the HTTP side as a process of its own; everything about it is a setting."""

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

EXAMPLES = examples(
    "INVOKER_GATEWAY_ANONYMOUS=publish,read INVOKER_GATEWAY_PORT=0 INVOKER_GATEWAY_PROBE_PORT=0 invoker gateway",
    "INVOKER_GATEWAY_KEYS=keys.json invoker gateway --context production",
)


def register(app: typer.Typer) -> None:
    app.command("gateway", epilog=EXAMPLES, short_help="Run a production gateway (HTTP).")(gateway)


def gateway(context: typer.Context) -> None:
    """Run a gateway until SIGTERM: publish, results and operations over HTTP. Logs JSON on standard error.

    Settings come from INVOKER_… variables and the file named by INVOKER_CONFIG; an unusable one ends the start with
    its name and exit code 2. NATS is found as by every command: --server, INVOKER_NATS_…, NATS_…, contexts. While it
    is away or refuses us, the start waits: alive, not ready, with the reason in the log and at /readyz.
    """
    from invoker.gateway.app import RunningGateway, before_start, probe_place, run_gateway
    from invoker.gateway.patience import started_patiently
    from invoker.gateway.settings import load_gateway_settings

    session = session_of(context)
    session.refuse_gateway("gateway")
    settings = load_gateway_settings()

    def serve(ready: Ready, stopping: asyncio.Event) -> Awaitable[None]:
        def run(working: Callable[[], None]) -> Awaitable[None]:
            # Again for every attempt to start or to come back: a password in a file may have been mended.
            nats = replace(session.nats_options(), read_again=session.nats_options)

            def running(up: RunningGateway) -> None:
                working()
                ready(version=__version__, url=up.url, probe_url=up.probe_url, nats=nats.shown)

            return run_gateway(settings, nats, ready=running, stopping=stopping)

        return started_patiently(run, lambda: before_start(session.nats_options()), probe_place(settings))

    _allow_many_files()
    run_until_signal(session, "gateway", settings, serve)


def _allow_many_files() -> None:
    """As many connections as the system grants: shells often start programs with room for 1,024 files."""
    import resource
    from contextlib import suppress

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
