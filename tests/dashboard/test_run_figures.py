"""The numbers about finished runs: counted by minute, reason and function, forgotten after an hour, never too many."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.gateway.run_figures import MAX_BARS, MAX_PAIRS, MINUTES, RunFigures, duration_figures, percentile
from invoker.result import Reason, State
from invoker.views import RunRow

NOW = datetime(2026, 3, 1, 12, 30, 20, tzinfo=UTC)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at.timestamp()


def row(
    function: str = "f", *, ago: float = 0, took: float | None = 1, reason: Reason = Reason.COMPLETED, topic: str = "t"
) -> RunRow:
    end = NOW - timedelta(seconds=ago)
    started = None if took is None else end - timedelta(seconds=took)
    state = State.SUCCEEDED if reason is Reason.COMPLETED else State.FAILED
    return RunRow("run", "request", function, topic, state, reason, 1, started, started, end, "f1")


def figures_of(*rows: RunRow, clock: Clock | None = None) -> RunFigures:
    figures = RunFigures(clock or Clock())
    for one in rows:
        figures.take(one)
    return figures


def test_runs_are_counted_by_minute_reason_and_function() -> None:
    hour = figures_of(
        row(), row(ago=30), row("g", ago=30, reason=Reason.TIMEOUT), row("g", ago=3_500, reason=Reason.CANCELLED),
        row(ago=3_700),
    ).whole()  # fmt: skip
    assert len(hour.minutes) == MINUTES
    assert hour.minutes[-1].at == NOW.replace(second=0)
    assert [(m.good, m.bad, m.cancelled) for m in hour.minutes if m.finished] == [(0, 0, 1), (1, 1, 0), (1, 0, 0)]
    assert dict(hour.reasons) == {Reason.COMPLETED: 2, Reason.TIMEOUT: 1, Reason.CANCELLED: 1}
    assert [(one.function, one.finished, one.failed) for one in hour.functions] == [("f", 2, 0), ("g", 2, 1)]
    assert (hour.finished, hour.failed) == (4, 1), "what finished before the hour is not in it"


def test_a_clock_that_is_ahead_counts_now() -> None:
    assert figures_of(row(ago=-600)).whole().minutes[-1].good == 1


def test_percentiles_of_the_hour_are_right_to_five_in_a_hundred() -> None:
    shuffled = [n / 50 for n in range(1, 1_001)]
    random.Random(1).shuffle(shuffled)
    found = figures_of(*(row(took=took) for took in shuffled), row("slow", took=4_000), row("never", took=None)).whole()
    by_name = {one.function: one for one in found.functions}
    assert by_name["f"].p50_seconds == pytest.approx(10, rel=0.05)
    assert by_name["f"].p95_seconds == pytest.approx(19, rel=0.05)
    assert by_name["slow"].p50_seconds == pytest.approx(4_000, rel=0.05)
    assert by_name["never"].p50_seconds is None


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    clock = Clock()
    figures = figures_of(row(ago=1_800), row("g", ago=60, reason=Reason.ERROR), clock=clock)
    clock.at += timedelta(minutes=45)
    hour = figures.whole()
    assert [(one.function, one.finished, one.failed) for one in hour.functions] == [("g", 1, 1)]
    assert dict(hour.reasons) == {Reason.ERROR: 1}
    clock.at += timedelta(minutes=45)
    assert (figures.whole().finished, figures.whole().functions) == (0, ())
    figures.take(row("h", ago=-5_400))
    assert [one.function for one in figures.whole().functions] == ["h"]


async def test_a_part_is_what_its_caller_sees() -> None:
    figures = figures_of(
        row(), row("g", topic="secret"), row("g", reason=Reason.ERROR), row("h", reason=Reason.CANCELLED)
    )
    hour = await figures.part(lambda function, topic: topic != "secret" and function != "h")
    assert [(one.function, one.finished, one.failed) for one in hour.functions] == [("f", 1, 0), ("g", 1, 1)]
    assert (hour.finished, hour.failed, dict(hour.reasons)) == (2, 1, {Reason.COMPLETED: 1, Reason.ERROR: 1})
    assert hour.is_whole
    everything = await figures.part(lambda function, topic: True)
    assert everything == figures.whole()


async def test_topics_without_end_are_not_counted_apart() -> None:
    clock = Clock()
    figures = figures_of(*(row(topic=f"t{n}") for n in range(MAX_PAIRS + 50)), clock=clock)
    assert figures.whole().finished == MAX_PAIRS + 50
    part = await figures.part(lambda function, topic: True)
    assert (part.finished, part.is_whole) == (MAX_PAIRS, False)
    clock.at += timedelta(hours=2)
    figures.take(row(topic="another", ago=-7_200))
    part = await figures.part(lambda function, topic: True)
    assert (part.finished, part.is_whole) == (1, True)


def test_a_histogram_is_as_fine_as_it_can_be() -> None:
    narrow, wide = duration_figures([1.0, 1.1, 1.2, 1.3]), duration_figures([0.001, 1.0, 90_000.0])
    assert len(narrow.bars) >= 4
    assert narrow.bars[0].low_seconds <= 1.0 < narrow.bars[0].high_seconds
    assert len(wide.bars) <= MAX_BARS
    assert duration_figures([]) == duration_figures(())
    assert duration_figures([0.0]).count == 1


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_every_run_is_in_one_bar(seconds: list[float]) -> None:
    found = duration_figures(seconds)
    assert sum(bar.count for bar in found.bars) == found.count == len(seconds)
    assert 1 <= len(found.bars) <= MAX_BARS
    for one, following in zip(found.bars, found.bars[1:], strict=False):
        assert one.high_seconds == pytest.approx(following.low_seconds), "no gap"
    assert found.p50_seconds is not None
    assert found.p99_seconds is not None
    assert found.p50_seconds <= found.p99_seconds


def test_percentiles_are_values_that_were_there() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7
