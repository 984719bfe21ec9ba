"""The newest finished runs in memory, so that a page of a list needs no reading of the stream.

A table of the headers of results in SQLite's memory: filled backwards from the stream at the start, fed by the feed
from then on, and bounded. It is a copy: what it does not reach (yet) is read from the stream, only slower.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime
from typing import Any

import structlog

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.feed import Feed, FeedItem
from invoker.gateway.fitting_topics import FittingTopics
from invoker.gateway.run_figures import DurationFigures, RunFigures, duration_figures
from invoker.listing import RunFilter
from invoker.lookup import Found
from invoker.result import Reason, State
from invoker.views import RunRow

KEPT_ROWS = 200_000
"""Rows at most: about 250 bytes each."""
_SLACK = 1_000
"""Rows above that before the oldest are dropped, many at once."""
_AT_ONCE = 200
STRETCH = 20_000
"""Sequences that are looked through before the others have their turn: a few milliseconds."""
_MANY_WORDS = 10_000
LAST_DURATIONS = 1_000
BEGUN_RUNS = 10_000
"""Runs of the newest records that are known by their id: a record is stored a moment before its runs' messages."""
RETRY_SECONDS = 1.0
CURRENT_SECONDS = 1.0
"""The feed is at most this far behind the stream, or the stream itself is read."""

SCHEMA = """
CREATE TABLE words (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE);
CREATE TABLE runs (
    sequence INTEGER PRIMARY KEY, run_id TEXT NOT NULL, request_id TEXT NOT NULL, function INTEGER NOT NULL,
    topic INTEGER NOT NULL, state INTEGER NOT NULL, reason INTEGER NOT NULL, attempts INTEGER NOT NULL,
    queued_at INTEGER, started_at INTEGER, finished_at INTEGER
);
CREATE INDEX runs_by_run_id ON runs (run_id);
CREATE INDEX runs_by_request_id ON runs (request_id);
CREATE INDEX runs_by_function ON runs (function);
CREATE INDEX runs_by_reason ON runs (reason);
CREATE INDEX runs_by_topic ON runs (topic);
"""
_STATES, _REASONS = list(State), list(Reason)

_log = structlog.get_logger(component="gateway")


class RunTable:
    """The newest finished runs of one instance, and whose the newest others are. `run` is its task."""

    def __init__(self, feed: Feed, *, kept: int = KEPT_ROWS, stretch: int = STRETCH, begun: int = BEGUN_RUNS) -> None:
        self._feed = feed
        self._kept = kept
        self._stretch = stretch
        self._most_begun = begun
        self._begun: dict[str, Found] = {}
        self._rows = 0
        self._words: dict[str, int] = {}
        self._many_words = _MANY_WORDS
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.executescript(SCHEMA)
        self._fitting = FittingTopics(self._database)
        self._oldest: int | None = None
        self._first = 0
        """The oldest sequence that the stream still has."""
        self.figures = RunFigures()
        """The last hour in numbers."""
        self.loaded = False
        """Whether the past has been read, as far back as it is kept."""
        feed.listen(self._hear)

    def __len__(self) -> int:
        return self._rows

    async def run(self) -> None:
        """Read the past, newest first, then stay: what is stored from now on is heard. An outage is only a pause."""
        await self._feed.live()
        if self._oldest is None:
            self._oldest = self._feed.began
        while not self.loaded:
            try:
                await self._load()
            except ServerUnreachableError:
                await asyncio.sleep(RETRY_SECONDS)
        _log.info("recent runs read", rows=self._rows)

    async def _load(self) -> None:
        async with aclosing(self._feed.older(self._oldest or 1)) as items:
            async for item in items:
                self._put(item)
                self._oldest = item.sequence
                if self._rows >= self._kept:
                    break
                if self._rows % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            else:
                self._oldest = 1
        self.loaded = True

    async def known_from(self) -> int | None:
        """The sequence from which on every finished run is here as of now, None while that cannot be said."""
        if self._oldest is None:
            return None
        self._first, newest = await self._feed.kept()
        try:
            async with asyncio.timeout(CURRENT_SECONDS):
                await self._feed.passed(newest)
        except TimeoutError:
            return None
        return self._oldest

    async def finished(self, wanted: RunFilter, before: int | None) -> AsyncGenerator[RunRow, None]:
        """The wanted rows with a sequence below `before`, newest first, without those whose retention is over (as
        `known_from` saw it last)."""
        first, high, limit = self._first, before if before is not None else 2**62, _AT_ONCE // 2
        conditions, values = self._conditions(wanted)
        with ExitStack() as used:
            if wanted.topic is not None:
                fitting = await self._fitting_topic(wanted.topic, used)
                if fitting is None:
                    return
                conditions.append(fitting)
            while (low := self._stretch_below(high, first)) is not None:
                found = self._database.execute(
                    "SELECT sequence, run_id, request_id, f.text, t.text, state, reason, attempts, queued_at, "
                    "started_at, finished_at FROM runs JOIN words f ON f.id = function JOIN words t ON t.id = topic "
                    f"WHERE {' AND '.join([*conditions, 'sequence >= ? AND sequence < ?'])} "
                    "ORDER BY sequence DESC LIMIT ?",
                    (*values, low, high, limit),
                ).fetchall()
                for one in found:
                    yield _row(one)
                high = found[-1][0] if len(found) == limit else low
                await asyncio.sleep(0)  # who looks through all of them must not keep the others from their turn

    def _stretch_below(self, high: int, first: int) -> int | None:
        """Where the next stretch that has rows begins, None when there is none."""
        newest = self._database.execute("SELECT max(sequence) FROM runs WHERE sequence < ?", (high,)).fetchone()[0]
        return max(first, newest - self._stretch + 1) if newest is not None and newest >= first else None

    async def _fitting_topic(self, pattern: str, used: ExitStack) -> str | None:
        """What a row's topic must be, as SQL; None when no topic fits."""
        if "*" not in pattern and ">" not in pattern:
            return f"topic = {self._words[pattern]}" if pattern in self._words else None
        return await used.enter_context(self._fitting.used(pattern)).condition()

    def find(self, run_id: str) -> Found | None:
        """Whose run that is, None when it is not here. An unfinished one is from the moment its record is heard of."""
        found = self._database.execute(
            "SELECT request_id, text FROM runs JOIN words ON id = function WHERE run_id = ?", (run_id,)
        ).fetchone()
        return Found(found[0], found[1]) if found is not None else self._begun.get(run_id)

    def durations(
        self, function: str, *, last: int = LAST_DURATIONS, sees: Callable[[str], bool] | None = None
    ) -> DurationFigures:
        """How long the last runs of the function took, from start to end, whatever came of them; with `sees` those of
        the topics that it lets through, among ten times as many."""
        found = self._database.execute(
            "SELECT t.text, finished_at - started_at FROM runs JOIN words t ON t.id = topic "
            "WHERE function = ? AND started_at IS NOT NULL ORDER BY sequence DESC LIMIT ?",
            (self._words.get(function, 0), last if sees is None else 10 * last),
        ).fetchall()
        seen = {topic for topic in {topic for topic, _ in found} if sees is None or sees(topic)}
        return duration_figures([number / 1_000_000 for topic, number in found if topic in seen][:last])

    def _hear(self, item: FeedItem) -> None:
        for function in item.functions or ():
            self._begun[wire.run_id_of(item.request_id, function)] = Found(item.request_id, function)
        while len(self._begun) > self._most_begun:
            del self._begun[next(iter(self._begun))]
        self._put(item)
        if self._rows > self._kept + _SLACK:
            self._drop_oldest()

    def _put(self, item: FeedItem) -> None:
        row = item.row
        if row is None or row.reason is None:
            return
        done = self._database.execute(
            "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                item.sequence, row.run_id, row.request_id, self._word(row.function), self._word(row.topic),
                _STATES.index(row.state), _REASONS.index(row.reason), row.attempts,
                _number(row.queued_at), _number(row.started_at), _number(row.finished_at),
            ),
        )  # fmt: skip
        if done.rowcount:
            self._rows += 1
            self.figures.take(row)

    def _drop_oldest(self) -> None:
        oldest = self._database.execute(
            "SELECT sequence FROM runs ORDER BY sequence DESC LIMIT 1 OFFSET ?", (self._kept - 1,)
        ).fetchone()[0]
        self._rows -= self._database.execute("DELETE FROM runs WHERE sequence < ?", (oldest,)).rowcount
        self._oldest = max(oldest, self._oldest or 1)
        if len(self._words) > self._many_words:
            self._forget_words()

    def _forget_words(self) -> None:
        """Topics may be invented without end: those that no row has are dropped, now and then."""
        self._database.execute(
            "DELETE FROM words WHERE id NOT IN (SELECT function FROM runs UNION SELECT topic FROM runs)"
        )
        self._words = dict(self._database.execute("SELECT text, id FROM words"))
        self._fitting.forget()
        self._many_words = 2 * max(len(self._words), _MANY_WORDS)

    def _word(self, text: str) -> int:
        """The number of a function's name or a topic: they repeat, so each is kept once."""
        found = self._words.get(text)
        if found is None:
            done = self._database.execute("INSERT INTO words (text) VALUES (?)", (text,))
            found = self._words[text] = done.lastrowid or 0
        return found

    def _conditions(self, wanted: RunFilter) -> tuple[list[str], list[Any]]:
        """The filter as SQL, save for its topic. Values never are part of the text."""
        conditions, values = list[str](), list[Any]()
        given: list[tuple[str, Any]] = [
            ("request_id = ?", wanted.request_id),
            ("reason = ?", None if wanted.reason is None else _REASONS.index(wanted.reason)),
            ("finished_at >= ?", _number(wanted.since)),
            ("finished_at < ?", _number(wanted.until)),
        ]
        if wanted.function is not None:
            given.append(("function = ?", self._words.get(wanted.function, 0)))
        for condition, value in given:
            if value is not None:
                conditions.append(condition)
                values.append(value)
        if wanted.states:
            conditions.append(f"state IN ({','.join(str(_STATES.index(state)) for state in sorted(wanted.states))})")
        if wanted.text is not None:
            conditions.append("(instr(run_id, ?) OR instr(request_id, ?))")
            values += [wanted.text, wanted.text]
        return conditions, values


def _row(found: tuple[Any, ...]) -> RunRow:
    sequence, run_id, request_id, function, topic, state, reason, attempts, queued, started, finished = found
    return RunRow(
        run_id=run_id,
        request_id=request_id,
        function=function,
        topic=topic,
        state=_STATES[state],
        reason=_REASONS[reason],
        attempts=attempts,
        queued_at=_instant(queued),
        started_at=_instant(started),
        finished_at=_instant(finished),
        cursor=f"f{sequence}",
    )


def _number(at: datetime | None) -> int | None:
    """The instant in microseconds."""
    return None if at is None else round(at.timestamp() * 1_000_000)


def _instant(number: int | None) -> datetime | None:
    return None if number is None else datetime.fromtimestamp(number / 1_000_000, UTC)
