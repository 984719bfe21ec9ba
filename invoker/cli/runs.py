"""`invoker runs`: the list, one run at a glance, cancel, replay, logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.function_names import note_if_unknown, refuse_unusable
from invoker.cli.group import command_group
from invoker.cli.options import FunctionOption, IdArgument, WaitOption, plain_id
from invoker.cli.output import Form, FormOption, rendered_item, rendered_items
from invoker.cli.session import Session, detaching, run, session_of
from invoker.errors import UnknownIdError
from invoker.quantities import short_id

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.result import Reason, State
    from invoker.views import LogLine, RequestView, RunView

app = command_group("runs", "List runs, look at one, cancel, replay, read logs.")

MAX_LISTED = 10_000


@app.command(
    "list",
    epilog=examples(
        "invoker runs list",
        "invoker runs list --since 10m --state failed",
        "invoker runs list --function hello --limit 5 -o json",
        "invoker runs list -o name",
    ),
)
def list_runs(
    context: typer.Context,
    function: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this function.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only runs in this state, such as running or failed.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="Only runs that ended for this reason, such as timeout.")
    ] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Only runs of this request.")] = None,
    since: Annotated[
        float | None, typer.Option(metavar="AGO", parser=arguments.seconds, help="Not older than 30s, 10m, 2h, 1d.")
    ] = None,
    until: Annotated[
        float | None, typer.Option(metavar="AGO", parser=arguments.seconds, help="Older than that.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only runs of this topic, or of those that fit the pattern.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only runs with this in their id, or their request's.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=MAX_LISTED, help="How many at most.")] = 50,
    output: FormOption = Form.TABLE,
) -> None:
    """List runs: unfinished ones first, then finished ones, newest first."""
    session = session_of(context)
    wanted_state, wanted_reason = _state(state), _reason(reason)
    now = datetime.now(UTC)
    not_before = now - timedelta(seconds=since) if since is not None else None
    before = now - timedelta(seconds=until) if until is not None else None

    async def work() -> None:
        async with session.connected() as client:
            rows = await client.runs(
                function=function, state=wanted_state, reason=wanted_reason, since=not_before, limit=limit,
                request=plain_id(request) if request else None, until=before, topic=topic,
                text=text,
            )  # fmt: skip
            if not rows and output.for_people:
                await note_if_unknown(session, client, function)
        if not output.for_people:
            from invoker.cli.documents import row_document

            session.data(rendered_items(map(row_document, rows), output, "run_id"))
            return
        if not rows:
            session.note("no runs" + (" in that time" if not_before or before else ""))
            return
        from invoker.cli import screen

        screen.show(session, screen.run_rows(rows, datetime.now(UTC), wide=output is Form.WIDE))
        failed = next((row for row in rows if row.finished and row.state != "succeeded"), None)
        if failed is not None:
            session.note(f"✗ {failed.function}: invoker runs describe {short_id(failed.run_id)}")
        if len(rows) == limit:
            session.note(f"the newest {limit}; --limit shows more")

    run(work())


def _state(text: str | None) -> State | None:
    from invoker.result import State

    return None if text is None else State(_one_of(text, [str(one) for one in State], "--state"))


def _reason(text: str | None) -> Reason | None:
    from invoker.result import Reason

    return None if text is None else Reason(_one_of(text, [str(one) for one in Reason], "--reason"))


def _one_of(text: str, allowed: list[str], option: str) -> str:
    """Not a choice of Typer's: the closed lists live with the stored documents, which are heavy to import."""
    if text not in allowed:
        raise typer.BadParameter(f"{option} {text!r}: one of {', '.join(allowed)}")
    return text


@app.command(
    "describe", epilog=examples("invoker runs describe @latest", "invoker runs describe @latest --function hello")
)
def describe(
    context: typer.Context,
    identifier: IdArgument,
    function: FunctionOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Show a run (or all runs of a request) at a glance: outcome in words, times, attempts, output, last lines."""
    from invoker.cli.waiting import paused_functions

    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            view = await client.result(plain_id(identifier))
            paused = await paused_functions(client, view.runs) if output.for_people else []
        _show(session, view, function, output)
        for name in paused:
            session.note(f"{name} is paused: invoker functions resume {name}")

    run(work())


def _show(session: Session, view: RequestView, function: str | None, output: Form) -> None:
    from invoker.cli.waiting import chosen_runs, write_document

    runs = chosen_runs(view, function)
    if not output.for_people:
        write_document(session, view, runs, output, whole=function is None)
        return
    from invoker.cli import screen

    if len(runs) != 1:
        screen.show(session, screen.request_screen(view))
    for one in runs:
        screen.show(session, screen.run_screen(one, view))
    _next_steps(session, runs)


def _next_steps(session: Session, runs: list[RunView]) -> None:
    for one in runs:
        if one.result is not None and not one.result.succeeded:
            session.note(f"again: invoker runs replay {short_id(one.run_id)}")
        elif one.result is None:
            session.note(f"log: invoker runs logs {short_id(one.run_id)} -f")


@app.command(
    "cancel",
    epilog=examples(
        "invoker runs cancel @latest",
        "invoker runs cancel @latest --function hello",
        "invoker runs cancel @latest --chain",
    ),
)
def cancel(
    context: typer.Context,
    identifier: IdArgument,
    function: FunctionOption = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; stands in the result.")] = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="All that is unfinished of its chain, and what would follow.")
    ] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Cancel a run, or all unfinished runs of a request. Finished ones keep their result."""
    session = session_of(context)
    if chain and function is not None:
        raise typer.BadParameter("--chain is about all functions; leave --function out")

    async def work() -> None:
        async with session.connected() as client:
            whose = plain_id(identifier)
            if chain:
                done = await client.cancel_chain(whose, message=message)
            else:
                done = await client.cancel(whose, function=function, message=message)
        if not output.for_people and output is not Form.NAME:
            from invoker.cli.documents import plain

            session.data(rendered_item(plain(done), output, "cancelled"))
            return
        session.data("".join(f"{run_id}\n" for run_id in done.cancelled))
        if not done.cancelled:
            session.note("nothing to cancel: already finished")

    run(work())


@app.command(
    "replay",
    epilog=examples(
        "invoker runs replay @latest",
        """invoker runs replay @latest '{"name": "Grace"}' --wait 30""",
        "invoker runs replay @latest --function hello",
    ),
)
def replay(
    context: typer.Context,
    identifier: IdArgument,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA|@FILE|-", help="Another payload; the original when left out.")
    ] = None,
    function: Annotated[str | None, typer.Option(metavar="NAME", help="Run only this function again.")] = None,
    wait: WaitOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Publish a request again as a new one that names the original; of a run id, only that run's function."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            changed = arguments.read_data(data) if data is not None else None
            if function is not None:
                await refuse_unusable(client, function)
            receipt = await client.replay(
                plain_id(identifier), data=None if changed is None else changed.data,
                content_type=None if changed is None else changed.content_type, function=function,
            )  # fmt: skip
            if wait is not None:
                from invoker.cli.waiting import wait_for_published

                await wait_for_published(session, client, receipt.request_id, wait, output)
            elif output.for_people or output is Form.NAME:
                session.data(f"{receipt.request_id}\n")
                session.note(f"invoker result {receipt.request_id} --wait 60")
            else:
                from invoker.cli.documents import receipt_document

                session.data(rendered_item(receipt_document(receipt), output, "request_id"))

    run(work())


@app.command(
    "logs", epilog=examples("invoker runs logs @latest", "invoker runs logs @latest --function hello --follow")
)
def logs(
    context: typer.Context,
    identifier: IdArgument,
    function: FunctionOption = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Print what a run wrote: live while it runs, the kept tail afterwards."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            given = plain_id(identifier)
            runs = await _runs_of(client, given, function)
            with detaching(session, f"invoker runs logs {given} --follow"):
                for one in runs:
                    await _print_log(session, client, one, follow, output, named=len(runs) > 1)

    run(work())


async def _runs_of(client: Connected, given: str, function: str | None) -> list[RunView]:
    from invoker.cli.waiting import chosen_runs

    view = await client.result(given)
    runs = chosen_runs(view, function)
    if not runs:
        raise UnknownIdError(f"request {view.request_id} has no runs, so there is no log")
    return runs


async def _print_log(
    session: Session, client: Connected, one: RunView, follow: bool, output: Form, *, named: bool
) -> None:
    count, attempt = 0, None
    async for line in client.logs(one.run_id, follow=follow):
        count += 1
        if not output.for_people:
            session.data(rendered_item(_log_document(one, line), Form.JSONL, "run_id"))
            continue
        if line.attempt != attempt and line.attempt is not None and (attempt is not None or line.attempt > 1):
            session.note(f"--- attempt {line.attempt}")
        attempt = line.attempt
        session.data(f"{one.function}  {line.text}\n" if named else f"{line.text}\n")
    if not count:
        session.note(f"{one.function} wrote nothing")


def _log_document(one: RunView, line: LogLine) -> dict[str, object]:
    at = line.at.isoformat() if line.at is not None else None
    return {"run_id": one.run_id, "attempt": line.attempt, "stream": line.stream, "at": at, "text": line.text}
