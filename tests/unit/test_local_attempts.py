"""What an attempt's end means: every rule, and which of two rules wins."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.result import Reason
from trigger.local_engine import attempts
from trigger.local_engine.attempts import AttemptEnd, Interruption, Verdict
from trigger.plan import Code, Limits, OutputMode, RunPlan

MIB = 1024 * 1024


def plan(*, code: Code | None = None, no_retry: tuple[int, ...] = (), output: str = "api", **limits: Any) -> RunPlan:
    return RunPlan(
        run_id="run",
        request_id="request",
        function="work",
        topic="topic",
        spec_hash="0",
        catalog="0",
        code=code or Code(command=("true",)),
        env={},
        output=OutputMode(output),
        limits=Limits(**limits),
        no_retry_exit_codes=frozenset(no_retry),
    )


def note(**fields: str) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("end", "reason", "exit_code", "message"),
    [
        (AttemptEnd(0), Reason.COMPLETED, 0, ""),
        (AttemptEnd(3), Reason.ERROR, 3, "ended with exit code 3 in attempt 2 of 3"),
        (AttemptEnd(3, last_line="no file"), Reason.ERROR, 3, "ended with exit code 3 in attempt 2 of 3: no file"),
        (
            AttemptEnd(-15),
            Reason.ERROR,
            143,
            "was killed by signal 15 (SIGTERM) in attempt 2 of 3 (not by Invoker)",
        ),
        (AttemptEnd(-63), Reason.ERROR, 191, "was killed by signal 63 in attempt 2 of 3 (not by Invoker)"),
        (
            AttemptEnd(1, termination=note(type="KeyError", message="'id'")),
            Reason.ERROR,
            1,
            "raised KeyError: 'id' (in attempt 2 of 3)",
        ),
        (
            AttemptEnd(1, termination=note(type="InvalidInput", message="age is missing", reason="invalid-input")),
            Reason.INVALID_INPUT,
            1,
            "InvalidInput: age is missing (in attempt 2 of 3)",
        ),
        (
            AttemptEnd(1, termination=note(type="E", message="m", reason="made-up")),
            Reason.ERROR,
            1,
            "raised E: m (in attempt 2 of 3)",
        ),
        (
            AttemptEnd(1, termination=note(type="E", message="m", reason="completed")),
            Reason.ERROR,
            1,
            "raised E: m (in attempt 2 of 3)",
        ),
        (AttemptEnd(1, termination=b"\xff no json"), Reason.ERROR, 1, "ended with exit code 1 in attempt 2 of 3"),
        (AttemptEnd(1, termination=b"[1]"), Reason.ERROR, 1, "ended with exit code 1 in attempt 2 of 3"),
        (AttemptEnd(1, termination=b"{}"), Reason.ERROR, 1, "ended with exit code 1 in attempt 2 of 3"),
        (
            AttemptEnd(1, termination=note(type="MemoryError", message="")),
            Reason.OUT_OF_MEMORY,
            1,
            "ran out of memory in attempt 2 of 3",
        ),
    ],
)
def test_an_end_without_limits(end: AttemptEnd, reason: Reason, exit_code: int, message: str) -> None:
    verdict = attempts.judge(plan(backoff_limit=2), 2, end)
    assert (verdict.reason, verdict.exit_code, verdict.message) == (reason, exit_code, message)


def test_an_exit_code_that_is_not_tried_again_says_so_where_attempts_are_left() -> None:
    saying = [
        attempts.judge(plan(backoff_limit=2, no_retry={3}), number, AttemptEnd(3, last_line="no file")).message
        for number in (2, 3)
    ]
    assert saying == [
        "ended with exit code 3 in attempt 2 of 3, the last by noRetryExitCodes: no file",
        "ended with exit code 3 in attempt 3 of 3: no file",
    ]


@pytest.mark.parametrize(
    "end",
    [
        AttemptEnd(-signal.SIGKILL),
        AttemptEnd(-signal.SIGSEGV),
        AttemptEnd(-signal.SIGABRT),
        AttemptEnd(-signal.SIGBUS),
        AttemptEnd(1, last_line="MemoryError"),
        AttemptEnd(1, last_line="MemoryError: cannot allocate"),
        AttemptEnd(1, termination=note(type="MemoryError", message="x")),
    ],
)
def test_under_a_memory_limit_these_are_out_of_memory(end: AttemptEnd) -> None:
    verdict = attempts.judge(plan(memory_bytes=256 * MIB, backoff_limit=1), 1, end)
    assert verdict.reason is Reason.OUT_OF_MEMORY
    assert verdict.message == "used more than its 256 MiB in attempt 1 of 2"
    assert not verdict.final, "more memory may be there the next time: another node, other input order"


@pytest.mark.parametrize("end", [AttemptEnd(1), AttemptEnd(-signal.SIGTERM), AttemptEnd(1, last_line="a MemoryError")])
def test_under_a_memory_limit_these_are_not(end: AttemptEnd) -> None:
    assert attempts.judge(plan(memory_bytes=MIB), 1, end).reason is Reason.ERROR


@pytest.mark.parametrize("returncode", [0, 1, -signal.SIGKILL, -signal.SIGTERM])
@pytest.mark.parametrize(
    ("interruption", "reason", "message"),
    [
        (Interruption.STOP, Reason.CANCELLED, "stopped in attempt 1 of 3"),
        (Interruption.TIMEOUT, Reason.TIMEOUT, "ran longer than its 2.5 s in attempt 1 of 3"),
        (Interruption.DEADLINE, Reason.TIMEOUT, "given up in attempt 1 of 3: its deadline has passed"),
    ],
)
def test_who_interrupted_it_comes_before_how_it_died(
    interruption: Interruption, reason: Reason, message: str, returncode: int
) -> None:
    end = AttemptEnd(returncode, interruption, termination=note(type="Terminated", message=""))
    verdict = attempts.judge(plan(memory_bytes=MIB, timeout_seconds=2.5, backoff_limit=2), 1, end)
    assert (verdict.reason, verdict.message, verdict.final) == (reason, message, True)


def test_output_of_stdout_and_of_the_termination_file() -> None:
    end = AttemptEnd(0, output=b"out", output_size=3, termination=b"term")
    assert attempts.judge(plan(output="stdout"), 1, end).output == b"out"
    assert attempts.judge(plan(output="termination"), 1, end).output == b"term"
    assert attempts.judge(plan(), 1, end).output is None


def test_output_above_the_limit_names_both_sizes_and_is_final() -> None:
    verdict = attempts.judge(plan(output="stdout", output_bytes=10, backoff_limit=1), 1, AttemptEnd(0, output_size=11))
    assert verdict.message == "wrote 11 bytes to its stdout in attempt 1 of 2, at most 10 are allowed"
    assert (verdict.reason, verdict.final) == (Reason.OUTPUT_TOO_LARGE, True)
    verdict = attempts.judge(plan(output="termination"), 1, AttemptEnd(0, termination=bytes(4097)))
    assert verdict.reason is Reason.OUTPUT_TOO_LARGE
    assert attempts.judge(plan(output="termination"), 1, AttemptEnd(0, termination=bytes(4096))).output == bytes(4096)


def test_output_that_could_not_be_kept_is_the_engines_fault() -> None:
    end = AttemptEnd(0, trouble="its output cannot be kept in /state: No space left on device")
    verdict = attempts.judge(plan(output="stdout"), 1, end)
    assert verdict.reason is Reason.ENGINE
    assert "No space left on device, in attempt 1 of 1" in verdict.message


@pytest.mark.parametrize(
    ("code", "returncode", "final"),
    [
        (Code(command=("x",)), 42, True),
        (Code(command=("x",)), 41, False),
        (Code(command=("x",)), 64, False),
        (Code(runtime="python"), 64, True),
        (Code(runtime="python"), 42, True),
        (Code(runtime="python"), 1, False),
    ],
)
def test_exit_codes_that_forbid_another_attempt(code: Code, returncode: int, final: bool) -> None:
    verdict = attempts.judge(plan(code=code, no_retry=(42,), backoff_limit=5), 1, AttemptEnd(returncode))
    assert verdict.final is final
    assert attempts.another_attempt(plan(backoff_limit=5), 1, verdict) is not final


def test_attempts_are_the_backoff_limit_and_one() -> None:
    failed = Verdict(Reason.ERROR, "", 1)
    assert [attempts.another_attempt(plan(backoff_limit=2), number, failed) for number in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert not attempts.another_attempt(plan(), 1, failed)


def test_pauses_grow_and_are_bounded() -> None:
    assert [attempts.pause_seconds(number, 1.0) for number in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert attempts.pause_seconds(10**6, 1.0) == 60
    assert attempts.pause_seconds(3, 0.05) == pytest.approx(0.2)


@given(
    returncode=st.integers(-64, 255),
    termination=st.binary(max_size=5000),
    memory=st.none() | st.integers(1, 2**40),
    interruption=st.none() | st.sampled_from(Interruption),
    line=st.text(max_size=50),
)
def test_every_end_has_a_verdict(
    returncode: int, termination: bytes, memory: int | None, interruption: Interruption | None, line: str
) -> None:
    end = AttemptEnd(returncode, interruption, termination, last_line=line)
    verdict = attempts.judge(plan(memory_bytes=memory), 1, end)
    assert verdict.exit_code is not None
    assert 0 <= verdict.exit_code <= 255
    assert (verdict.reason is Reason.COMPLETED) == (returncode == 0 and interruption is None)
    assert verdict.message or verdict.reason is Reason.COMPLETED
    assert "\n" not in verdict.message or "\n" in line or termination
