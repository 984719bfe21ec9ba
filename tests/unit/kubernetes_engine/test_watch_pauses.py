"""How long the engine looks away after its watch was cut."""

from __future__ import annotations

from trigger.kubernetes_engine.watch import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, pause_after


def test_a_watch_that_lasted_is_begun_anew_at_once_however_often_it_is_cut() -> None:
    """By an idle limit of a minute, say: pauses that only grew made the engine blind for ten seconds of each."""
    assert pause_after(LONGEST_PAUSE_SECONDS, 60.0) == FIRST_PAUSE_SECONDS


def test_trouble_upon_trouble_is_waited_out_for_longer() -> None:
    """Without a watch in between, or with one that was cut soon."""
    assert pause_after(3.2, 0.0) == 3.2
    assert pause_after(3.2, LONGEST_PAUSE_SECONDS - 0.1) == 3.2
