"""A run's log on its page: the last lines by attempt, and those that look like trouble. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from invoker.views import LogLine

MAX_LINES = 2_000
MAX_CHARACTERS = 4_000
"""Of one line."""
_BAD = re.compile(r"error|exception|traceback|fatal|critical|panic", re.IGNORECASE)
_WARN = re.compile(r"warn", re.IGNORECASE)

Look = Literal["", "bad", "warn"]


@dataclass(frozen=True, slots=True)
class ShownLine:
    """One line; `look` says what it looks like, `stream` is None where that is not known any more."""

    text: str
    stream: str | None
    look: Look


@dataclass(frozen=True, slots=True)
class LogPart:
    """Lines of one attempt behind each other; of all together where the attempt is not known any more."""

    attempt: int | None
    lines: tuple[ShownLine, ...]


@dataclass(frozen=True, slots=True)
class LogView:
    """The log as far as it is shown. `left_out` lines came before."""

    parts: tuple[LogPart, ...] = ()
    total: int = 0
    left_out: int = 0
    bad: int = 0
    warnings: int = 0
    words: str = ""

    @property
    def by_attempt(self) -> bool:
        """Whether it is known which attempt wrote which line."""
        return any(part.attempt is not None for part in self.parts)


def log_view(lines: Iterable[LogLine], total: int, words: str = "") -> LogView:
    """The view of the last `lines` of `total`."""
    parts = tuple(
        LogPart(attempt, tuple(_shown(line) for line in some))
        for attempt, some in groupby(lines, key=lambda line: line.attempt)
    )
    shown = [line for part in parts for line in part.lines]
    return LogView(
        parts,
        total,
        total - len(shown),
        sum(line.look == "bad" for line in shown),
        sum(line.look == "warn" for line in shown),
        words,
    )


def look_of(text: str) -> Look:
    """What a line looks like by the words in it."""
    if _BAD.search(text):
        return "bad"
    return "warn" if _WARN.search(text) else ""


def _shown(line: LogLine) -> ShownLine:
    text = line.text[:MAX_CHARACTERS]
    return ShownLine(text if text == line.text else f"{text}…", line.stream, look_of(text))
