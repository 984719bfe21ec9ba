"""How a run ended, as the document that everybody reads. Pure: the clock is an argument.

Three sources of an ending: what the engine saw (`from_end`), what the controller decides itself (`decided`), and what
the run API stored (not here: it is sealed already). The first one stored wins, so none of these asks for the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from invoker.request import ClaimCheck, Content, RequestRecord, RunTicket
from invoker.result import Attempt, AttemptError, Reason, Result, State, reason_info
from trigger.engine import AttemptStatus, Phase, RunEnd, RunStatus
from trigger.plan import OutputMode

_STATES = {
    Reason.COMPLETED: State.SUCCEEDED,
    Reason.TIMEOUT: State.TIMED_OUT,
    Reason.PENDING_TIMEOUT: State.TIMED_OUT,
    Reason.CANCELLED: State.CANCELLED,
    Reason.NODE_LOST: State.LOST,
    Reason.DELETED: State.LOST,
    Reason.ENGINE: State.LOST,
}
_NOTED_REASONS = {Reason.INVALID_INPUT, Reason.INVALID_OUTPUT, Reason.OUTPUT_TOO_LARGE}
"""Reasons that only the runtime inside the run can know; it writes them into its termination note."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decided ending, before it is a document: reason, a sentence, and field errors where there are some."""

    reason: Reason
    message: str = ""
    errors: tuple[Mapping[str, Any], ...] = ()
    state: State | None = None
    content_type: str | None = None

    @property
    def final_state(self) -> State:
        return self.state or _STATES.get(self.reason, State.FAILED)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the controller knows of a run it holds, for the result: None where the run never got so far."""

    spec_hash: str | None = None
    catalog: str | None = None
    engine: str | None = None
    output: OutputMode = OutputMode.API
    runtime: str | None = None
    dispatched_at: datetime | None = None


def judge(status: RunStatus, facts: RunFacts) -> tuple[Verdict, bytes | None]:
    """The verdict on a run whose engine side has ended and which has no result yet, and its output bytes if any.

    Ended well without an answer is an error for a runtime, whose answer is part of its contract, and an empty output
    for a command that knows nothing of Invoker.
    """
    end = status.end
    if end is None:
        return Verdict(Reason.ENGINE, "the engine knows nothing of this run any more"), None
    if end.state is not State.SUCCEEDED:
        return _failure(end, status), None
    if facts.output is not OutputMode.API:
        return Verdict(Reason.COMPLETED), end.output or b""
    if facts.runtime is not None:
        return Verdict(Reason.ERROR, "the function ended without handing in an output"), None
    return Verdict(Reason.COMPLETED), b""


def result_of(
    ticket: RunTicket,
    record: RequestRecord | None,
    verdict: Verdict,
    *,
    facts: RunFacts,
    status: RunStatus | None,
    now: datetime,
    output: Content | None = None,
    log_tail: str | None = None,
    log_claim: ClaimCheck | None = None,
) -> Result:
    """The result document for a verdict. Without a record (expired) the request's own facts are left empty."""
    attempts = tuple(attempt_of(attempt) for attempt in status.attempts) if status else ()
    started = next((attempt.started_at for attempt in attempts if attempt.started_at), None)
    return Result(
        request_id=ticket.request_id,
        run_id=ticket.run_id,
        function=ticket.function,
        topic=record.topic if record else "",
        state=verdict.final_state,
        reason=verdict.reason,
        message=verdict.message or reason_info(verdict.reason).meaning,
        class_=reason_info(verdict.reason).result_class,
        output=output or Content(),
        attempts=attempts,
        queued_at=record.received_at if record else None,
        dispatched_at=facts.dispatched_at,
        started_at=started,
        finished_at=now,
        spec_hash=facts.spec_hash,
        catalog=facts.catalog,
        engine=facts.engine,
        job=status.job if status else None,
        root_request_id=record.root_request_id if record else ticket.request_id,
        parent_run_id=record.parent_run_id if record else None,
        hops=record.hops if record else 0,
        log_tail=log_tail,
        log_claim=log_claim,
        errors=tuple(dict(error) for error in verdict.errors),
    )


def attempt_of(status: AttemptStatus) -> Attempt:
    """One attempt for the result, with what its runtime noted about its error."""
    note = _note(status.termination)
    error = None
    if note is not None:
        traceback = note.get("traceback")
        error = AttemptError(
            type=str(note.get("type", "")),
            message=str(note.get("message", "")),
            traceback=None if traceback is None else str(traceback),
        )
    return Attempt(
        number=status.number,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        error=error,
    )


def known_attempts(status: RunStatus | None) -> tuple[Attempt, ...]:
    """The attempts so far, for a status document."""
    return tuple(attempt_of(attempt) for attempt in status.attempts) if status else ()


def ended_unknown(run_id: str) -> RunStatus:
    """The status of a run that the engine never had."""
    return RunStatus(run_id=run_id, phase=Phase.ENDED)


def _failure(end: RunEnd, status: RunStatus) -> Verdict:
    verdict = Verdict(end.reason, end.message, state=end.state)
    note = _note(status.attempts[-1].termination) if status.attempts else None
    if note is None or end.reason not in (Reason.ERROR, *_NOTED_REASONS):
        return verdict
    if note.get("type"):
        words = f"{note.get('type')}: {note.get('message', '')}".rstrip(": ")
        verdict = replace(verdict, message=f"{words} (attempt {len(status.attempts)})")
    noted = note.get("reason")
    if isinstance(noted, str) and noted in {str(reason) for reason in _NOTED_REASONS}:
        errors = note.get("errors")
        listed = tuple(error for error in errors if isinstance(error, dict)) if isinstance(errors, list) else ()
        return Verdict(Reason(noted), str(note.get("message", "")), listed)
    return verdict


def _note(termination: bytes) -> dict[str, Any] | None:
    """The runtime's JSON note in a termination message; None for anything else, since any program may write there.

    What cannot be stored as JSON again is none either: a run must not stay without a result for what it wrote.
    """
    if not termination.startswith(b"{"):
        return None
    try:
        document = json.loads(termination)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "type" in document else None
