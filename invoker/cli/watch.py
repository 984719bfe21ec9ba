"""`invoker watch`: requests and runs as they come, one line for each change, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.examples import examples
from invoker.cli.function_names import note_if_unknown
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, run, session_of

if TYPE_CHECKING:
    from rich.text import Text

    from invoker.connected import Connected
    from invoker.feed import FeedItem
    from invoker.result import RunStatusDocument

EXAMPLES = examples("invoker watch", "invoker watch --function hello", "invoker watch --topic 'orders.>' -o jsonl")


def register(app: typer.Typer) -> None:
    app.command("watch", epilog=EXAMPLES, short_help="Show runs as they come.")(watch)


def watch(
    context: typer.Context,
    function: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this function.")] = None,
    topic: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only of this topic, or topic pattern such as 'orders.>'.")
    ] = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Follow requests and runs from now on: when they start, what became of them, and events that nothing matched.

    What is stored (acceptance and results) is never left out, also over a lost connection; news in between may be.
    """
    session = session_of(context)
    pattern = None
    if topic is not None:
        from invoker import wire

        pattern = wire.check_pattern(topic)

    async def work() -> None:
        async with session.connected() as client:
            session.note("watching; Ctrl-C ends it")
            await note_if_unknown(session, client, function)
            await _tell(session, client, _Wanted(function, pattern), output)

    run(work())


class _Wanted:
    """Which news are asked for."""

    def __init__(self, function: str | None, pattern: str | None) -> None:
        self._function = function
        self._pattern = pattern

    def run(self, topic: str, function: str) -> bool:
        return self._function in (None, function) and self._topic(topic)

    def request(self, item: FeedItem) -> bool:
        named = item.functions is None or self._function in item.functions
        return (self._function is None or named) and self._topic(item.topic)

    def _topic(self, topic: str) -> bool:
        from invoker import wire

        return self._pattern is None or wire.subject_matches(self._pattern, topic)


async def _tell(session: Session, client: Connected, wanted: _Wanted, output: Form) -> None:
    from invoker.cli.dev_screen import RunLines
    from invoker.result import RunStatusDocument

    lines = RunLines()
    async for news in client.follow_all():
        if isinstance(news, RunStatusDocument):
            # The result of a finished one is told by what is stored, once.
            if not news.state.finished and wanted.run(news.topic, news.function) and lines.is_new(news):
                _show_status(session, news, output)
        elif news.row is not None:
            if wanted.run(news.topic, news.row.function):
                await _show_result(session, client, news, output)
        elif wanted.request(news):
            _show_request(session, news, output)


def _show_status(session: Session, status: RunStatusDocument, output: Form) -> None:
    if output.for_people:
        from invoker.cli import screen
        from invoker.cli.dev_screen import run_line

        screen.show(session, run_line(status))
    elif output is not Form.NAME:
        document = status.model_dump(mode="json")
        session.data(rendered_item({"event": "status"} | document, Form.JSONL, "run_id"))


def _show_request(session: Session, item: FeedItem, output: Form) -> None:
    if output.for_people:
        if item.runs == 0:
            from invoker.cli import screen

            screen.show(session, _unmatched(item))
        return
    document = {
        "event": "accepted", "request_id": item.request_id, "topic": item.topic, "runs": item.runs,
        "root_request_id": item.root_request_id, "functions": item.functions,
    }  # fmt: skip
    session.data(rendered_item(document, output if output is Form.NAME else Form.JSONL, "request_id"))


async def _show_result(session: Session, client: Connected, item: FeedItem, output: Form) -> None:
    from invoker.cli import screen
    from invoker.cli.documents import row_document

    assert item.row is not None
    if output.for_people:
        why = "" if item.row.state == "succeeded" else await _why(client, item)
        screen.show(session, _result_line(item, why))
    elif output is not Form.NAME:
        session.data(rendered_item({"event": "result"} | row_document(item.row), Form.JSONL, "run_id"))


async def _why(client: Connected, item: FeedItem) -> str:
    """The reason in words."""
    from invoker.errors import InvokerError

    assert item.row is not None
    reason = str(item.row.reason)
    try:
        found = await client.run(item.row.request_id, function=item.row.function)
    except InvokerError:
        return reason
    return f"{reason}: {found.result.message}" if found.result is not None and found.result.message else reason


def _result_line(item: FeedItem, why: str) -> Text:
    from rich.text import Text

    from invoker.cli import screen
    from invoker.cli.failure import printable
    from invoker.quantities import between, duration, short_id

    row = item.row
    assert row is not None
    mark, style = screen.look(row.state)
    at = row.finished_at.astimezone().strftime("%H:%M:%S") if row.finished_at else "        "
    text = Text.assemble((f" {at}  ", "dim"), (f"{mark} {row.function:<14}", style), f" {short_id(row.run_id):<9} ")
    text.append(f"{printable(row.topic)}  {row.state}  {duration(between(row.started_at, row.finished_at))}".rstrip())
    if row.attempts > 1:
        text.append(f"  {row.attempts} attempts", style="dim")
    return text.append(f"  {printable(why)}", style=style) if why else text


def _unmatched(item: FeedItem) -> Text:
    from datetime import datetime

    from rich.text import Text

    from invoker.cli.failure import printable
    from invoker.quantities import short_id

    text = Text.assemble((f" {datetime.now():%H:%M:%S}  ", "dim"), ("∅ unmatched      ", "yellow"))
    return text.append(
        f"{short_id(item.request_id):<9} {printable(item.topic)}  invoker explain {printable(item.topic)}"
    )
