"""When a call to the API server is repeated, and after how long a pause. Pure: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from trigger.kubernetes_engine.failures import ApiFailure, is_transient


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call goes on being repeated, and how its pauses grow. Seconds."""

    bound_seconds: float = 8.0
    """No repetition begins later than this after the first attempt began."""
    first_pause_seconds: float = 0.1
    largest_pause_seconds: float = 2.0


def pause_before_repeating(
    patience: Patience, failure: ApiFailure, attempts: int, elapsed_seconds: float, chance: float
) -> float | None:
    """Seconds to wait before the next attempt, None when there shall be none.

    `attempts` were made until now, the first began `elapsed_seconds` ago; `chance`, from 0 to 1, spreads many callers
    over time. A pause the API server asks for is kept or, when it goes beyond the bound, not begun: the caller can
    wait better than a held call.
    """
    if not is_repeatable(failure):
        return None
    grown = min(patience.first_pause_seconds * 2.0 ** min(attempts - 1, 30), patience.largest_pause_seconds)
    pause = grown * (0.5 + chance / 2)
    if failure.retry_after_seconds is not None:
        pause = max(pause, failure.retry_after_seconds * (1 + chance / 10))
    return pause if elapsed_seconds + pause <= patience.bound_seconds else None


def is_repeatable(failure: ApiFailure) -> bool:
    """Whether the call layer itself tries again. A 401 is not waited for: it is repeated once, renewed."""
    return is_transient(failure) and failure.status != 401
