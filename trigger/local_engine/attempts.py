"""What the end of an attempt means, whether there is another one and when, and how the run ends with it.

Pure: no processes, no clock.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from invoker.result import Reason, State
from invoker.runtime.exits import NO_RETRY as RUNTIME_NO_RETRY
from trigger.engine import RunEnd
from trigger.plan import Limits, OutputMode, RunPlan

TERMINATION_BYTES = 4096
MAX_MESSAGE_CHARACTERS = 2000
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
    which = f"attempt {number} of {attempts_allowed(plan.limits)}"
    if end.interruption is Interruption.STOP:
        return Verdict(Reason.CANCELLED, f"stopped in {which}", exit_code, final=True)
    if end.interruption is Interruption.TIMEOUT:
        limit = _seconds(plan.limits.timeout_seconds)
        return Verdict(Reason.TIMEOUT, f"ran longer than its {limit} in {which}", exit_code, final=True)
    if end.interruption is Interruption.DEADLINE:
        return Verdict(Reason.TIMEOUT, f"given up in {which}: its deadline has passed", exit_code, final=True)
    if end.returncode == 0:
        return _judge_output(plan, which, end)
    verdict = _judge_failure(plan, which, end, exit_code)
    useless = end.returncode in plan.no_retry_exit_codes
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
    text = f"wrote {size} bytes to its {where} in {which}, at most {limit} are allowed"
    if where != "stdout":
        text = f"wrote more than {limit} bytes ({size} or more) to its {where} in {which}"
    return Verdict(Reason.OUTPUT_TOO_LARGE, text, 0, final=True)


def _judge_failure(plan: RunPlan, which: str, end: AttemptEnd, exit_code: int) -> Verdict:
    note = read_note(end.termination)
    if _ran_out_of_memory(plan.limits.memory_bytes, note, end):
        return Verdict(Reason.OUT_OF_MEMORY, _memory_sentence(plan.limits.memory_bytes, which), exit_code)
    if note:
        raised = ": ".join(part for part in (str(note.get("type", "")), str(note.get("message", ""))) if part)
        reason = _reason_of(note)
        text = raised if reason is not Reason.ERROR else f"raised {raised}"
        return Verdict(reason, f"{text[:MAX_MESSAGE_CHARACTERS]} (in {which})", exit_code)
    if end.returncode < 0:
        text = f"was killed by {signal_name(-end.returncode)} in {which} (not by Invoker)"
        return Verdict(Reason.ERROR, text, exit_code)
    said = f": {end.last_line[:300]}" if end.last_line else ""
    return Verdict(Reason.ERROR, f"ended with exit code {exit_code} in {which}{said}", exit_code)


def read_note(termination: bytes) -> dict[str, Any]:
    """The runtime's note about an error (`type`, `message`, `traceback`, perhaps `reason`); empty for anything else."""
    try:
        note = json.loads(termination)
    except ValueError:
        return {}
    return note if isinstance(note, dict) and ("type" in note or "message" in note) else {}


def _reason_of(note: dict[str, Any]) -> Reason:
    try:
        reason = Reason(str(note.get("reason")))
    except ValueError:
        return Reason.ERROR
    return Reason.ERROR if reason is Reason.COMPLETED else reason


def _ran_out_of_memory(limit: int | None, note: dict[str, Any], end: AttemptEnd) -> bool:
    """Under a set limit a process that cannot have memory raises, aborts or crashes, and all of these count."""
    if note.get("type") == "MemoryError" or note.get("reason") == Reason.OUT_OF_MEMORY:
        return True
    if limit is None:
        return False
    if -end.returncode in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return True
    return end.last_line.startswith("MemoryError")


def _memory_sentence(limit: int | None, which: str) -> str:
    return f"ran out of memory in {which}" if limit is None else f"used more than its {size_text(limit)} in {which}"


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
    return RunEnd(state_of(verdict.reason), verdict.reason, verdict.message, verdict.output)


def state_of(reason: Reason) -> State:
    """The state that goes with a reason."""
    match reason:
        case Reason.COMPLETED:
            return State.SUCCEEDED
        case Reason.TIMEOUT:
            return State.TIMED_OUT
        case Reason.CANCELLED:
            return State.CANCELLED
        case _:
            return State.FAILED


def stopped(text: str, number: int) -> RunEnd:
    """The end of a run that was told to stop: `text` is a reason of the closed list, or any words (then cancelled)."""
    when = f"in attempt {number}" if number else "before its first attempt"
    try:
        reason = Reason(text)
    except ValueError:
        return RunEnd(State.CANCELLED, Reason.CANCELLED, f"stopped {when}: {text}" if text else f"stopped {when}")
    if reason is Reason.COMPLETED:
        reason = Reason.CANCELLED
    if reason is Reason.TIMEOUT:
        return RunEnd(State.TIMED_OUT, reason, f"given up {when}: its deadline has passed")
    if reason is Reason.CANCELLED:
        return RunEnd(State.CANCELLED, reason, f"cancelled {when}")
    return RunEnd(state_of(reason), reason, f"stopped {when} ({reason})")


def signal_name(number: int) -> str:
    """`signal 9 (SIGKILL)`; the number alone where it has no name."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def size_text(size: int) -> str:
    """A size as people write it: `256 MiB`, `1.5 GiB`, `1000 bytes`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"


def _seconds(seconds: float | None) -> str:
    return f"{seconds or 0:g} s"
