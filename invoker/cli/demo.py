"""`invoker demo`: a temporary dev, three functions that know only topics, one chain watched to its end."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, session_of
from invoker.errors import InputRefusedError, InvokerError

if TYPE_CHECKING:
    from invoker.cli.demo_chain import Outcome
    from invoker.cli.dev_server import Dev

INTERRUPTED = 130
DEMO_SOURCE = "data/tzdata"
"""Lies with the code of `collect`, so it is there wherever that runs: as a process here or in a pod."""
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
    output: FormOption = Form.TABLE,
) -> None:
    """Show collect, uncompress and convert at work on real files, on a server of its own, and leave nothing behind.

    Without a source it converts tables of the time-zone database. Ends with 0 only when every run succeeded.
    """
    samples = samples_folder()
    event = {"source": _absolute(source) if source else DEMO_SOURCE}
    if pattern:
        event["pattern"] = pattern
    session = session_of(context)
    state = Path(tempfile.mkdtemp(prefix="invoker-demo-"))
    try:
        outcome = _played(session, state, samples, event, wait, output, keep=keep)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    if outcome.error is not None:
        raise outcome.error


def samples_folder() -> Path:
    """The sample functions: inside the installed package, or in the repository this runs from."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "samples", here.parent / "functions" / "samples"):
        if (folder / "collect" / "function.yaml").is_file():
            return folder
    raise InvokerError("the sample functions are not installed", hint="install the package nats-invoker whole")


def _absolute(source: str) -> str:
    """A web address as it is, a path as an absolute one: functions run in folders of their own."""
    if source.lower().startswith(("http://", "https://")):
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InputRefusedError(f"{source} does not exist", hint="name a file, a folder or an http(s) address")
    return str(path)


def _played(
    session: Session, state: Path, samples: Path, event: dict[str, str], wait: float, output: Form, *, keep: bool
) -> Outcome:
    import asyncio

    from invoker.cli.demo_chain import play
    from invoker.cli.dev_server import DevPlan, InterruptedStartError, serve
    from invoker.cli.dev_state import StateFolder

    folder = StateFolder(state)
    folder.lock()
    outcomes: list[Outcome] = []

    async def use(ready: Dev) -> None:
        session.note(" Three functions that know only topics: collect → uncompress → convert\n")
        outcomes.append(await play(session, ready.facts.nats_url, event, wait, live=output.for_people))
        _tell(session, outcomes[0], output)
        if keep:
            session.note(f"\n  still running: invoker --server {ready.facts.nats_url} runs list    Stop: Ctrl-C")
        else:
            ready.stop()

    with (state / "controller.log").open("w") as log:
        plan = DevPlan(folder, samples, 0, 0, log=log)
        try:
            asyncio.run(serve(plan, use))
        except InterruptedStartError:
            raise typer.Exit(INTERRUPTED) from None
        finally:
            folder.unlock()
    if not outcomes:
        raise typer.Exit(INTERRUPTED)
    return outcomes[0]


def _tell(session: Session, outcome: Outcome, output: Form) -> None:
    if not output.for_people:
        session.data(rendered_item(outcome.document(), output, "request_id"))
        return
    session.data("".join(f"{line}\n" for line in outcome.lines(short=sys.stdout.isatty())))
    session.note("   why a topic matches nothing:   invoker explain demo.colect   (while a dev runs)")
    session.note("   make your own:                 invoker functions new hello && invoker dev")
