"""`invoker top`: functions by what they do just now, drawn anew every two seconds; into a pipe one line each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, run, session_of
from invoker.errors import ServerUnreachableError

if TYPE_CHECKING:
    import asyncio

    from rich.console import RenderableType

    from invoker.connected import Connected
    from invoker.views import CatalogInfo, RunRow

WINDOW = timedelta(seconds=60)
KEPT = 100_000
"""Results of the last minute that are counted at most."""
BEFORE = 1_000
"""Those of the minute before it began."""
EXAMPLES = examples("invoker top", "invoker top --interval 5s", "invoker top --count 1 -o json")


def register(app: typer.Typer) -> None:
    app.command("top", epilog=EXAMPLES, short_help="Show what the functions do just now.")(top)


def top(
    context: typer.Context,
    interval: Annotated[
        float, typer.Option(metavar="TIME", parser=arguments.seconds, help="Between two looks, such as 500ms or 5s.")
    ] = 2.0,
    count: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Looks before it ends; 0 goes on for ever.")] = 0,
    output: FormOption = Form.TABLE,
) -> None:
    """Show every function with its queued and running runs, and what became of the runs of the last minute.

    The busiest come first. On a terminal the table is drawn in place; into a pipe each look is a line per function.
    """
    import asyncio

    from invoker.ending import cancelled

    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            recent = Recent()
            await _minute_before(client, recent)
            hearing = asyncio.create_task(_hear(client, recent), name="hear")
            try:
                await _look_again_and_again(session, client, recent, hearing, interval, count, output)
            finally:
                await cancelled(hearing)

    run(work())


@dataclass(frozen=True, slots=True)
class Load:
    """One function at one moment; rates are of the last minute."""

    name: str
    status: str
    queued: int
    running: int
    succeeded: int
    failed: int
    median_seconds: float | None

    @property
    def busy(self) -> tuple[int, int, str]:
        return -(self.running + self.queued), -(self.succeeded + self.failed), self.name

    def document(self) -> dict[str, Any]:
        return {
            "function": self.name, "status": self.status, "queued": self.queued, "running": self.running,
            "succeeded": self.succeeded, "failed": self.failed, "median_seconds": self.median_seconds,
        }  # fmt: skip


class Recent:
    """The results of the last minute. Pure."""

    def __init__(self) -> None:
        self._rows: deque[RunRow] = deque(maxlen=KEPT)

    def add(self, row: RunRow) -> None:
        self._rows.append(row)

    def loads(self, catalog: CatalogInfo, now: datetime) -> list[Load]:
        """Every function of the catalog with what it did, the busiest first."""
        while self._rows and (self._rows[0].finished_at or now) < now - WINDOW:
            self._rows.popleft()
        by_function: dict[str, list[RunRow]] = {}
        for row in self._rows:
            by_function.setdefault(row.function, []).append(row)
        loads = []
        for one in catalog.functions:
            rows = by_function.get(one.name, [])
            good = sum(row.state == "succeeded" for row in rows)
            status = "paused" if one.paused else one.status
            loads.append(Load(one.name, status, one.queued, one.running, good, len(rows) - good, _median(rows)))
        return sorted(loads, key=lambda load: load.busy)


def _median(rows: Iterable[RunRow]) -> float | None:
    times = sorted((row.finished_at - row.started_at) for row in rows if row.finished_at and row.started_at)
    return round(times[len(times) // 2].total_seconds(), 6) if times else None


async def _minute_before(client: Connected, recent: Recent) -> None:
    for row in reversed(await client.runs(since=WINDOW, limit=BEFORE)):
        if row.finished:
            recent.add(row)


async def _hear(client: Connected, recent: Recent) -> None:
    from invoker.feed import FeedItem

    async for item in client.follow_all():
        if isinstance(item, FeedItem) and item.row is not None:
            recent.add(item.row)


async def _look_again_and_again(
    session: Session,
    client: Connected,
    recent: Recent,
    hearing: asyncio.Task[None],
    interval: float,
    count: int,
    output: Form,
) -> None:
    import asyncio
    import sys

    from rich.live import Live

    from invoker.cli import screen

    drawn = output.for_people and sys.stdout.isatty() and count != 1
    live = Live(console=screen.console(session), auto_refresh=False) if drawn else None
    catalog, problem, looks = await client.functions(), "", 0
    with live or nullcontext():
        while True:
            loads, now = recent.loads(catalog, datetime.now(UTC)), datetime.now().astimezone()
            if live is not None:
                live.update(_table(loads, catalog, now, problem), refresh=True)
            else:
                _write(session, loads, catalog, now, output, problem)
            looks += 1
            if looks == count:
                return
            await asyncio.sleep(interval)
            if hearing.done():
                hearing.result()  # it never ends by itself: raises what ended it
            try:
                catalog, problem = await client.functions(), ""
            except ServerUnreachableError as error:
                problem = error.message  # the last catalog stays in sight, and why


def _write(
    session: Session, loads: list[Load], catalog: CatalogInfo, now: datetime, output: Form, problem: str
) -> None:
    if output in (Form.JSON, Form.YAML):
        document = {"at": now.isoformat(), "catalog": catalog.catalog, "functions": [one.document() for one in loads]}
        session.data(rendered_item(document, output, "at"))
        return
    if not output.for_people:
        lines = [{"at": now.isoformat(), **one.document()} for one in loads]
        session.data("".join(rendered_item(one, output, "function") for one in lines))
        return
    if problem:
        session.note(problem)
    for one in loads:
        session.data(
            f"{now:%H:%M:%S}  {one.name}  {one.status}  queued {one.queued}  running {one.running}  "
            f"succeeded {one.succeeded}  failed {one.failed}{_typical(one, '  typical ')}\n"
        )


def _table(loads: list[Load], catalog: CatalogInfo, now: datetime, problem: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from invoker.cli import screen

    queued, running = sum(one.queued for one in loads), sum(one.running for one in loads)
    failed = sum(one.failed for one in loads)
    head = Text(f" {now:%H:%M:%S}  {len(loads)} functions on {catalog.engine}  queued {queued}  running {running}  ")
    head.append(f"finished in the last minute {sum(one.succeeded for one in loads) + failed}")
    head.append(f", {failed} without success", style="red") if failed else None
    parts: list[RenderableType] = [head]
    if problem:
        parts.append(Text(f" {problem}", style="yellow"))
    names = ("FUNCTION", "STATUS", "QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "TYPICAL")
    parts.append(screen.grid(names, [_line(one) for one in loads]))
    return Group(*parts)


def _line(one: Load) -> list[Any]:
    from rich.text import Text

    counts = [str(number) if number else "·" for number in (one.queued, one.running, one.succeeded)]
    failed = Text(str(one.failed), style="red") if one.failed else Text("·")
    return [one.name, one.status, *counts, failed, _typical(one)]


def _typical(one: Load, before: str = "") -> str:
    from invoker.quantities import duration

    return f"{before}{duration(one.median_seconds)}" if one.median_seconds is not None else ""
