"""Which topics of the table of runs fit a pattern, kept for the patterns that were asked for last.

Topics may be as many as runs: they are matched once, some at a time, and from then on only those that are new. What
fits is a table of its own in the same database, so that a query looks it up row by row, without a list of numbers.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from invoker import wire

KEPT_PATTERNS = 16
"""Patterns that are kept when nobody uses them: each about 10 bytes for every topic that fits."""
_AT_ONCE = 2_000
"""Words that are matched before the others have their turn: a few milliseconds."""


@dataclass(slots=True)
class Fitting:
    """One pattern, and what fits it among the words up to the number `matched_to`; `last` is one of what fits."""

    database: sqlite3.Connection
    pattern: str
    table: str
    matched_to: int = 0
    count: int = 0
    last: int = 0
    users: int = 0

    async def condition(self) -> str | None:
        """What a row's `topic` must be, as SQL, for all words that there are now; None when none fits."""
        more = True
        while more:
            more = self._match_some()
            await asyncio.sleep(0)
        if not self.count:
            return None
        if self.count == 1:  # the index has the rows of one topic in their order
            return f"topic = {self.last}"
        return f"EXISTS (SELECT 1 FROM {self.table} WHERE number = topic)"

    def _match_some(self) -> bool:
        """Look at the next words; whether there may be more. Others may be about the same pattern: all of it happens in
        one turn."""
        words = self.database.execute(
            "SELECT id, text FROM words WHERE id > ? ORDER BY id LIMIT ?", (self.matched_to, _AT_ONCE)
        ).fetchall()
        numbers = [number for number, text in words if wire.subject_matches(self.pattern, text)]
        self.database.executemany(f"INSERT INTO {self.table} VALUES (?)", ((number,) for number in numbers))
        if words:
            self.matched_to = words[-1][0]
        if numbers:
            self.count, self.last = self.count + len(numbers), numbers[-1]
        return len(words) == _AT_ONCE


class FittingTopics:
    """The fitting topics of patterns, among the rows of `words` (numbered upwards, no number ever given twice)."""

    def __init__(self, database: sqlite3.Connection, *, kept: int = KEPT_PATTERNS) -> None:
        self._database = database
        self._kept = kept
        self._patterns: OrderedDict[str, Fitting] = OrderedDict()
        self._made = 0

    def __len__(self) -> int:
        return len(self._patterns)

    @contextmanager
    def used(self, pattern: str) -> Iterator[Fitting]:
        """The pattern, which is not forgotten before this is left."""
        found = self._patterns.get(pattern) or self._begin(pattern)
        self._patterns.move_to_end(pattern)
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            self._forget(self._kept)

    def forget(self) -> None:
        """Words were dropped: what was kept of them goes, too, where nobody uses it just now."""
        self._forget(0)

    def _begin(self, pattern: str) -> Fitting:
        self._made += 1
        found = self._patterns[pattern] = Fitting(self._database, pattern, f"fitting_{self._made}")
        self._database.execute(f"CREATE TABLE {found.table} (number INTEGER PRIMARY KEY)")
        return found

    def _forget(self, kept: int) -> None:
        unused = [one for one in self._patterns.values() if not one.users]
        for one in unused[: max(0, len(self._patterns) - kept)]:
            self._database.execute(f"DROP TABLE {one.table}")
            del self._patterns[one.pattern]
