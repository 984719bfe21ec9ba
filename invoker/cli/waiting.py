"""Waiting for a request: per-run lines on standard error as runs finish, their output on standard output, exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from invoker.cli.output import Form, rendered_item
from invoker.cli.session import Session, detaching
from invoker.errors import (
    InputRefusedError,
    InvokerError,
    NoSubscriptionError,
    RunFailedError,
    SchemaViolationError,
    UnknownIdError,
    WaitExpiredError,
)
from invoker.quantities import short_id
from invoker.views import RequestState, RequestView, RunView, run_failed

if TYPE_CHECKING:
    from invoker.connected import Connected


async def wait_for_request(
    session: Session, client: Connected, given: str, wait: float, output: Form, function: str | None = None
) -> None:
    """Wait until the request (or the run, if it is a run's id) has finished, then show it and end as it did.

    Raises `WaitExpiredError` after what had finished by then was shown.
    """
    expired: WaitExpiredError | None = None
    with detaching(session, f"invoker result {given} --wait 60"):
        try:
            view = await client.result(given, wait=wait)
        except WaitExpiredError as error:
            if not isinstance(error.partial, RequestView):
                raise
            expired, view = error, error.partial
            expired = await _with_cause(session, client, error, view.runs)
    await show_request(session, client, view, output, function, expired)


async def wait_for_published(session: Session, client: Connected, request_id: str, wait: float, output: Form) -> None:
    """The same for an event that was published just now: one that became a dead letter was refused."""
    try:
        await wait_for_request(session, client, request_id, wait, output)
    except UnknownIdError as error:
        letter = error.fields.get("dead_id")
        if letter is None:
            raise
        raise InputRefusedError(error.message, try_command=f"invoker dead show {letter}") from error


async def _with_cause(
    session: Session, client: Connected, error: WaitExpiredError, runs: Iterable[RunView]
) -> WaitExpiredError:
    """The error; with what to do when no waiting helps, since a function is paused."""
    paused = [] if session.quiet else await paused_functions(client, runs)
    if not paused:
        return error
    one = paused[0]
    return WaitExpiredError(
        error.message, hint=f"{one} is paused; its events queue", try_command=f"invoker functions resume {one}"
    )


async def paused_functions(client: Connected, runs: Iterable[RunView]) -> list[str]:
    """Those functions of the unfinished runs that are paused; none when no controller tells."""
    waiting = {run.function for run in runs if not run.finished}
    if not waiting:
        return []
    try:
        catalog = await client.functions()
    except InvokerError:
        return []
    return sorted(one.name for one in catalog.functions if one.paused and one.name in waiting)


async def show_request(
    session: Session,
    client: Connected,
    view: RequestView,
    output: Form,
    function: str | None = None,
    expired: WaitExpiredError | None = None,
) -> None:
    """Outputs on standard output (or the document with `-o json`), a line per run on standard error, exit code.

    Raises `WaitExpiredError` when a wanted run has not finished, `NoSubscriptionError` when nothing matched, and
    `RunFailedError` (or ends with 6 for refused input) when a run failed.
    """
    runs = chosen_runs(view, function)
    if output.for_people:
        tell_runs(session, runs)
        await write_outputs(session, client, runs)
    else:
        write_document(session, view, runs, output, whole=function is None)
    raise_outcome(view, runs, expired)


def chosen_runs(view: RequestView, function: str | None) -> list[RunView]:
    """All runs of the request, or the one of that function."""
    if function is None:
        return list(view.runs)
    found = view.run(function)
    if found is not None:
        return [found]
    if view.record is None:
        return []
    names = ", ".join(run.function for run in view.runs) or "none"
    raise UnknownIdError(f"request {view.request_id} has no run of {function!r}; it has: {names}")


def tell_runs(session: Session, runs: list[RunView]) -> None:
    """A line per run for people, on standard error."""
    if session.quiet or not runs:
        return
    from invoker.cli import screen

    target = screen.console(session, stderr=True)
    for run in runs:
        target.print(screen.run_words(run))
    for run in runs:
        if _only_wrote(run):
            session.note(f"{run.function} gave no output; what it wrote: invoker runs logs {short_id(run.run_id)}")


def _only_wrote(run: RunView) -> bool:
    """Whether a run succeeded with nothing but lines in its log: a program whose `output.from` is missing does."""
    result = run.result
    return result is not None and result.succeeded and not result.output.size_bytes and bool(result.log_tail)


async def write_outputs(session: Session, client: Connected, runs: list[RunView]) -> None:
    """The outputs of the runs that succeeded, in the order of the record; several are kept apart by a line end."""
    written = [run for run in runs if run.result is not None and run.result.succeeded]
    for run in written:
        content = await client.output(run.result) if run.result is not None else b""
        session.output(content)
        if len(written) > 1 and content and not content.endswith(b"\n"):
            session.data("\n")


def write_document(session: Session, view: RequestView, runs: list[RunView], output: Form, *, whole: bool) -> None:
    from invoker.cli.documents import request_document, run_document

    if output is Form.JSONL:
        session.data("".join(rendered_item(run_document(run), output, "run_id") for run in runs))
    elif output is Form.NAME:
        session.data("".join(f"{run.run_id}\n" for run in runs))
    else:
        session.data(rendered_item(request_document(view) if whole else run_document(runs[0]), output, "request_id"))


def raise_outcome(view: RequestView, runs: list[RunView], expired: WaitExpiredError | None = None) -> None:
    """End with the outcome's exit code; returns only when every run succeeded."""
    if view.state is RequestState.NO_MATCH:
        raise NoSubscriptionError(f"no subscription matches the topic {view.topic!r}", topic=view.topic)
    unfinished = [run for run in runs if not run.finished]
    if unfinished or view.record is None:
        raise expired or _unfinished(view, runs, unfinished)
    error = failure_of(runs)
    if error is not None:
        raise error


def failure_of(runs: list[RunView]) -> InvokerError | None:
    """One error for all runs that failed, None when none did. Exit code 6 when all of them refused the input."""
    failed = [run for run in runs if run.exit_code]
    if not failed or failed[0].result is None:
        return None
    worst = next((run for run in failed if run.exit_code == RunFailedError.exit_code), failed[0])
    first = worst.result or failed[0].result
    refused = worst.exit_code == SchemaViolationError.exit_code
    if len(failed) == 1 and not refused:
        return run_failed(first)
    if len(failed) == 1:
        return SchemaViolationError(
            f"{first.function} refused the input: {first.message}", errors=list(first.errors), function=first.function
        )
    words = f"{len(failed)} of {len(runs)} runs failed, {first.function} among them ({first.reason})"
    if refused:
        return SchemaViolationError(words, function=first.function)
    return RunFailedError(words, run_id=first.run_id)


def _unfinished(view: RequestView, runs: list[RunView], unfinished: list[RunView]) -> WaitExpiredError:
    if view.record is None:
        what = f"request {view.request_id} waits to be accepted"
    else:
        states = ", ".join(f"{run.function} is {run.state}" for run in unfinished[:3])
        what = f"request {view.request_id} is not finished: {states}"
        if len(runs) > 1:
            what += f"; {len(runs) - len(unfinished)} of {len(runs)} runs are finished"
    return WaitExpiredError(what, request_id=view.request_id)
