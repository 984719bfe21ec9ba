"""What `invoker dev` shows: the banner, and one line per change of a run, an unmatched event, a changed catalog."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer
from rich.text import Text

from invoker.cli import screen
from invoker.cli.failure import printable
from invoker.cli.output import Form, rendered_item
from invoker.cli.session import Session
from invoker.ending import cancelled
from invoker.quantities import between, count, duration, short_id
from invoker.request import RequestRecord
from invoker.result import Result, RunStatusDocument, State

if TYPE_CHECKING:
    from invoker.client import Client
    from invoker.views import LogLine
    from trigger.catalog import Catalog

LOG_LINES = 20
"""So many of a run's last lines stand below its own."""


class RunLines:
    """Which news is worth a line: a run's new state or attempt, said once; statuses repeat and carry progress."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[State, int]] = {}

    def is_new(self, status: RunStatusDocument) -> bool:
        now = (status.state, len(status.attempts))
        if status.state in (State.QUEUED, State.STARTING) or self._shown.get(status.run_id) == now:
            return False
        if status.state.finished:
            return self._shown.pop(status.run_id, None) != now
        self._shown[status.run_id] = now
        return True


async def show_runs(session: Session, client: Client, output: Form, *, logs: bool = False) -> None:
    """Lines (or JSON lines) about runs on standard output, until cancelled; with `logs` what each wrote, below its
    end."""
    lines = RunLines()
    showing: set[asyncio.Task[None]] = set()
    try:
        async for news in client.watch_runs():
            if isinstance(news, RequestRecord):
                await _show_unmatched(session, client, news, output)
            elif lines.is_new(news):
                await _show_run(session, client, news, output)
                if logs and news.state.finished and output.for_people:
                    # Beside the others: a process may live on after its answer, and its log ends with it.
                    task = asyncio.create_task(_show_log(session, client, news))
                    showing.add(task)
                    task.add_done_callback(showing.discard)
    finally:
        await cancelled(*showing)


async def _show_log(session: Session, client: Client, status: RunStatusDocument) -> None:
    """What a finished run wrote, once that is all there; a reader that has gone away is met at the next line."""
    from invoker.errors import InvokerError

    try:
        lines = headed([line async for line in client.logs(status.run_id, follow=True)])
    except InvokerError as error:
        session.detail(f"log of {status.run_id}: {error.message}")
        return
    if lines:
        with suppress(typer.Exit):
            screen.show(session, log_lines(status.function, lines))


async def _show_run(session: Session, client: Client, status: RunStatusDocument, output: Form) -> None:
    if not output.for_people:
        session.data(rendered_item(status.model_dump(mode="json"), Form.JSONL, "run_id"))
        return
    failed = status.state.finished and status.state is not State.SUCCEEDED
    screen.show(session, run_line(status, _why(status, await _result(client, status)) if failed else ""))


def headed(lines: Sequence[LogLine]) -> list[str]:
    """The texts of a log's lines; a further attempt begins below a heading."""
    texts, attempt = [], 1
    for line in lines:
        if line.attempt is not None and line.attempt != attempt:
            attempt = line.attempt
            texts.append(f"--- attempt {attempt}")
        texts.append(line.text)
    return texts


def log_lines(function: str, lines: Sequence[str]) -> Text:
    """The last lines that a run wrote, below its line."""
    shown = list(lines[-LOG_LINES:])
    if len(lines) > len(shown):
        shown.insert(0, f"… {count(len(lines) - len(shown), 'line')} before")
    head = f"{'':<12}{function[:14]:<14} │ "
    return Text("\n").join(Text.assemble((head, "dim"), printable(line)) for line in shown)


def run_line(status: RunStatusDocument, why: str = "") -> Text:
    """One change of a run on one line."""
    mark, style = screen.look(status.state)
    mark = "▶" if status.state is State.RUNNING else mark
    head = f" {status.at.astimezone():%H:%M:%S}  "
    text = Text.assemble((head, "dim"), (f"{mark} {status.function:<14}", style), f" {short_id(status.run_id):<9} ")
    if not status.state.finished:
        topic = printable(status.topic)
        return text.append(f"{topic}  attempt {max(1, len(status.attempts))}")
    text.append(f"{status.state}  {duration(between(status.started_at, status.at))}".rstrip())
    return text.append(f"  {printable(why)}") if why else text


async def _result(client: Client, status: RunStatusDocument) -> Result | None:
    """The result, which is stored before its status is sent; None when it cannot be had."""
    from invoker.errors import InvokerError

    try:
        return (await client.run(status.run_id)).result
    except InvokerError:
        return None


def _why(status: RunStatusDocument, result: Result | None) -> str:
    """The reason in words."""
    if result is None:
        return str(status.reason or "")
    return f"{result.reason}: {result.message}" if result.message else str(result.reason)


async def _show_unmatched(session: Session, client: Client, record: RequestRecord, output: Form) -> None:
    if not output.for_people:
        document = {"request_id": record.request_id, "topic": record.topic, "state": "no-match"}
        session.data(rendered_item(document, Form.JSONL, "request_id"))
        return
    near = (await client.explain(record.topic)).nearest
    meant = f"did you mean {near[0].pattern}?  " if near else ""
    text = Text.assemble((f" {datetime.now():%H:%M:%S}  ", "dim"), ("∅ unmatched      ", "yellow"))
    text.append(f"{short_id(record.request_id):<9} {printable(record.topic)}  {meant}")
    screen.show(session, text.append(f"invoker explain {printable(record.topic)}", style="dim"))


class LogSplitter:
    """The controller's log: every line into the file, and what a person at the desk should see told as well.

    Why: the log is JSON for programs; the screen is for one person, who wants to know that an edit took effect.
    """

    def __init__(self, file: TextIO, tell: Callable[[str], None]) -> None:
        self._file = file
        self._tell = tell

    def write(self, text: str) -> int:
        self._file.write(text)
        for line in text.splitlines():
            told = log_words(line)
            if told is not None:
                self._tell(told)
        return len(text)

    def flush(self) -> None:
        self._file.flush()


def log_words(line: str) -> str | None:
    """The sentence for the person at the desk in a line of the controller's log, None when there is none."""
    if "catalog loaded" not in line and "function cannot be loaded" not in line:
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    at = _clock(found.get("timestamp"))
    if found.get("event") == "catalog loaded":
        return f"{at} ↻ catalog read again: {count(int(found.get('functions', 0)), 'function')}"
    if found.get("event") == "function cannot be loaded":
        kept = "  (its last good version stays)" if found.get("last_good_version_kept") else ""
        return f"{at} ✗ {found.get('error_message')}{kept}"
    return None


def _clock(timestamp: object) -> str:
    """The instant of a line of the log as the clock here showed it, as it stands before the lines of runs."""
    try:
        return f" {datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S} "
    except ValueError:
        return ""


def banner(
    http_url: str,
    pages_url: str | None,
    nats_url: str,
    catalog: Catalog,
    folder: Path,
    engine: str,
    state: Path,
    took: float,
) -> str:
    """What runs where, in a few lines. `pages_url` is the dashboard's address, None when it is switched off."""
    subscriptions = sum(len(one.subscriptions) for one in catalog.functions.values())
    lines = [
        f"  ✓ nats-server     {nats_url}   (bundled, JetStream on)",
        f"  ✓ HTTP            {http_url}",
        *([f"  ✓ dashboard       {pages_url}"] if pages_url else []),
        f"  ✓ engine          {engine}",
        f"  ✓ catalog         {folder}   {count(len(catalog.functions), 'function')}, "
        f"{count(subscriptions, 'subscription')}",
    ]
    lines += [f"  ✗ {broken.message}" for broken in catalog.broken]
    lines.append(f"  ready in {duration(took)}; state kept in {state}  (--fresh to start empty)")
    return "\n".join(lines)


def first_try(catalog: Catalog, folder: Path, server: str = "") -> str:
    """A command that makes something happen with the functions that are there; `server`: the option leading here."""
    for function in catalog.functions.values():
        for subscription in function.subscriptions:
            if "*" in subscription.topic or ">" in subscription.topic:
                continue
            event = (folder / function.file).parent / "event.json"
            data = f"@{event}" if event.is_file() else "'{}'"
            return f"invoker publish {subscription.topic} {data} --wait 30{server}"
    return "invoker functions new hello" + (f" --catalog {folder}" if str(folder) != "functions" else "")
