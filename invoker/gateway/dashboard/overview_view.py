"""The overview's figures and its drawing of the last hour, as values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from invoker.gateway.access.scopes import Action
from invoker.gateway.dead_news import DeadLetters
from invoker.gateway.run_figures import FunctionFigures, HourFigures, MinuteFigures
from invoker.gateway.sight import Sight
from invoker.quantities import count
from invoker.result import Reason, reason_info
from invoker.views import DeadLetter, FunctionInfo

HEIGHT, BAR_WIDTH, GAP = 100.0, 10.0, 2.0
SLOWEST = 8
RATE_MINUTES = 5
SHOWN_DEAD = 4
MAX_BROKEN = 20
_NICE = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a bar: where it is, and what it stands for (`good`, `bad`, `cancelled`)."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class RateBar:
    """One minute: where it is, what it says, its parts from the bottom up."""

    x: float
    words: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class RateDrawing:
    """The runs that finished in each of the last 60 minutes. Its top is `top` a minute."""

    bars: tuple[RateBar, ...]
    width: float
    height: float
    top: int
    words: str
    begin: datetime


@dataclass(frozen=True, slots=True)
class ReasonShare:
    """How many runs failed for a reason; `share` in 100 of the most frequent one."""

    reason: Reason
    meaning: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers at the top."""

    running: int
    waiting: int
    finished: int
    failed: int
    per_minute: float


def figures(functions: Sequence[FunctionInfo], hour: HourFigures, now: datetime) -> Figures:
    """The numbers of now and of the last hour."""
    return Figures(
        sum(one.running for one in functions), sum(one.queued for one in functions),
        hour.finished, hour.failed, per_minute(hour.minutes, now),
    )  # fmt: skip


def per_minute(minutes: Sequence[MinuteFigures], now: datetime) -> float:
    """Runs that finished per minute, over the last minutes and what has passed of this one."""
    last = minutes[-RATE_MINUTES:]
    seconds = max(1.0, (now - last[0].at).total_seconds())
    rate = sum(minute.finished for minute in last) / seconds * 60
    return round(rate) if rate >= 10 else round(rate, 1)


def rate_drawing(minutes: Sequence[MinuteFigures]) -> RateDrawing:
    """Bars of the minutes, good below bad below cancelled."""
    most = max(minute.finished for minute in minutes)
    top = nice_top(most)
    finished, failed = sum(one.finished for one in minutes), sum(one.bad for one in minutes)
    words = (
        f"Finished per minute in the last hour: {count(finished, 'run')}, {failed:,} failed; at most {most:,} a minute"
    )
    bars = tuple(
        RateBar(round(place * (BAR_WIDTH + GAP), 1), _minute_words(minute), _parts(minute, top))
        for place, minute in enumerate(minutes)
    )
    return RateDrawing(bars, len(minutes) * (BAR_WIDTH + GAP) - GAP, HEIGHT, top, words, minutes[0].at)


def nice_top(most: int) -> int:
    """The number at or above `most` that a scale ends with: 1, 2, 5, 10, 20, 50 …"""
    power = 1
    while True:
        for step in _NICE:
            if step * power >= most:
                return step * power
        power *= 10


def reason_shares(reasons: HourFigures) -> list[ReasonShare]:
    """Why runs failed, most frequent first."""
    failed = {
        reason: number
        for reason, number in reasons.reasons.items()
        if number and reason not in (Reason.COMPLETED, Reason.CANCELLED)
    }
    most = max(failed.values(), default=1)
    ordered = sorted(failed.items(), key=lambda one: (-one[1], one[0]))
    return [
        ReasonShare(reason, reason_info(reason).meaning, number, round(100 * number / most, 1))
        for reason, number in ordered
    ]


def slowest(hour: HourFigures) -> list[FunctionFigures]:
    """The functions whose runs took longest."""
    timed = [one for one in hour.functions if one.p95_seconds is not None]
    return sorted(timed, key=lambda one: (-(one.p95_seconds or 0), one.function))[:SLOWEST]


def broken(functions: Sequence[FunctionInfo]) -> list[FunctionInfo]:
    """The functions whose file is refused: those that cannot run at all first."""
    found = [one for one in functions if one.status != "ready"]
    return sorted(found, key=lambda one: (one.status != "broken", one.name))[:MAX_BROKEN]


def place_of(function: FunctionInfo) -> str:
    """`file:line` of what is wrong, as far as it is known and the words of the problem do not begin with it."""
    problem = function.problem
    if problem is None or problem.file is None:
        return function.file or ""
    place = f"{problem.file}:{problem.line}" if problem.line is not None else problem.file
    return "" if problem.message.startswith(place) else place


def seen_letters(sight: Sight, letters: DeadLetters) -> tuple[int, bool, list[DeadLetter]]:
    """How many dead letters the caller may see, whether there may be more, and the newest of them."""
    if sight.caller.sees_everything():
        return letters.count, False, list(letters.newest[:SHOWN_DEAD])
    seen = [one for one in letters.newest if sight.may(Action.READ, one.topic)]
    return len(seen), len(letters.newest) < letters.count, seen[:SHOWN_DEAD]


def _parts(minute: MinuteFigures, top: int) -> tuple[Part, ...]:
    parts, y = [], HEIGHT
    for kind, number in (("good", minute.good), ("bad", minute.bad), ("cancelled", minute.cancelled)):
        if number:
            height = round(max(1.0, number / top * HEIGHT), 2)
            y = round(max(0.0, y - height), 2)
            parts.append(Part(kind, y, height))
    return tuple(parts)


def _minute_words(minute: MinuteFigures) -> str:
    parts = [f"{minute.good:,} succeeded", f"{minute.bad:,} failed"]
    if minute.cancelled:
        parts.append(f"{minute.cancelled:,} cancelled")
    return f"{minute.at:%H:%M}: {', '.join(parts)}" if minute.finished else f"{minute.at:%H:%M}: none"
