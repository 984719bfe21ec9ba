"""When a call is repeated: the pause as a function of what happened, and never beyond its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_engine.retries import Patience, is_repeatable, pause_before_repeating

PATIENCE = Patience()
BUSY = ApiFailure(503)


def pause(failure: ApiFailure, attempts: int = 1, elapsed: float = 0.0, chance: float = 1.0) -> float | None:
    return pause_before_repeating(PATIENCE, failure, attempts, elapsed, chance)


def test_pauses_double_up_to_the_largest() -> None:
    assert [pause(BUSY, attempts) for attempts in range(1, 8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_chance_takes_off_at_most_half() -> None:
    assert pause(BUSY, chance=0.0) == pytest.approx(0.05)


def test_the_servers_own_pause_is_kept() -> None:
    assert pause(ApiFailure(429, retry_after_seconds=3.0), chance=0.0) == 3.0
    assert pause(ApiFailure(429, retry_after_seconds=3.0), chance=1.0) == pytest.approx(3.3)


def test_a_pause_beyond_the_bound_is_not_begun() -> None:
    assert pause(ApiFailure(429, retry_after_seconds=9.0)) is None
    assert pause(BUSY, elapsed=7.95) is None
    assert pause(BUSY, elapsed=7.85) == 0.1


@pytest.mark.parametrize(
    "failure",
    [
        ApiFailure(400),
        ApiFailure(401),
        ApiFailure(403),
        ApiFailure(404),
        ApiFailure(409, "AlreadyExists"),
        ApiFailure(422),
    ],
)
def test_what_was_decided_is_not_asked_again(failure: ApiFailure) -> None:
    assert not is_repeatable(failure)
    assert pause(failure) is None


@given(
    attempts=st.integers(1, 10_000),
    elapsed=st.floats(0, 100),
    chance=st.floats(0, 1),
    retry_after=st.none() | st.floats(0.001, 1000),
)
def test_no_pause_ends_after_the_bound(attempts: int, elapsed: float, chance: float, retry_after: float | None) -> None:
    seconds = pause(ApiFailure(503, retry_after_seconds=retry_after), attempts, elapsed, chance)
    if seconds is not None:
        assert seconds > 0
        assert elapsed + seconds <= PATIENCE.bound_seconds
        assert seconds >= (retry_after or 0)
