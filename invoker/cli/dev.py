"""`invoker dev`: a whole Invoker in one command, for a desk."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.examples import examples
from invoker.cli.options import KubeconfigOption, KubeContextOption, NamespaceOption, cluster_settings
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, session_of
from invoker.errors import SettingsError
from invoker.version import __version__

if TYPE_CHECKING:
    from invoker.cli.dev_server import Dev, DevPlan
    from invoker.cli.dev_state import DevFacts, StateFolder

INTERRUPTED = 130
TOLD_AFTER_SECONDS = 2.0
READY_SECONDS = 60.0
"""How long a second start waits for a first one: it lives, and on a busy machine its servers take their time."""

EXAMPLES = examples(
    "invoker dev",
    "invoker dev --catalog functions --logs --fresh",
    "invoker dev --state .invoker --port 0 --http-port 0 -o json",
)


class EngineName(StrEnum):
    """What executes runs."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


EngineOption = Annotated[EngineName, typer.Option(metavar="NAME", help="What executes runs: local or kubernetes.")]
HttpHostOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Where HTTP listens: for kubernetes one that pods reach; 127.0.0.1."),
]


def register(app: typer.Typer) -> None:
    app.command("dev", epilog=EXAMPLES, short_help="Run everything in one command, for a desk.")(dev)


def dev(
    context: typer.Context,
    catalog: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the functions; ./functions when left out.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where state is kept; INVOKER_STATE, or the user's state folder.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the kept state first.")] = False,
    engine: EngineOption = EngineName.LOCAL,
    kubeconfig: KubeconfigOption = None,
    kube_context: KubeContextOption = None,
    namespace: NamespaceOption = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="NATS; 4222 or the next free one by default."),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="HTTP; 7222 or the next free one by default."),
    ] = None,
    http_host: HttpHostOption = None,
    logs: Annotated[
        bool, typer.Option("--logs", help="Show what runs wrote, below the line of their end; not with -o json.")
    ] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Run nats-server with JetStream, the controller and an engine; show runs live; Ctrl-C stops.

    A second start on the same state finds the first one, prints its addresses and ends with 0, or with 2 when it was
    meant for another catalog. With -o json the first line on standard output has the addresses, every further one a
    change of a run.

    With --engine kubernetes every run is a Job, in an image that INVOKER_RUNTIME_IMAGES names (docs/kubernetes.md).
    """
    from invoker import settings
    from invoker.cli.dev_cluster import check_cluster, check_options, clear_cluster
    from invoker.cli.dev_server import DevPlan, check_catalog, clean_up, settings_of
    from invoker.cli.dev_state import StateFolder

    session = session_of(context)
    session.refuse_gateway("dev")
    chosen = cluster_settings(kubeconfig, kube_context, namespace)
    check_options(engine, chosen)
    folder = StateFolder((state or settings.default_state_dir()).expanduser().resolve())
    if not folder.lock():
        _tell_running(session, folder, output, catalog, fresh=fresh)
        return
    try:
        plan = DevPlan(folder, catalog, port, http_port, engine.value, fresh, http_host=http_host, cluster=chosen)
        catalog_folder = check_catalog(plan)
        words = engine.value
        if engine is EngineName.KUBERNETES:
            words = check_cluster(settings_of(plan))
            if fresh:
                session.note(clear_cluster(settings_of(plan)))
        clean_up(plan)
        _serve(session, plan, catalog_folder, output, words, logs=logs)
    finally:
        folder.unlock()


def _serve(session: Session, plan: DevPlan, catalog_folder: Path, output: Form, engine: str, *, logs: bool) -> None:
    import asyncio
    from dataclasses import replace

    from invoker.cli.dev_screen import LogSplitter
    from invoker.cli.dev_server import InterruptedStartError, serve

    began = time.monotonic()
    session.note(f" Invoker {__version__}  development server\n")
    with (plan.state.path / "controller.log").open("a", buffering=1) as log:

        async def use(ready: Dev) -> None:
            _announce(session, ready, plan, catalog_folder, time.monotonic() - began, output, engine)
            await _show(session, ready, output, logs=logs)

        try:
            asyncio.run(serve(replace(plan, log=LogSplitter(log, session.note)), use))
        except InterruptedStartError:
            raise typer.Exit(INTERRUPTED) from None
    session.note(f" stopped; state kept in {plan.state.path}")
    if plan.engine == EngineName.KUBERNETES:
        session.note(" Jobs that run go on; the next dev on this state takes their results")


def _announce(
    session: Session, ready: Dev, plan: DevPlan, catalog_folder: Path, took: float, output: Form, engine: str
) -> None:
    from invoker.cli.dev_screen import banner, first_try
    from invoker.cli.dev_server import access_warnings, dashboard_url

    facts, running = ready.facts, ready.running
    if not output.for_people:
        session.data(rendered_item(facts.document(), Form.JSONL, "nats_url"))
    pages = dashboard_url(plan, facts.http_url)
    session.note(
        banner(facts.http_url, pages, facts.nats_url, running.catalog, catalog_folder, engine, plan.state.path, took)
    )
    for words in access_warnings(plan):
        session.note(f"  ! {words}")
    server = "" if _found_by_default(plan.state) else f" --server {facts.nats_url}"
    session.note(f"\n  Try:  {first_try(running.catalog, catalog_folder, server)}\n  Stop: Ctrl-C\n")


def _found_by_default(folder: StateFolder) -> bool:
    """Whether other commands of this user find this dev without being told."""
    from invoker import settings

    return folder.path == settings.default_state_dir().expanduser().resolve()


async def _show(session: Session, ready: Dev, output: Form, *, logs: bool) -> None:
    """Live lines until the end; a reader that has gone away stops them, not the servers."""
    from invoker.cli.dev_screen import show_runs
    from invoker.client import Client
    from invoker.connection import ConnectionOptions

    async with Client.connect(ConnectionOptions(url=ready.facts.nats_url, name="invoker dev screen")) as client:
        try:
            await show_runs(session, client, output, logs=logs)
        except typer.Exit:
            return


def _tell_running(session: Session, folder: StateFolder, output: Form, catalog: Path | None, *, fresh: bool) -> None:
    """What the first one is; it may be starting still."""
    from invoker.cli.dev_server import catalog_meant

    facts = _first_facts(session, folder)
    if facts is None:
        raise SettingsError(f"another `invoker dev` holds the state {folder.path}, but is not ready", hint="try again")
    if fresh:
        raise SettingsError(
            f"--fresh: an `invoker dev` (pid {facts.pid}) runs on the state {folder.path}", hint="stop it first"
        )
    meant = catalog_meant(catalog)
    if facts.catalog and str(meant.resolve()) != facts.catalog and (catalog is not None or meant.is_dir()):
        raise SettingsError(
            f"an `invoker dev` (pid {facts.pid}) runs with another catalog: {facts.catalog}",
            hint="stop it first, or keep both apart: --state DIR here, and INVOKER_STATE=DIR for the other commands",
        )
    if output.for_people:
        session.note(f"an `invoker dev` runs already (pid {facts.pid}) on {folder.path}, catalog {facts.catalog}")
        session.data(f"{facts.nats_url}\n{facts.http_url}\n")
    else:
        session.data(rendered_item(facts.document(), output, "nats_url"))


def _first_facts(session: Session, folder: StateFolder) -> DevFacts | None:
    began, told = time.monotonic(), False
    while (facts := folder.facts()) is None and time.monotonic() - began < READY_SECONDS:
        if not told and time.monotonic() - began > TOLD_AFTER_SECONDS:
            session.note(f"an `invoker dev` is starting on {folder.path}; waiting for it")
            told = True
        time.sleep(0.05)
    return facts
