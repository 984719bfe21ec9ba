"""What people see: tables, one run at a glance, the tree of a chain. Rendered by rich, written by `Session`.

Everything that came from outside (topics, messages, log lines) passes `printable`, so that it can draw nothing. On a
terminal tables fit its width; into a pipe nothing is cut.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from invoker.cli.failure import printable
from invoker.quantities import between, duration, short_id, size
from invoker.result import Attempt, Result, RunStatusDocument, State

if TYPE_CHECKING:
    from invoker.cli.session import Session
    from invoker.views import (
        Chain,
        ChainNode,
        DeadLetter,
        Explanation,
        FunctionInfo,
        ParameterInfo,
        RequestView,
        RunRow,
        RunView,
        SubscriptionInfo,
    )

PIPE_WIDTH = 100_000
BAR_WIDTH = 20
GAP = 2
BODY_SHOWN = 400
_FUNCTION_STYLES = {"ready": "green", "kept": "yellow", "broken": "red"}

_LOOKS: dict[State, tuple[str, str]] = {
    State.QUEUED: ("◌", "dim"),
    State.STARTING: ("◔", "cyan"),
    State.RUNNING: ("●", "cyan"),
    State.SUCCEEDED: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.TIMED_OUT: ("✗", "red"),
    State.CANCELLED: ("⊘", "yellow"),
    State.LOST: ("✗", "red"),
}
"""Sign and colour of each state; the word stands beside it, so that no colour is needed to read it."""


def console(session: Session, *, stderr: bool = False) -> Console:
    """A console on one of the standard streams. NO_COLOR and FORCE_COLOR are honoured."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        no_color=True if session.no_color else None,
        width=None if stream.isatty() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def show(session: Session, what: RenderableType) -> None:
    """Render for standard output and write it there."""
    target = console(session)
    with target.capture() as captured:
        target.print(what)
    lines = captured.get().splitlines()
    session.data("".join(f"{line.rstrip()}\n" for line in lines))


def look(state: State) -> tuple[str, str]:
    """The state's sign and colour."""
    return _LOOKS[state]


def sign(state: State) -> Text:
    """The state's sign and word in its colour."""
    mark, style = _LOOKS[state]
    return Text(f"{mark} {state}", style=style)


class Grid(Table):
    """A table whose widest columns give way first, so that one long cell takes no other column off the screen."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wanted = [
            max((cell_len(str(cell)) for cell in (column.header, *column.cells)), default=0) for column in self.columns
        ]
        for column, width in zip(
            self.columns, fitted(wanted, options.max_width - GAP * (len(wanted) - 1)), strict=True
        ):
            column.max_width = width
        yield from super().__rich_console__(console, options)


def fitted(wanted: Sequence[int], room: int) -> list[int]:
    """The widths of columns that want these and have so much room together: the widest are cut, all to the same."""
    widths, left = list(wanted), max(room, len(wanted))
    for place, (width, column) in enumerate(sorted((width, column) for column, width in enumerate(wanted))):
        widths[column] = min(width, left // (len(wanted) - place))
        left -= widths[column]
    return widths


def grid(head: Sequence[str], lines: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines: heads dim, columns two apart, nothing wrapped."""
    table = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
    for name in head:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for line in lines:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in line))
    return table


def run_rows(rows: Iterable[RunRow], now: datetime, *, wide: bool = False) -> Table:
    """The list of runs."""
    identifier: Callable[[str], str] = str if wide else short_id
    head = ["RUN", "FUNCTION", "TOPIC", "STATE", "REASON", "ATTEMPTS", "WAITED", "RAN", "AGE"]
    lines: list[list[str | Text]] = []
    for row in rows:
        ended = row.finished_at or now
        reason = "" if row.reason is None or row.reason == "completed" else str(row.reason)
        waited = duration(between(row.queued_at, row.started_at or ended))
        ran = duration(between(row.started_at, ended))
        age = duration(between(row.queued_at, now))
        line: list[str | Text] = [identifier(row.run_id), row.function, row.topic, sign(row.state), reason]
        line += [str(row.attempts or ""), waited, ran, age]
        lines.append([*line, row.request_id] if wide else line)
    return grid([*head, "REQUEST"] if wide else head, lines)


def run_words(
    run: RunView, now: datetime | None = None, news: RunStatusDocument | None = None, topic: str = ""
) -> Text:
    """One run on one line: sign, function, topic if given, state, how long, what came out or went wrong.

    `news` is a later status than the view's own.
    """
    result = run.result
    if result is None:
        return _unfinished_words(run, news or run.status, now, topic)
    text = _beginning(run.function, run.state, topic)
    style = _LOOKS[run.state][1]
    text.append(f"  {duration(between(result.started_at or result.finished_at, result.finished_at))}")
    if not result.succeeded:
        text.append(f"  {result.reason}", style=style)
        if result.message:
            text.append(f": {printable(result.message)}")
    elif result.output.size_bytes:
        text.append(f"  {size(result.output.size_bytes)}")
    if len(result.attempts) > 1:
        text.append(f"  {len(result.attempts)} attempts", style="dim")
    return text


def _beginning(function: str, state: State, topic: str) -> Text:
    mark, style = _LOOKS[state]
    place = f"  {printable(topic)}" if topic else ""
    return Text.assemble((f"{mark} {function}", style), (place, "dim"), f"  {state}")


def _unfinished_words(run: RunView, status: RunStatusDocument | None, now: datetime | None, topic: str) -> Text:
    state = status.state if status is not None and not status.state.finished else run.state
    text = _beginning(run.function, state, topic)
    if status is None:
        return text
    if status.percent is not None:
        text.append("  ").append_text(bar(status.percent)).append(f" {status.percent:.0f} %")
    if status.text:
        text.append(f"  {printable(status.text)}")
    if status.started_at is not None and now is not None:
        text.append(f"  {duration(between(status.started_at, now))}", style="dim")
    return text


def bar(percent: float) -> Text:
    """Progress as a bar."""
    filled = round(min(100.0, max(0.0, percent)) / 100 * BAR_WIDTH)
    return Text.assemble(("━" * filled, "cyan"), ("─" * (BAR_WIDTH - filled), "dim"))


def request_screen(view: RequestView) -> RenderableType:
    """A request: where it came from and its runs."""
    parts: list[RenderableType] = [_field("request", f"{view.request_id}  {view.topic}  {view.state}")]
    record = view.record
    if record is not None:
        parts.append(_field("received", f"{_local(record.received_at)}  {size(record.body.size_bytes)}"))
        if record.replay_of:
            parts.append(_field("replay of", record.replay_of))
        if record.parent_run_id:
            parts.append(_field("caused by", f"run {record.parent_run_id}"))
    parts += [Text("  ").append_text(run_words(run)) for run in view.runs]
    return Group(*parts)


def run_screen(run: RunView, view: RequestView | None = None) -> RenderableType:
    """One run at a glance: outcome in words, timeline, attempts, output, last lines. `view` is its request."""
    now = datetime.now(UTC)
    parts: list[RenderableType] = [run_words(run, now)]
    parts.append(_field("run", run.run_id))
    result = run.result
    known = result or view or run.status
    topic = known.topic if known is not None else ""
    parts.append(_field("request", f"{run.request_id}  {topic}"))
    if result is None:
        if view is not None and view.record is not None:
            since = view.record.accepted_at
            parts.append(_field("times", f"accepted {_local(since)}, {duration(between(since, now))} ago"))
        attempts: Sequence[Attempt] = run.status.attempts if run.status else ()
        return Group(*parts, *_attempts(attempts))
    parts.append(_field("times", _timeline(result)))
    parts += _attempts(result.attempts, result)
    if result.output.size_bytes:
        kind = f"  {result.output.content_type}" if result.output.content_type else ""
        parts.append(_field("output", f"{size(result.output.size_bytes)}{kind}"))
    parts += [_field("problem", f"{one.get('pointer') or '/'}: {one.get('detail', '')}") for one in result.errors[:10]]
    parts.append(_field("engine", " ".join(filter(None, (result.engine, result.job)))))
    if result.log_tail:
        lines = result.log_tail.rstrip("\n").splitlines()[-8:]
        parts.append(_field("last lines", lines[0]))
        parts += [_field("", line) for line in lines[1:]]
    return Group(*parts)


def _timeline(result: Result) -> str:
    begun = result.started_at or result.finished_at
    given = min(result.dispatched_at or begun, begun)
    parts = [f"queued {duration(between(result.queued_at, given))}"]
    if result.dispatched_at is not None:
        parts.append(f"starting {duration(between(given, begun))}")
    ran = duration(between(result.started_at, result.finished_at))
    return ", ".join([*parts, f"ran {ran}" if ran else "never started", _local(result.finished_at)])


def _attempts(attempts: Iterable[Attempt], result: Result | None = None) -> list[RenderableType]:
    """A line for each, and the tails of their tracebacks; one that the run's own end cut short ended as the run did."""
    lines: list[RenderableType] = []
    for attempt in attempts:
        words = [str(attempt.number), str(attempt.reason or (result.reason if result is not None else "running"))]
        ended = attempt.finished_at or (result.finished_at if result is not None else None)
        words.append(duration(between(attempt.started_at, ended)))
        if attempt.exit_code:
            words.append(f"exit code {attempt.exit_code}")
        if attempt.error is not None:
            words.append(f"{attempt.error.type}: {attempt.error.message}")
        lines.append(_field("attempt", "  ".join(filter(None, words))))
        if attempt.error is not None and attempt.error.traceback:
            tail = attempt.error.traceback.rstrip().splitlines()[-6:]
            lines += [_field("", line) for line in tail]
    return lines


def chain_tree(
    chain: Chain,
    now: datetime | None = None,
    news: Mapping[str, RunStatusDocument] | None = None,
    most: int | None = None,
) -> Tree:
    """The chain as a tree of runs; a request's children hang under the run that caused them.

    `news` holds later statuses by run id; of more than `most` children of a run only the first ones are drawn.
    """
    root = chain.root.view
    tree = Tree(Text(f"request {root.request_id}  {printable(root.topic)}{_no_match(root)}"), guide_style="dim")
    _Grown(now, news or {}, most).grow(tree, chain.root)
    return tree


def _no_match(view: RequestView) -> str:
    return "" if view.runs or view.record is None else "  ∅ nothing subscribes to it"


@dataclass(frozen=True, slots=True)
class _Grown:
    """Grows the branches of one drawing."""

    now: datetime | None
    news: Mapping[str, RunStatusDocument]
    most: int | None

    def grow(self, branch: Tree, node: ChainNode) -> None:
        placed = {run.run_id: branch.add(self._words(run, node)) for run in node.view.runs}
        shown: Counter[str | None] = Counter()
        for child in node.children:
            shown[child.parent_run_id] += 1
            if self.most is None or shown[child.parent_run_id] <= self.most:
                self._child(placed.get(child.parent_run_id or "", branch), child)
        for parent, count in shown.items():
            if self.most is not None and count > self.most:
                more = [run for child in node.children if child.parent_run_id == parent for run in child.view.runs]
                finished = sum(run.finished for run in more)
                words = f"… {count - self.most} more; {finished} of {len(more)} runs finished"
                placed.get(parent or "", branch).add(Text(words, style="dim"))

    def _child(self, under: Tree, child: ChainNode) -> None:
        view = child.view
        if len(view.runs) == 1:
            self.grow(under, child)
            return
        self.grow(under.add(Text(f"{printable(view.topic)}{_no_match(view)}", style="dim")), child)

    def _words(self, run: RunView, node: ChainNode) -> Text:
        return run_words(run, self.now, self.news.get(run.run_id), node.view.topic)


def explanation(found: Explanation) -> RenderableType:
    """Every subscription: matched or not, and the clause that decided; the matching ones first."""
    lines = [
        (
            Text("✓ match", style="green") if one.matched else Text("✗ no", style="dim"),
            one.function, one.pattern, one.clause,
        )
        for one in sorted(found.subscriptions, key=lambda one: not one.matched)
    ]  # fmt: skip
    return grid(["MATCH", "FUNCTION", "PATTERN", "WHY"], lines)


def function_rows(functions: Iterable[FunctionInfo]) -> Table:
    """The list of functions."""
    lines: list[list[str | Text]] = []
    for one in functions:
        status = Text("paused", style="yellow") if one.paused else Text(one.status, style=_FUNCTION_STYLES[one.status])
        topics = ", ".join(subscription.topic for subscription in one.subscriptions)
        limit = "" if one.concurrency is None else str(one.concurrency)
        counts = [str(one.running), str(one.queued), limit]
        lines.append([one.name, status, topics, *counts, _kind(one), one.description or ""])
    return grid(["NAME", "STATUS", "TOPICS", "RUNNING", "QUEUED", "LIMIT", "RUNS", "DESCRIPTION"], lines)


def function_screen(one: FunctionInfo) -> RenderableType:
    """One function."""
    parts: list[RenderableType] = [
        Text.assemble((one.name, "bold"), "  ", (one.status, _FUNCTION_STYLES[one.status]), "  paused" * one.paused)
    ]
    if one.problem is not None:
        parts.append(_field("problem", one.problem.message))
    parts += [_field("topic", _subscription(found)) for found in one.subscriptions]
    facts = {
        "about": one.description,
        "runs": " ".join(filter(None, (_kind(one), one.handler))),
        "file": one.file,
        "labels": ", ".join(f"{key}={value}" for key, value in one.labels.items()),
        "parameters": ", ".join(_parameter(found) for found in one.parameters),
        "attempts": _attempts_allowed(one),
        "timeout": None if one.timeout_seconds is None else duration(one.timeout_seconds),
        "limit": None if one.concurrency is None else f"{one.concurrency} at once",
        "now": f"{one.running} running, {one.queued} queued",
        "on success": _next(one.on_success),
        "on failure": _next(one.on_failure),
        "spec": one.spec_hash,
    }
    return Group(*parts, *(_field(name, value) for name, value in facts.items() if value))


def _kind(one: FunctionInfo) -> str:
    """What runs, in a few words; a program beside the function's file as it is written there, without its path."""
    if one.runtime or one.image or not one.command:
        return one.runtime or one.image or ""
    program, *arguments = one.command
    folder = f"/{one.file.rpartition('/')[0]}/" if one.file and "/" in one.file else ""
    beside = program.rpartition(folder)[2] if folder and folder in program else None
    return " ".join([program if beside is None else f"./{beside}", *arguments])


def _attempts_allowed(one: FunctionInfo) -> str | None:
    if one.backoff_limit is None:
        return None
    codes = " or ".join(str(code) for code in one.no_retry_exit_codes)
    return f"{one.backoff_limit + 1}" + (f", no further one after exit code {codes}" if codes else "")


def _subscription(found: SubscriptionInfo) -> str:
    return found.topic + (f"  filter {found.filter}" if found.filter else "")


def _parameter(found: ParameterInfo) -> str:
    return found.name + (f"={found.default}" if found.default is not None else "")


def _next(following: Any) -> str | None:
    return f"publish on {following['publish']}" if isinstance(following, dict) and "publish" in following else None


def dead_rows(letters: Iterable[DeadLetter], now: datetime, *, wide: bool = False) -> Table:
    """The list of dead letters."""
    lines = []
    for letter in letters:
        identifier = letter.id if wide else short_id(letter.id)
        age = duration(between(letter.dead_at, now))
        lines.append([identifier, letter.topic or letter.subject, letter.reason, age, letter.message])
    return grid(["ID", "TOPIC", "REASON", "AGE", "MESSAGE"], lines)


def dead_screen(letter: DeadLetter) -> RenderableType:
    """One dead letter: why, where it stood, what it carries."""
    parts = [Text.assemble(("✗ ", "red"), printable(f"{letter.reason}: {letter.message}"))]
    parts += [_field("id", letter.id), _field("topic", letter.topic), _field("subject", letter.subject)]
    parts.append(_field("stored", f"{letter.stream} {letter.sequence}, dead since {_local(letter.dead_at)}"))
    if letter.request_id:
        parts.append(_field("request", letter.request_id))
    parts += [_field("header", f"{key}: {value}") for key, value in letter.headers.items()]
    parts.append(_field("body", f"{size(letter.body.size_bytes)}  {letter.body.content_type or ''}".rstrip()))
    inline = letter.body.inline_bytes()
    if inline:
        shown = inline[:BODY_SHOWN].decode("utf-8", "backslashreplace")
        parts += [_field("", line) for line in shown.splitlines()[:8]]
    return Group(*parts)


def _field(name: str, value: str) -> Text:
    return Text.assemble((f"  {name:<11}", "dim"), printable(value))


def _local(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
