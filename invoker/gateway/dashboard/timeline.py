"""A run's time as a drawing: how long it waited, each attempt, the pauses between them, and its end. Pure.

Places are numbers from 0 to `WIDTH`; the page stretches the drawing to its own width, so it has no words in it. They
stand below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from invoker.quantities import duration
from invoker.result import Attempt, Reason, State

WIDTH = 1_000.0
NARROWEST = 3.0
"""What is too short to be seen is drawn so wide."""
_CLOCKS = timedelta(seconds=1)
"""A cluster tells when a container started in whole seconds. What is later by more was told by a second controller,
which asked the engine again for a run that it had already."""

Kind = Literal["queued", "starting", "waiting", "attempt", "failed", "ended", "active", "pause", "finishing"]
_NAMES: dict[Kind, str] = {
    "queued": "queued",
    "starting": "starting",
    "waiting": "queued and starting",
    "pause": "pause before the next attempt",
    "finishing": "finishing",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a run's time; `kind` is a class of the style sheet. `seconds` of one that `goes_on` are so far."""

    kind: Kind
    name: str
    start: datetime
    seconds: float
    x: float
    width: float
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stretches in order, and how long they are together."""

    segments: tuple[Segment, ...] = ()
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """The same as a sentence, for who does not see the drawing."""
        return ", ".join(f"{one.name} {duration(one.seconds)}" for one in self.segments)


@dataclass(frozen=True, slots=True)
class _Stretch:
    kind: Kind
    name: str
    start: datetime
    end: datetime
    goes_on: bool = False


def timeline(
    *,
    state: State,
    queued_at: datetime | None,
    dispatched_at: datetime | None,
    attempts: Sequence[Attempt],
    finished_at: datetime | None,
    now: datetime,
) -> Timeline:
    """The drawing of a run. `dispatched_at`, when its engine got it, parts the time before its first attempt in two."""
    begun = [one for one in attempts if one.started_at]
    stretches = _stretches(state, queued_at, dispatched_at, begun, finished_at, now)
    if not stretches:
        return Timeline()
    begin, end = stretches[0].start, max(one.end for one in stretches)
    seconds = max((end - begin).total_seconds(), 1e-6)
    return Timeline(tuple(_placed(one, begin, seconds) for one in stretches), (end - begin).total_seconds())


def _stretches(
    state: State,
    queued_at: datetime | None,
    dispatched_at: datetime | None,
    attempts: Sequence[Attempt],
    finished_at: datetime | None,
    now: datetime,
) -> list[_Stretch]:
    end = finished_at or now
    first = attempts[0].started_at if attempts else None
    found = _before(state, queued_at, dispatched_at, first, end)
    for index, attempt in enumerate(attempts):
        following = attempts[index + 1].started_at if index + 1 < len(attempts) else None
        found += _attempt(attempt, following, finished_at, now, state)
    last = found[-1].end if found else None
    if attempts and finished_at is not None and last is not None and last < finished_at:
        found.append(_stretch("finishing", last, finished_at))
    return found


def _before(
    state: State, queued_at: datetime | None, dispatched_at: datetime | None, first: datetime | None, end: datetime
) -> list[_Stretch]:
    """The time before the first attempt."""
    if queued_at is None:
        return []
    until = max(queued_at, first or end)
    goes_on = first is None and not state.finished
    if state is State.QUEUED:
        return [_stretch("queued", queued_at, until, goes_on)]
    if first is None and state.finished and dispatched_at is None:
        return [_Stretch("waiting", "waiting", queued_at, until)]
    if first is None and state is State.RUNNING:  # it says so itself, and when it began is not told yet
        return [_Stretch("active", "since it was queued", queued_at, until, True)]
    if dispatched_at is None or (first is not None and dispatched_at - first > _CLOCKS):
        return [_stretch("waiting", queued_at, until, goes_on)]
    taken = min(max(queued_at, dispatched_at), until)
    return [_stretch("queued", queued_at, taken), _stretch("starting", taken, until, goes_on)]


def _attempt(
    attempt: Attempt, following: datetime | None, finished_at: datetime | None, now: datetime, state: State
) -> list[_Stretch]:
    """An attempt, and the pause behind it."""
    start = attempt.started_at
    if start is None:
        return []
    ended = attempt.finished_at or following or finished_at
    end = max(start, ended or now)
    kind = attempt_kind(attempt, state, goes_on=ended is None)
    found = [_Stretch(kind, f"attempt {attempt.number}", start, end, ended is None)]
    if attempt.finished_at is not None and (following or finished_at is None):
        pause_end = max(end, following or now)
        if not _was_good(attempt):
            found.append(_stretch("pause", end, pause_end, following is None))
        elif following is None:
            found.append(_stretch("finishing", end, pause_end, True))
    return found


def attempt_kind(attempt: Attempt, state: State, *, goes_on: bool) -> Kind:
    """How an attempt is drawn. One that a cancel `ended` neither succeeded nor failed."""
    if goes_on:
        return "active"
    told_nothing = attempt.reason is None and attempt.error is None
    if attempt.reason is Reason.CANCELLED or (state is State.CANCELLED and told_nothing):
        return "ended"
    return "attempt" if _was_good(attempt) else "failed"


def _was_good(attempt: Attempt) -> bool:
    if attempt.reason is not None:
        return attempt.reason is Reason.COMPLETED
    return attempt.error is None and attempt.exit_code in (None, 0)


def _stretch(kind: Kind, start: datetime, end: datetime, goes_on: bool = False) -> _Stretch:
    return _Stretch(kind, _NAMES[kind], start, end, goes_on)


def _placed(one: _Stretch, begin: datetime, seconds: float) -> Segment:
    scale = WIDTH / seconds
    length = (one.end - one.start).total_seconds()
    width = min(WIDTH, max(NARROWEST, length * scale))
    x = min(max(0.0, (one.start - begin).total_seconds() * scale), WIDTH - width)
    return Segment(one.kind, one.name, one.start, length, round(x, 2), round(width, 2), one.goes_on)
