"""The words and states of ends: the same ones whichever engine saw them."""

from __future__ import annotations

import pytest

from invoker.result import Reason, State
from trigger import endings

MIB = 1024 * 1024


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_one_state(reason: Reason) -> None:
    expected = {Reason.COMPLETED: State.SUCCEEDED, Reason.TIMEOUT: State.TIMED_OUT, Reason.CANCELLED: State.CANCELLED}
    assert endings.state_of(reason) is expected.get(reason, State.FAILED)


@pytest.mark.parametrize(
    ("text", "number", "state", "reason", "message"),
    [
        ("cancelled", 2, State.CANCELLED, Reason.CANCELLED, "cancelled in attempt 2"),
        ("cancelled", 0, State.CANCELLED, Reason.CANCELLED, "cancelled before its first attempt"),
        ("timeout", 1, State.TIMED_OUT, Reason.TIMEOUT, "given up in attempt 1: its deadline has passed"),
        ("expired-in-queue", 1, State.FAILED, Reason.EXPIRED_IN_QUEUE, "stopped in attempt 1 (expired-in-queue)"),
        ("completed", 1, State.CANCELLED, Reason.CANCELLED, "cancelled in attempt 1"),
        ("somebody tripped", 1, State.CANCELLED, Reason.CANCELLED, "stopped in attempt 1: somebody tripped"),
        ("", 1, State.CANCELLED, Reason.CANCELLED, "stopped in attempt 1"),
    ],
)
def test_the_end_of_a_stopped_run(text: str, number: int, state: State, reason: Reason, message: str) -> None:
    end = endings.stopped(text, number)
    assert (end.state, end.reason, end.message) == (state, reason, message)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1000, "1000 bytes"), (1024, "1 KiB"), (256 * MIB, "256 MiB"), (1536 * MIB, "1.5 GiB")],
)
def test_sizes_as_people_write_them(size: int, text: str) -> None:
    assert endings.size_text(size) == text
