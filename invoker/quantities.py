"""Durations, sizes and ids as people read them. Pure."""

from __future__ import annotations

from datetime import datetime

_SIZES = ("KiB", "MiB", "GiB", "TiB")
SHORT_ID = 8


def duration(seconds: float | None) -> str:
    """`61 ms`, `1.9 s`, `2 m 05 s`, `3 h 12 m`, `4 d 2 h`; empty for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def between(start: datetime | None, end: datetime | None) -> float | None:
    """The seconds from one instant to the other, None when one is missing."""
    return None if start is None or end is None else (end - start).total_seconds()


def size(count: int) -> str:
    """`14 B`, `182 KiB`, `1.1 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in _SIZES:
        value /= 1024
        if value < 1023.5 or unit == _SIZES[-1]:
            break
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def count(number: int, thing: str) -> str:
    """`1 function`, `3 functions`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def short_id(identifier: str) -> str:
    """The part of an id that a person reads and may type back: the beginning of a hashed one, the end of a timed one.

    Timed ids (26 characters that begin with `01`) of one day differ only towards their end.
    """
    if len(identifier) <= SHORT_ID + 2:
        return identifier
    if len(identifier) == 26 and identifier.startswith("01"):
        return f"…{identifier[-SHORT_ID:]}"
    return identifier[:SHORT_ID]
