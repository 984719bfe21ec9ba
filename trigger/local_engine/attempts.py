"""What the end of an attempt means, whether there is another one and when, and how the run ends with it.

Pure: no processes, no clock.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from invoker.result import Reason
from invoker.runtime.exits import NO_RETRY as RUNTIME_NO_RETRY
from trigger import endings
from trigger.endings import TERMINATION_BYTES
from trigger.engine import RunEnd
from trigger.plan import Limits, OutputMode, RunPlan

PAUSE_LIMIT_SECONDS = 60.0


class Interruption(StrEnum):
    """Who ended an attempt before it ended itself."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt's process ended. `returncode` is negative for a signal, `output_size` counts all of stdout when
    that is the output, `last_line` is the last line written to stderr."""

    returncode: int
    interruption: Interruption | None = None
    termination: bytes = b""
    output: bytes = b""
    output_size: int = 0
    last_line: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt's end means. `final` says that another attempt would be of no use or is not wanted."""

    reason: Reason
    message: str
    exit_code: int | None
    final: bool = False
    output: bytes | None = None


_DONE = Verdict(Reason.COMPLETED, "", 0, final=True)


def judge(plan: RunPlan, number: int, end: AttemptEnd) -> Verdict:
    """The meaning of one attempt's end. The first rule that fits decides."""
    if end.returncode == 0 and end.interruption is None and plan.output is OutputMode.API:
        return _DONE
    exit_code = end.returncode if end.returncode >= 0 else 128 - end.returncode
    which = endings.which_attempt(number, attempts_allowed(plan.limits))
    if end.interruption is Interruption.STOP:
        return Verdict(Reason.CANCELLED, f"stopped in {which}", exit_code, final=True)
    if end.interruption is Interruption.TIMEOUT:
        sentence = endings.timeout_sentence(plan.limits.timeout_seconds, which)
        return Verdict(Reason.TIMEOUT, sentence, exit_code, final=True)
    if end.interruption is Interruption.DEADLINE:
        return Verdict(Reason.TIMEOUT, endings.deadline_sentence(which), exit_code, final=True)
    if end.returncode == 0:
        return _judge_output(plan, which, end)
    useless = end.returncode in plan.no_retry_exit_codes
    if useless and number < attempts_allowed(plan.limits):
        which = f"{which}, the last by noRetryExitCodes"
    verdict = _judge_failure(plan, which, end, exit_code)
    if plan.code.runtime is not None:
        useless = useless or end.returncode == RUNTIME_NO_RETRY
    return replace(verdict, final=useless)


def _judge_output(plan: RunPlan, which: str, end: AttemptEnd) -> Verdict:
    if end.trouble:
        return Verdict(Reason.ENGINE, f"{end.trouble}, in {which}", 0, final=True)
    if plan.output is OutputMode.STDOUT:
        if end.output_size > plan.limits.output_bytes:
            return _too_large(end.output_size, plan.limits.output_bytes, "stdout", which)
        return Verdict(Reason.COMPLETED, "", 0, final=True, output=end.output)
    if plan.output is OutputMode.TERMINATION:
        if len(end.termination) > TERMINATION_BYTES:
            return _too_large(len(end.termination), TERMINATION_BYTES, "termination file", which)
        return Verdict(Reason.COMPLETED, "", 0, final=True, output=end.termination)
    return _DONE


def _too_large(size: int, limit: int, where: str, which: str) -> Verdict:
    return Verdict(Reason.OUTPUT_TOO_LARGE, endings.too_large_sentence(size, limit, where, which), 0, final=True)


def _judge_failure(plan: RunPlan, which: str, end: AttemptEnd, exit_code: int) -> Verdict:
    note = endings.read_note(end.termination)
    if _ran_out_of_memory(plan.limits.memory_bytes, note, end):
        return Verdict(Reason.OUT_OF_MEMORY, endings.memory_sentence(plan.limits.memory_bytes, which), exit_code)
    if note:
        return Verdict(*endings.noted(note, which), exit_code)
    if end.returncode < 0:
        return Verdict(Reason.ERROR, endings.killed_sentence(-end.returncode, which), exit_code)
    return Verdict(Reason.ERROR, endings.exit_sentence(exit_code, which, end.last_line), exit_code)


def _ran_out_of_memory(limit: int | None, note: dict[str, Any], end: AttemptEnd) -> bool:
    """Under a set limit a process that cannot have memory raises, aborts or crashes, and all of these count."""
    if endings.noted_out_of_memory(note):
        return True
    if limit is None:
        return False
    if -end.returncode in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return True
    return end.last_line.startswith("MemoryError")


def attempts_allowed(limits: Limits) -> int:
    return limits.backoff_limit + 1


def another_attempt(plan: RunPlan, number: int, verdict: Verdict) -> bool:
    """Whether attempt `number` is followed by another one."""
    return not verdict.final and number < attempts_allowed(plan.limits)


def pause_seconds(number: int, first: float) -> float:
    """How long to wait after attempt `number`: `first` seconds, then twice as long each time, at most 60 s."""
    return float(min(PAUSE_LIMIT_SECONDS, first * 2 ** min(number - 1, 32)))


def run_end(verdict: Verdict) -> RunEnd:
    """The end of the run whose last attempt had this verdict; its log is added by who has it."""
    return RunEnd(endings.state_of(verdict.reason), verdict.reason, verdict.message, verdict.output)
