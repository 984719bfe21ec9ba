"""When a log that was read counts as whole, when it is read again, when it is given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kubernetes_engine.objects import ended, made_pod
from trigger.kubernetes_engine.evidence import is_final, may_have_lost_all
from trigger.kubernetes_engine.failures import ApiFailure, no_answer
from trigger.kubernetes_engine.hearing import Heard
from trigger.kubernetes_engine.wholeness import Mark, Tally, Verdict, judge, mark_of, read_mark, tail_of, written

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def counted(*chunks: bytes, is_end: bool = True) -> Mark:
    tally = Tally()
    for chunk in chunks:
        tally.add(chunk)
    tally.is_end = is_end
    return tally.mark()


def test_one_reading_proves_nothing_and_two_that_agree_do() -> None:
    assert judge(b"one\n", (), None) is Verdict.AGAIN
    assert judge(b"one\n", (), mark_of(b"one\n")) is Verdict.WHOLE
    assert judge(b"one\ntwo\n", (), mark_of(b"one\n")) is Verdict.AGAIN
    assert judge(b"two\n", (), mark_of(b"one\n")) is Verdict.AGAIN


def test_a_reading_that_agrees_with_what_was_followed_is_whole() -> None:
    assert judge(b"one\ntwo\n", [counted(b"one\n", b"two\n")], None) is Verdict.WHOLE
    assert judge(b"one\ntwo\n", [counted(b"one\n", b"two\n", is_end=False)], None) is Verdict.AGAIN
    assert judge(b"one\n", [counted(b"one\n", b"two\n")], None) is Verdict.AGAIN


def test_a_mark_is_read_as_it_was_written_and_only_for_its_pod() -> None:
    mark = counted(b"one\n", is_end=False)
    assert read_mark(written(mark, "pod-a"), "pod-a") == (mark,)
    for text in (written(mark, "pod-b"), "", "pod-a 4", "pod-a x 00", "pod-a 4 zz", "pod-a -1 00"):
        assert read_mark(text, "pod-a") == ()


def test_nothing_confirms_an_empty_log_but_another_reading() -> None:
    assert judge(b"", [counted()], None) is Verdict.AGAIN
    assert judge(b"", [counted()], mark_of(b"")) is Verdict.WHOLE


def test_a_log_whose_beginning_is_gone_is_never_whole() -> None:
    followed = counted(b"one\n", b"two\n")
    for rest in (b"two\n", b"", b"three\nmore than there was\n"):
        assert judge(rest, [followed], mark_of(rest)) is Verdict.CUT
    assert judge(b"two\n", [followed, counted(b"two\n")], mark_of(b"two\n")) is Verdict.CUT


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_only_the_whole_log_is_called_whole(log: bytes, followed: int, lost: int, cut: int) -> None:
    """Followed from its start on for a while, its file begun anew there or earlier, and cut on the way once."""
    seen = counted(log[:followed], is_end=followed >= len(log))
    rest = log[min(lost, followed) :]
    before = None
    for reading in (rest[:cut], rest, rest):
        verdict = judge(reading, [seen], before)
        assert verdict is not Verdict.WHOLE or reading == log
        before = mark_of(reading)
    assert verdict is (Verdict.WHOLE if rest == log else Verdict.CUT)


def test_the_end_of_a_log() -> None:
    assert tail_of(b"said", None, 10) == b"said"
    assert tail_of(None, b"heard", 10) == b"heard"
    assert tail_of(None, None, 10) == b""
    assert tail_of(b"", b"before it was begun anew", 10) == b"before it was begun anew"
    assert tail_of(b"end", b"and the end", 11) == b"and the end"
    assert tail_of(b"heard, and more", b"heard", 100) == b"heard, and more"
    assert tail_of(b"0123456789", b"x0123456789", 10) == b"0123456789"


GONE = ApiFailure(404, "NotFound", 'pods "x" not found')
NODE = ApiFailure(502, "", "error dialing backend: connect: connection refused")


@pytest.mark.parametrize("status", [500, 502])
def test_a_log_that_is_not_given_out_now_may_be_later(status: int) -> None:
    failure = ApiFailure(status, "InternalError", "no reason given")
    assert not is_final(failure, is_patient=True)
    assert is_final(failure, is_patient=False)


def test_a_log_that_is_gone_is_gone_and_a_busy_api_server_is_waited_for() -> None:
    assert is_final(GONE, is_patient=True)
    assert not is_final(NODE, is_patient=True)
    for failure in (ApiFailure(429), ApiFailure(503), ApiFailure(403), no_answer("cut")):
        assert not is_final(failure, is_patient=False)


def test_a_log_without_a_line_that_nobody_watched() -> None:
    def lived(seconds: float) -> object:
        return replace(ended(0), started_at=START, finished_at=START + timedelta(seconds=seconds))

    short, long = (made_pod(phase="Succeeded", main=lived(seconds)) for seconds in (9, 10))
    assert may_have_lost_all(b"", long, Heard())
    assert may_have_lost_all(b"", long, Heard((counted(),), is_from_start=False))
    assert not may_have_lost_all(b"", long, Heard((counted(),), is_from_start=True))
    assert not may_have_lost_all(b"", short, Heard())
    assert not may_have_lost_all(b"a line", long, Heard())
