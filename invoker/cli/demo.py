"""`invoker demo`: a temporary dev, three functions that know only topics, one chain watched to its end."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.dev import EngineName, EngineOption, HttpHostOption
from invoker.cli.examples import examples
from invoker.cli.options import KubeconfigOption, KubeContextOption, NamespaceOption, cluster_settings
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, session_of
from invoker.errors import InputRefusedError, InvokerError

if TYPE_CHECKING:
    from invoker.cli.demo_chain import Outcome
    from invoker.cli.dev_server import Dev, DevPlan

INTERRUPTED = 130
DEMO_SOURCE = "data/tzdata"
"""Lies with the code of `collect`, so it is there wherever that runs: as a process here or in a pod."""
OURS = "app.kubernetes.io/managed-by=invoker"
EXAMPLES = examples(
    "invoker demo",
    "invoker demo -o json",
    "invoker demo ./data --pattern '*.csv'",
)


def register(app: typer.Typer) -> None:
    app.command("demo", epilog=EXAMPLES, short_help="See three functions at work, then nothing is left.")(demo)


def demo(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="A file, a folder or a web address; time-zone tables if none."),
    ] = None,
    pattern: Annotated[str | None, typer.Option(metavar="PATTERN", help="Which files of a folder.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards, until Ctrl-C.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", parser=arguments.seconds, help="Give up after so long.")
    ] = 300.0,
    engine: EngineOption = EngineName.LOCAL,
    kubeconfig: KubeconfigOption = None,
    kube_context: KubeContextOption = None,
    namespace: NamespaceOption = None,
    http_host: HttpHostOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Show collect, uncompress and convert at work on real files, on a server of its own, and leave nothing behind.

    Without a source it converts tables of the time-zone database. Ends with 0 only when every run succeeded.
    With --engine kubernetes every run is a Job in a cluster, and its Jobs are removed at the end (docs/kubernetes.md).
    """
    from invoker.cli.dev_cluster import check_options

    cluster = cluster_settings(kubeconfig, kube_context, namespace)
    check_options(engine, cluster)
    samples = samples_folder()
    event = {"source": _source(source, engine) if source else DEMO_SOURCE}
    if pattern:
        event["pattern"] = pattern
    from invoker.cli.dev_server import DevPlan
    from invoker.cli.dev_state import StateFolder

    session = session_of(context)
    session.refuse_gateway("demo")
    state = Path(tempfile.mkdtemp(prefix="invoker-demo-"))
    try:
        plan = DevPlan(
            StateFolder(state), samples, 0, 0, engine.value, http_host=http_host, kind="demo",
            cluster=cluster,
        )  # fmt: skip
        with _cluster(session, plan):
            outcome = _played(session, plan, event, wait, output, keep=keep)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    if outcome.error is not None:
        raise _with_next_step(outcome.error, engine, keep=keep)


def _with_next_step(error: InvokerError, engine: EngineName, *, keep: bool) -> InvokerError:
    """The error with a command that helps now: those about a run find nobody who knows it any more."""
    error.fields["try_command"] = shlex.join(["invoker", *sys.argv[1:], *([] if keep else ["--keep"])])
    if engine is EngineName.KUBERNETES:
        error.hint = f"while it runs, its pods say more: kubectl describe pods --selector {OURS}"
    return error


def samples_folder() -> Path:
    """The sample functions: inside the installed package, or in the repository this runs from."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "samples", here.parent / "functions" / "samples"):
        if (folder / "collect" / "function.yaml").is_file():
            return folder
    raise InvokerError("the sample functions are not installed", hint="install it whole: pip install . in the checkout")


@contextmanager
def _cluster(session: Session, plan: DevPlan) -> Iterator[None]:
    """What a demo on a cluster needs is there; whatever it makes there is removed, however it ends."""
    from invoker.cli.dev_cluster import check_cluster, clear_cluster
    from invoker.cli.dev_server import settings_of

    if plan.engine != EngineName.KUBERNETES:
        yield
        return
    settings = settings_of(plan)
    session.note(f" {check_cluster(settings)}\n")
    try:
        yield
    finally:
        session.note(" removing what it made in the cluster …")
        session.note(clear_cluster(settings))


def _source(source: str, engine: EngineName) -> str:
    """A web address as it is, a path as an absolute one: functions run in folders of their own."""
    if source.lower().startswith(("http://", "https://")):
        return source
    if engine is EngineName.KUBERNETES:
        raise InputRefusedError(
            f"no pod sees {source}", hint="name an http(s) address, or none for the demo's own data"
        )
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InputRefusedError(f"{source} does not exist", hint="name a file, a folder or an http(s) address")
    return str(path)


def _played(
    session: Session, plan: DevPlan, event: dict[str, str], wait: float, output: Form, *, keep: bool
) -> Outcome:
    import asyncio
    from dataclasses import replace

    from invoker.cli.demo_chain import play
    from invoker.cli.dev_server import InterruptedStartError, dashboard_url, serve

    plan.state.lock()
    outcomes: list[Outcome] = []

    async def use(ready: Dev) -> None:
        session.note(" Three functions that know only topics: collect → uncompress → convert\n")
        outcomes.append(await play(session, ready.facts.nats_url, event, wait, live=output.for_people))
        _tell(session, outcomes[0], output)
        if keep:
            pages = dashboard_url(plan, ready.facts.http_url)
            seen = f"   see it: {pages}" if pages else ""
            session.note(f"\n  still running: invoker --server {ready.facts.nats_url} runs list{seen}    Stop: Ctrl-C")
        else:
            ready.stop()

    with (plan.state.path / "controller.log").open("w") as log:
        try:
            asyncio.run(serve(replace(plan, log=log), use))
        except InterruptedStartError:
            raise typer.Exit(INTERRUPTED) from None
        finally:
            plan.state.unlock()
    if not outcomes:
        raise typer.Exit(INTERRUPTED)
    return outcomes[0]


def _tell(session: Session, outcome: Outcome, output: Form) -> None:
    if not output.for_people:
        session.data(rendered_item(outcome.document(), output, "request_id"))
        return
    session.data("".join(f"{line}\n" for line in outcome.lines(short=sys.stdout.isatty())))
    session.note("   why a topic matches nothing:   invoker explain demo.colect   (while a dev runs)")
    first = activation(shutil.which("invoker"))
    session.note(f"   make your own:                 {first}invoker functions new hello && invoker dev")


def activation(found: str | None, interpreter: str = sys.executable) -> str:
    """What to type first where no `invoker` is `found` on the path, such as after `make demo`."""
    import os

    script = Path(interpreter).parent / "activate"
    return f". {os.path.relpath(script)} && " if found is None and script.is_file() else ""
