"""Numbers about finished runs: the last hour by minute, reason and function, and how long the runs of a function took.

The hour is counted as rows come, never searched for: reading it costs a few milliseconds however many runs there were.
It is counted twice, by function for whoever sees everything, and by function and topic for everybody else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from invoker.result import Reason
from invoker.views import RunRow

MINUTES = 60
"""The minutes of the hour, the one that goes on included."""
MAX_PAIRS = 2_000
"""Pairs of function and topic that are counted apart: topics may be invented without end."""
MAX_BARS = 24
_STEPS_PER_OCTAVE = 8
_CODE_BITS = 9
_FIRST_DURATION = 32
"""Codes below are reasons, codes from here on durations."""
_MAX_CODE = (1 << _CODE_BITS) - 1
_SERIES = (40, 20, 10, 5, 2, 1)
"""Steps per decade that a histogram may have, finest first: edges are preferred numbers (1, 1.25, 1.6, 2 …)."""
_REASONS = list(Reason)
_GOOD, _CANCELLED = _REASONS.index(Reason.COMPLETED), _REASONS.index(Reason.CANCELLED)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class MinuteFigures:
    """The runs that finished in the minute that began at `at`."""

    at: datetime
    good: int = 0
    bad: int = 0
    cancelled: int = 0

    @property
    def finished(self) -> int:
        return self.good + self.bad + self.cancelled


@dataclass(frozen=True, slots=True)
class FunctionFigures:
    """The runs of one function that finished within the hour. Durations are from start to end, right to 5 in 100;
    None when no run had started."""

    function: str
    finished: int
    failed: int
    p50_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class HourFigures:
    """The last 60 minutes, oldest first. `is_whole` is False when topics were too many to count all of them for a
    caller who does not see everything."""

    minutes: tuple[MinuteFigures, ...]
    reasons: Mapping[Reason, int]
    functions: tuple[FunctionFigures, ...]
    is_whole: bool = True

    @property
    def finished(self) -> int:
        return sum(minute.finished for minute in self.minutes)

    @property
    def failed(self) -> int:
        return sum(minute.bad for minute in self.minutes)


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of a histogram: runs that took at least `low_seconds` and less than `high_seconds`."""

    low_seconds: float
    high_seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class DurationFigures:
    """How long runs took: a histogram with a logarithmic scale, without a gap, and exact percentiles. None where there
    is no run."""

    count: int
    bars: tuple[Bar, ...] = ()
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None


class RunFigures:
    """Counts the runs of the last hour. `take` every finished row once, in any order."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._functions: _Hour[str] = _Hour()
        self._pairs: _Hour[tuple[str, str]] = _Hour(MAX_PAIRS)
        self._minutes: dict[int, list[int]] = {}
        self._since = 0
        self._version = 0
        self._cached: tuple[tuple[int, int], HourFigures] | None = None

    def take(self, row: RunRow) -> None:
        """Count a finished run; one that finished before the hour is nothing."""
        if row.reason is None or row.finished_at is None:
            return
        now = self._minute()
        minute = min(int(row.finished_at.timestamp() // 60), now)  # somebody's clock may be ahead
        if minute <= now - MINUTES:
            return
        reason = _REASONS.index(row.reason)
        codes = [reason]
        if row.started_at is not None:
            codes.append(_code((row.finished_at - row.started_at).total_seconds()))
        self._functions.add(minute, row.function, codes)
        self._pairs.add(minute, (row.function, row.topic), codes)
        self._minutes.setdefault(minute, [0, 0, 0])[_part(reason)] += 1
        self._version += 1

    def whole(self) -> HourFigures:
        """The hour of everybody's runs."""
        moment = (self._version, self._minute())
        if self._cached is None or self._cached[0] != moment:
            counts = {function: [codes] for function, codes in self._functions.codes().items()}
            self._cached = moment, _hour(moment[1], self._minutes, counts)
        return self._cached[1]

    async def part(self, sees: Callable[[str, str], bool]) -> HourFigures:
        """The hour of those runs whose function and topic `sees` lets through."""
        now = self._minute()
        codes = self._pairs.codes()
        seen = {pair for pair in codes if sees(*pair)}
        counts: dict[str, list[Mapping[int, int]]] = {}
        for pair in seen:
            counts.setdefault(pair[0], []).append(codes[pair])
        minutes: dict[int, list[int]] = {}
        for minute in range(now - MINUTES + 1, now + 1):
            minutes[minute] = self._pairs.parts(minute, seen)
            await asyncio.sleep(0)
        return _hour(now, minutes, counts, is_whole=not self._pairs.left_out)

    def _minute(self) -> int:
        """The minute that it is; what is older than an hour is forgotten when it begins."""
        now = int(self._clock() // 60)
        if now != self._since:
            self._since = now
            oldest = now - MINUTES + 1
            self._functions.forget(oldest)
            self._pairs.forget(oldest)
            self._minutes = {minute: parts for minute, parts in self._minutes.items() if minute >= oldest}
        return now


class _Hour(Generic[K]):
    """Counts by key, and by code within each: minute by minute, and all together.

    Of a minute key and code are one number, so that an hour of many keys is sixty small dictionaries.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._numbers: dict[K, int] = {}
        self._all: dict[int, Counter[int]] = {}
        self._minutes: dict[int, Counter[int]] = {}
        self._next = 0
        self._left_out_in = 0

    @property
    def left_out(self) -> bool:
        """Whether keys were not counted, because they were too many."""
        return self._left_out_in > 0

    def add(self, minute: int, key: K, codes: Sequence[int]) -> None:
        number = self._numbers.get(key)
        if number is None:
            if self._most is not None and len(self._numbers) >= self._most:
                self._left_out_in = max(minute, self._left_out_in)
                return
            number = self._numbers[key] = self._next
            self._all[number] = Counter()
            self._next += 1
        counts, together = self._minutes.setdefault(minute, Counter()), self._all[number]
        for code in codes:
            counts[number << _CODE_BITS | code] += 1
            together[code] += 1

    def forget(self, oldest: int) -> None:
        """Drop the minutes before that one, and the keys that only they had."""
        for minute in [one for one in self._minutes if one < oldest]:
            for both, count in self._minutes.pop(minute).items():
                together = self._all[both >> _CODE_BITS]
                together[both & _MAX_CODE] -= count
                if not together[both & _MAX_CODE]:
                    del together[both & _MAX_CODE]
        self._numbers = {key: number for key, number in self._numbers.items() if self._all[number]}
        self._all = {number: self._all[number] for number in self._numbers.values()}
        if self._left_out_in < oldest:
            self._left_out_in = 0

    def codes(self) -> dict[K, Mapping[int, int]]:
        """The counts of the hour, by key and code."""
        return {key: self._all[number] for key, number in self._numbers.items()}

    def parts(self, minute: int, seen: set[K]) -> list[int]:
        """Good, bad and cancelled runs of those keys in that minute."""
        numbers, parts = {self._numbers[key] for key in seen if key in self._numbers}, [0, 0, 0]
        for both, count in self._minutes.get(minute, {}).items():
            if both & _MAX_CODE < _FIRST_DURATION and both >> _CODE_BITS in numbers:
                parts[_part(both & _MAX_CODE)] += count
        return parts


def duration_figures(seconds: Sequence[float]) -> DurationFigures:
    """The histogram and the percentiles of these durations. Pure."""
    if not seconds:
        return DurationFigures(0)
    ordered = sorted(max(one, 0.001) for one in seconds)
    p50, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
    return DurationFigures(len(ordered), _bars(ordered), p50, p95, p99)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that this share of them does not exceed. Pure."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def _bars(ordered: Sequence[float]) -> tuple[Bar, ...]:
    """At most `MAX_BARS` bars from the shortest to the longest, as fine as they can be."""
    for steps in _SERIES:
        low, high = _step(ordered[0], steps), _step(ordered[-1], steps)
        if high - low < MAX_BARS:
            break
    counts = Counter(min(_step(one, steps), low + MAX_BARS - 1) for one in ordered)
    last = min(high, low + MAX_BARS - 1)
    return tuple(Bar(10 ** (step / steps), 10 ** ((step + 1) / steps), counts[step]) for step in range(low, last + 1))


def _step(seconds: float, steps: int) -> int:
    return math.floor(math.log10(seconds) * steps + 1e-9)


def _hour(
    now: int, minutes: Mapping[int, Sequence[int]], counts: Mapping[str, Sequence[Mapping[int, int]]],
    *, is_whole: bool = True,
) -> HourFigures:  # fmt: skip
    """The figures from what was counted: by minute, and by function in one or more parts. Pure."""
    summed = {function: _sum(parts) for function, parts in counts.items()}
    reasons: Counter[Reason] = Counter()
    for codes in summed.values():
        for code, count in codes.items():
            if code < _FIRST_DURATION:
                reasons[_REASONS[code]] += count
    return HourFigures(
        tuple(
            MinuteFigures(datetime.fromtimestamp(minute * 60, UTC), *minutes.get(minute, (0, 0, 0)))
            for minute in range(now - MINUTES + 1, now + 1)
        ),
        reasons,
        tuple(_function(function, codes) for function, codes in sorted(summed.items())),
        is_whole,
    )


def _sum(parts: Sequence[Mapping[int, int]]) -> Mapping[int, int]:
    if len(parts) == 1:
        return parts[0]
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part)
    return total


def _function(function: str, codes: Mapping[int, int]) -> FunctionFigures:
    ended = {code: count for code, count in codes.items() if code < _FIRST_DURATION}
    durations = sorted((code, count) for code, count in codes.items() if code >= _FIRST_DURATION)
    return FunctionFigures(
        function,
        finished=sum(ended.values()),
        failed=sum(count for code, count in ended.items() if _part(code) == 1),
        p50_seconds=_at_share(durations, 0.5),
        p95_seconds=_at_share(durations, 0.95),
    )


def _at_share(durations: Sequence[tuple[int, int]], share: float) -> float | None:
    """The duration that this share of the counted ones does not exceed, None when there is none."""
    left = math.ceil(sum(count for _, count in durations) * share)
    for code, count in durations:
        left -= count
        if left <= 0:
            return _seconds(code)
    return None


def _part(reason: int) -> int:
    """Where a reason is counted: 0 good, 1 bad, 2 cancelled."""
    return 0 if reason == _GOOD else 2 if reason == _CANCELLED else 1


def _code(seconds: float) -> int:
    """The code of a duration: its place on a logarithmic scale that begins with a millisecond."""
    if seconds < 0.001:
        return _FIRST_DURATION
    return min(_FIRST_DURATION + 1 + int(math.log2(seconds * 1000) * _STEPS_PER_OCTAVE), _MAX_CODE)


def _seconds(code: int) -> float:
    """The middle of what has that code."""
    step = code - _FIRST_DURATION - 1
    return 0.0005 if step < 0 else float(2 ** ((step + 0.5) / _STEPS_PER_OCTAVE) / 1000)
