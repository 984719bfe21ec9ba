"""How an end is put into words, the same ones whichever engine saw it. Pure: no processes, no pods, no clock."""

from __future__ import annotations

import json
import signal
from typing import Any

from invoker.result import Reason, State
from trigger.engine import RunEnd

MAX_MESSAGE_CHARACTERS = 2000
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a termination message; the local engine keeps as much."""


def read_note(termination: bytes) -> dict[str, Any]:
    """The runtime's note about an error (`type`, `message`, `traceback`, perhaps `reason`); empty for anything else."""
    try:
        note = json.loads(termination)
    except ValueError:
        return {}
    return note if isinstance(note, dict) and ("type" in note or "message" in note) else {}


def noted(note: dict[str, Any], which: str) -> tuple[Reason, str]:
    """The reason and the sentence of a note; `which` says which attempt left it."""
    raised = ": ".join(part for part in (str(note.get("type", "")), str(note.get("message", ""))) if part)
    reason = _reason_of(note)
    text = raised if reason is not Reason.ERROR else f"raised {raised}"
    return reason, f"{text[:MAX_MESSAGE_CHARACTERS]} (in {which})"


def noted_out_of_memory(note: dict[str, Any]) -> bool:
    """Whether the note is that of a process that could not have memory."""
    return bool(note.get("type") == "MemoryError" or note.get("reason") == Reason.OUT_OF_MEMORY)


def _reason_of(note: dict[str, Any]) -> Reason:
    try:
        reason = Reason(str(note.get("reason")))
    except ValueError:
        return Reason.ERROR
    return Reason.ERROR if reason is Reason.COMPLETED else reason


def which_attempt(number: int, allowed: int) -> str:
    """`attempt 2 of 3`."""
    return f"attempt {number} of {allowed}"


def memory_sentence(limit: int | None, which: str) -> str:
    return f"ran out of memory in {which}" if limit is None else f"used more than its {size_text(limit)} in {which}"


def timeout_sentence(limit_seconds: float | None, which: str) -> str:
    return f"ran longer than its {limit_seconds or 0:g} s in {which}"


def deadline_sentence(which: str) -> str:
    return f"given up in {which}: its deadline has passed"


def exit_sentence(exit_code: int, which: str, last_line: str = "") -> str:
    """What is known of an attempt that ended with an exit code; `last_line` is the last one of its stderr."""
    said = f": {last_line[:300]}" if last_line else ""
    return f"ended with exit code {exit_code} in {which}{said}"


def killed_sentence(signal_number: int, which: str) -> str:
    return f"was killed by {signal_name(signal_number)} in {which} (not by Invoker)"


def too_large_sentence(size: int, limit: int, where: str, which: str) -> str:
    if where != "stdout":
        return f"wrote more than {limit} bytes ({size} or more) to its {where} in {which}"
    return f"wrote {size} bytes to its {where} in {which}, at most {limit} are allowed"


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
