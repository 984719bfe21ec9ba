"""The filters of the list of runs: from the fields of its form to what is asked for, and back into addresses. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from invoker import wire
from invoker.errors import InputRefusedError, InvokerError
from invoker.gateway.dashboard.forms import Form
from invoker.gateway.dashboard.paths import RUNS, query_of
from invoker.gateway.runs import instant
from invoker.listing import RunFilter
from invoker.result import Reason, State

ROWS, MAX_ROWS = 50, 200
CHOICES = (25, 50, 100, MAX_ROWS)
MAX_TEXT = 255
UNFINISHED = (State.QUEUED, State.STARTING, State.RUNNING)
FAILED = (State.FAILED, State.TIMED_OUT, State.LOST)
QUICK: tuple[tuple[str, tuple[State, ...]], ...] = (
    ("All", ()),
    ("Unfinished", UNFINISHED),
    ("Failed", FAILED),
    ("Succeeded", (State.SUCCEEDED,)),
)
"""The filters that are one click away: their words and their states."""
_UTC = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?")


@dataclass(frozen=True, slots=True)
class RunsQuery:
    """What a reader asks of the list, as he wrote it; a field that he left out is empty."""

    function: str = ""
    states: tuple[State, ...] = ()
    reason: str = ""
    topic: str = ""
    request: str = ""
    since: str = ""
    until: str = ""
    text: str = ""
    limit: int = ROWS

    @property
    def is_narrow(self) -> bool:
        """Whether anything is filtered at all."""
        return bool(self.pairs())

    @property
    def is_quick(self) -> bool:
        """Whether it is no more than one of the filters that are one click away."""
        return not self.pairs(states=()) and any(set(states) == set(self.states) for _, states in QUICK)

    @property
    def words(self) -> str:
        """The filters in a few words."""
        return ", ".join(f"{name} {value}" for name, value in self.pairs())

    def pairs(self, *, states: Sequence[State] | None = None) -> list[tuple[str, str]]:
        """The filters as fields of an address, without those that are empty; with other states when they are given."""
        chosen = self.states if states is None else states
        named = (
            ("function", self.function), ("reason", self.reason), ("topic", self.topic), ("request", self.request),
            ("since", self.since), ("until", self.until), ("text", self.text),
        )  # fmt: skip
        return [*((name, value) for name, value in named if value), *(("state", str(state)) for state in chosen)]

    def address(self, *, states: Sequence[State] | None = None, cursor: str | None = None) -> str:
        """Where the list with these filters is: from the beginning, or behind a row."""
        more = [("limit", str(self.limit))] if self.limit != ROWS else []
        return query_of(RUNS, [*self.pairs(states=states), *more, *([("cursor", cursor)] if cursor else [])])

    def wanted(self, now: datetime) -> RunFilter:
        """The filter that it stands for. Raises an `InvokerError` that names the field which cannot be read."""
        return RunFilter(
            function=wire.check_function_name(self.function) if self.function else None,
            states=frozenset(self.states),
            reason=_reason(self.reason),
            request_id=wire.canonical_id(self.request) if self.request else None,
            since=_at(self.since, now, "From"),
            until=_at(self.until, now, "Until"),
            topic=wire.check_pattern(self.topic) if self.topic else None,
            text=self.text or None,
        )


def read_query(fields: Form) -> RunsQuery:
    """What the fields ask for. A state or a number of rows that there is not is left out: only addresses that somebody
    wrote by hand have one."""

    def taken(name: str) -> str:
        return fields.get(name, "").strip()[:MAX_TEXT]

    names = {str(state) for state in State}
    return RunsQuery(
        function=taken("function"),
        states=tuple(dict.fromkeys(State(one) for one in fields.all("state") if one in names)),
        reason=taken("reason"),
        topic=taken("topic"),
        request=taken("request"),
        since=taken("since"),
        until=taken("until"),
        text=taken("text"),
        limit=_limit(taken("limit")),
    )


def problem_of(query: RunsQuery, now: datetime) -> str | None:
    """Why the query cannot be read, None when it can."""
    try:
        query.wanted(now)
    except InvokerError as error:
        return error.message
    return None


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else ROWS
    return min(max(number, 1), MAX_ROWS)


def _reason(text: str) -> Reason | None:
    try:
        return Reason(text) if text else None
    except ValueError as error:
        raise InputRefusedError(f"there is no reason {text[:40]!a}") from error


def _at(text: str, now: datetime, name: str) -> datetime | None:
    """The instant: how long ago, with a time zone, or without one in UTC as all times of the dashboard."""
    if not text:
        return None
    if _UTC.fullmatch(text):
        try:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise InputRefusedError(f"{name}: {text!a} is no day or time that there is") from error
    return instant(text, now, name)
