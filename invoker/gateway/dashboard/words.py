"""Instants, numbers and notices as a page says them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from invoker.quantities import duration

NOTICES = {
    "cancelled": "Cancelled. Runs that had finished before keep their result.",
    "replayed": "Replayed, as a new request: this one.",
    "paused": "Paused: runs stay queued until it is resumed.",
    "resumed": "Resumed: queued runs start again.",
    "redriven": "Sent again, as a new request: this one.",
    "published": "Published, as this request.",
    "sent": "Published. You may not read what becomes of it.",
    "reloaded": "The catalog was read again.",
}
"""What a page says once after a change; the address names which."""


def notice(done: str | None) -> str | None:
    """What was done a moment ago, None for nothing and for anything that we do not say."""
    return NOTICES.get(done or "")


def ago(at: datetime | None, now: datetime) -> str:
    """`12 s ago`, `in 3 s`; a dash for None."""
    if at is None:
        return "–"
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    text = duration(round(abs(seconds))).replace(".0 s", " s")
    return f"{text} ago" if seconds > 0 else f"in {text}"


def instant(at: datetime | None) -> str:
    """`2026-03-01 12:00:00.250 UTC`; a dash for None."""
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def sentence(text: str) -> str:
    """The words of an error as a sentence of a page: a capital at the beginning, a full stop at the end. A name at the
    beginning that is no word (`billing.NoMoney: …`, `take-order …`) stays as it is. Nothing stays nothing."""
    text = text.strip()
    if not text:
        return ""
    begin = text.partition(" ")[0].rstrip(",:;.")
    capital = f"{text[:1].upper()}{text[1:]}" if begin.isalpha() else text
    return capital + ("" if text.endswith((".", "!", "?")) else ".")


def number(value: float | None) -> str:
    """`1,234`, `0.25`; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.2g}"
