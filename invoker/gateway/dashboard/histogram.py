"""Durations as a drawing: bars on a logarithmic scale of time. Places only; the template writes the shapes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from invoker.gateway.run_figures import Bar, DurationFigures
from invoker.quantities import count, duration

WIDTH, HEIGHT = 640, 180
_TOP, _BOTTOM, _SIDE, _GAP = 18, 22, 8, 2
_LEAST_HEIGHT = 2.0
_MOST_TICKS = 6
_LABEL_WIDTH = 56
_LEAST_COLUMNS = 8
"""So wide as of so many is a column at most: one run is no block."""


@dataclass(frozen=True, slots=True)
class Column:
    """One bar that is drawn, and what it says."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A duration below the axis. `anchor` is where the text is held: start, middle or end."""

    x: float
    anchor: str
    words: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A drawing of `width` by `height`, and what it says in a sentence."""

    columns: tuple[Column, ...]
    ticks: tuple[Tick, ...]
    base: float
    most: int
    words: str
    width: int = WIDTH
    height: int = HEIGHT


def histogram(figures: DurationFigures) -> Histogram | None:
    """The drawing of these durations, None of none."""
    if not figures.bars:
        return None
    most = max(bar.count for bar in figures.bars)
    step = (WIDTH - 2 * _SIDE) / max(_LEAST_COLUMNS, len(figures.bars))
    base = HEIGHT - _BOTTOM
    columns = tuple(
        _column(bar, _SIDE + index * step, step, base, most) for index, bar in enumerate(figures.bars) if bar.count
    )
    return Histogram(columns, _ticks(figures.bars, step), base, most, _words(figures))


def _column(bar: Bar, x: float, step: float, base: float, most: int) -> Column:
    height = max(_LEAST_HEIGHT, (base - _TOP) * bar.count / most)
    words = f"{duration(bar.low_seconds)} to {duration(bar.high_seconds)}: {count(bar.count, 'run')}"
    return Column(round(x + _GAP / 2, 2), round(base - height, 2), round(step - _GAP, 2), round(height, 2), words)


def _ticks(bars: tuple[Bar, ...], step: float) -> tuple[Tick, ...]:
    """The edges of bars that have room for their words, both ends among them; below a single bar both in one text."""
    if len(bars) == 1:
        low, high = duration(bars[0].low_seconds), duration(bars[0].high_seconds)
        return (Tick(_SIDE, "start", low if low == high else f"{low} to {high}"),)
    room = max(1, min(_MOST_TICKS, int((WIDTH - 2 * _SIDE) // _LABEL_WIDTH)))
    every = -(-len(bars) // room)
    edges = [(index, bars[index].low_seconds) for index in range(0, len(bars), every) if len(bars) - index >= every]
    edges.append((len(bars), bars[-1].high_seconds))
    return tuple(
        Tick(
            round(_SIDE + index * step, 2),
            "start" if index == 0 else "end" if index == len(bars) else "middle",
            duration(seconds),
        )
        for index, seconds in edges
    )


def _words(figures: DurationFigures) -> str:
    if figures.count == 1:
        return f"1 run: it took {duration(figures.p50_seconds)}"
    return (
        f"{count(figures.count, 'run')}: half took up to {duration(figures.p50_seconds)}, 95 of 100 up to "
        f"{duration(figures.p95_seconds)}, 99 of 100 up to {duration(figures.p99_seconds)}"
    )
