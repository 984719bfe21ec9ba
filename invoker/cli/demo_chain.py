"""The demo's chain: published, watched live, summed up."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.live import Live
from rich.tree import Tree

from invoker.cli import screen
from invoker.cli.session import Session
from invoker.cli.waiting import failure_of
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.ending import cancelled
from invoker.errors import InvokerError, WaitExpiredError
from invoker.quantities import count, duration
from invoker.request import RequestRecord
from invoker.result import RunStatusDocument
from invoker.views import Chain, RunView

TOPIC = "demo.collect"
FRAME_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the chain ended: the tables that came out, and the error when a run failed or it took too long."""

    request_id: str
    took_seconds: float
    runs: int
    tables: tuple[dict[str, Any], ...] = ()
    error: InvokerError | None = None
    jobs: tuple[tuple[str, str], ...] = ()
    """Function and Job (`namespace/name`) of each run; none with an engine that makes no Jobs."""

    @property
    def rows(self) -> int:
        return sum(int(table.get("rows", 0)) for table in self.tables)

    def document(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "succeeded": self.error is None,
            "seconds": round(self.took_seconds, 3),
            "runs": self.runs,
            "rows": self.rows,
            "tables": list(self.tables),
        } | ({"jobs": [job for _, job in self.jobs]} if self.jobs else {})

    def lines(self, *, short: bool = False) -> list[str]:
        """The summary for people: a line per table, then all of it; `short` checksums fit a terminal."""
        sums = [str(table.get("sha256", "")) for table in self.tables]
        if short:
            sums = [f"{one[:12]}…" for one in sums]
        width = max((len(str(table.get("name", ""))) for table in self.tables), default=0)
        lines = [
            f" {table.get('name', '')!s:<{width}}  {table.get('rows', 0):>8,} rows  sha256 {checksum}"
            for table, checksum in zip(self.tables, sums, strict=True)
        ]
        mark, word = ("✓", "done") if self.error is None else ("✗", "not done")
        lines += [f"   {function:<12} Job {job}" for function, job in self.jobs]
        return [
            *lines,
            f" {mark} {word} in {duration(self.took_seconds)}   {count(self.runs, 'run')}, {count(self.rows, 'row')}",
        ]


@dataclass(slots=True)
class Watched:
    """What is known while the chain runs: the chain itself, and the latest news of its runs."""

    chain: Chain | None = None
    news: dict[str, RunStatusDocument] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def tree(self) -> Tree:
        if self.chain is None:
            return Tree("…")
        return screen.chain_tree(self.chain, datetime.now(UTC), self.news, most=12)

    def finished_now(self) -> list[RunView]:
        """Runs that have finished and were not given out before."""
        runs = self.chain.runs if self.chain is not None else ()
        found = [run for run in runs if run.finished and run.run_id not in self.said]
        self.said |= {run.run_id for run in found}
        return found


async def play(session: Session, nats_url: str, event: dict[str, str], wait: float, *, live: bool) -> Outcome:
    """Publish the event, show the chain until nothing more can come, sum it up."""
    began = time.monotonic()
    async with Client.connect(ConnectionOptions(url=nats_url, name="invoker demo")) as client:
        watched = Watched()
        listening = asyncio.create_task(_listen(client, watched), name="demo-news")
        try:
            receipt = await client.publish(TOPIC, event)
            async with asyncio.timeout(wait):
                await _follow(session, client, receipt.request_id, watched, live=live)
            error = None
        except TimeoutError:
            error = WaitExpiredError(f"the chain was not finished after {wait:g} s")
        finally:
            await cancelled(listening)
        took = time.monotonic() - began
        chain = watched.chain
        runs = list(chain.runs) if chain is not None else []
        tables = tuple([table async for table in _tables(client, runs)])
        return Outcome(receipt.request_id, took, len(runs), tables, error or failure_of(runs), _jobs(runs))


def _jobs(runs: list[RunView]) -> tuple[tuple[str, str], ...]:
    return tuple((run.function, run.result.job) for run in runs if run.result is not None and run.result.job)


async def _listen(client: Client, watched: Watched) -> None:
    async with aclosing(client.watch_runs()) as items:
        async for item in items:
            if not isinstance(item, RequestRecord):
                watched.news[item.run_id] = item


async def _follow(session: Session, client: Client, request_id: str, watched: Watched, *, live: bool) -> None:
    following = asyncio.create_task(_keep_chain(client, request_id, watched))
    try:
        if live and sys.stdout.isatty():
            await _draw(session, following, watched)
        else:
            await _say(session, following, watched, aloud=live)
        await following
    finally:
        await cancelled(following)


async def _keep_chain(client: Client, request_id: str, watched: Watched) -> None:
    async with aclosing(client.follow_chain(request_id)) as changes:
        async for chain in changes:
            watched.chain = chain


async def _draw(session: Session, following: asyncio.Task[None], watched: Watched) -> None:
    """The tree, drawn anew several times a second."""
    target = screen.console(session)
    with Live(watched.tree(), console=target, auto_refresh=False, vertical_overflow="ellipsis") as view:
        while True:
            done, _ = await asyncio.wait({following}, timeout=FRAME_SECONDS)
            if done:
                view.vertical_overflow = "visible"  # the last frame stays: all of it
            view.update(watched.tree(), refresh=True)
            if done:
                return


async def _say(session: Session, following: asyncio.Task[None], watched: Watched, *, aloud: bool) -> None:
    """One line per finished run, for a pipe or a log."""
    while True:
        done, _ = await asyncio.wait({following}, timeout=FRAME_SECONDS)
        for run in watched.finished_now():
            if aloud:
                screen.show(session, screen.run_words(run))
        if done:
            return


async def _tables(client: Client, runs: list[RunView]) -> Any:
    """The summaries of the tables that were converted, in the order they were accepted."""
    for run in runs:
        if run.function != "convert" or run.result is None or not run.result.succeeded:
            continue
        with suppress(ValueError):
            summary = json.loads(await client.output(run.result))
            keys = ("name", "kind", "rows", "format", "bytes", "sha256")
            yield {key: summary[key] for key in keys if key in summary} | {"run_id": run.run_id}
