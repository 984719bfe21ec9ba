"""What a caller gets back: the states and reasons of a run, and the document about a finished one.

Pure. The two closed lists, `State` and `Reason`, are the whole vocabulary of results, API, command line and metrics;
`reason_info` gives each reason's class, HTTP status and exit code (documented in `docs/reasons.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from invoker import wire
from invoker.request import ClaimCheck, Content, Document


class State(StrEnum):
    """Where a run is: `queued → starting → running →` one of the finished ones."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def finished(self) -> bool:
        return self not in (State.QUEUED, State.STARTING, State.RUNNING)


class Reason(StrEnum):
    """Why a finished run is in its state. The list is closed: a new reason is a change of the contract."""

    COMPLETED = "completed"
    ERROR = "error"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    PENDING_TIMEOUT = "pending-timeout"
    IMAGE_PULL = "image-pull"
    CONFIG = "config"
    UNSCHEDULABLE = "unschedulable"
    REFUSED = "refused"
    INVALID_INPUT = "invalid-input"
    INVALID_OUTPUT = "invalid-output"
    OUTPUT_TOO_LARGE = "output-too-large"
    FUNCTION_REMOVED = "function-removed"
    EXPIRED_IN_QUEUE = "expired-in-queue"
    EVICTED = "evicted"
    NODE_LOST = "node-lost"
    DELETED = "deleted"
    CANCELLED = "cancelled"
    ENGINE = "engine"


ResultClass = Literal["success", "function", "caller", "platform"]


@dataclass(frozen=True, slots=True)
class ReasonInfo:
    """What a reason means to each door: whose fault, which HTTP status, which exit code, and a sentence."""

    result_class: ResultClass
    http_status: int
    exit_code: int
    meaning: str


_REASONS: dict[Reason, ReasonInfo] = {
    Reason.COMPLETED: ReasonInfo("success", 200, 0, "The function returned."),
    Reason.ERROR: ReasonInfo("function", 502, 3, "The function raised, or ended with an exit code other than 0."),
    Reason.OUT_OF_MEMORY: ReasonInfo("function", 502, 3, "The function used more than its memory limit."),
    Reason.TIMEOUT: ReasonInfo(
        "function", 504, 3, "An attempt ran past timeoutSeconds, or the run past 0.9 of the retention."
    ),
    Reason.PENDING_TIMEOUT: ReasonInfo("platform", 504, 3, "The run could not start within pendingTimeoutSeconds."),
    Reason.IMAGE_PULL: ReasonInfo("platform", 502, 3, "The function's image cannot be had."),
    Reason.CONFIG: ReasonInfo("platform", 502, 3, "Something the function refers to is missing or unusable."),
    Reason.UNSCHEDULABLE: ReasonInfo("platform", 503, 3, "No node can take the run."),
    Reason.REFUSED: ReasonInfo("platform", 502, 3, "The engine's side or a policy refused to start the run."),
    Reason.INVALID_INPUT: ReasonInfo("caller", 422, 6, "The input does not fit the function's schema or parameters."),
    Reason.INVALID_OUTPUT: ReasonInfo("function", 502, 3, "The output cannot be encoded or does not fit its schema."),
    Reason.OUTPUT_TOO_LARGE: ReasonInfo("function", 502, 3, "The output is larger than the limit."),
    Reason.FUNCTION_REMOVED: ReasonInfo("platform", 410, 3, "The function left the catalog before the run started."),
    Reason.EXPIRED_IN_QUEUE: ReasonInfo("platform", 504, 3, "The run had not started at 0.9 of the retention."),
    Reason.EVICTED: ReasonInfo("platform", 503, 3, "The run was evicted and could not be placed again."),
    Reason.NODE_LOST: ReasonInfo("platform", 503, 3, "The node the run was on is gone."),
    Reason.DELETED: ReasonInfo("platform", 502, 3, "Somebody deleted the run's Job or ended its process."),
    Reason.CANCELLED: ReasonInfo("caller", 409, 3, "The run was cancelled."),
    Reason.ENGINE: ReasonInfo("platform", 500, 3, "The engine lost the run or broke its promise."),
}


def reason_info(reason: Reason) -> ReasonInfo:
    """The row of the closed list for a reason; every reason has one."""
    return _REASONS[reason]


class AttemptError(Document):
    """What an attempt raised: type, message and the tail of its traceback."""

    type: str = ""
    message: str = ""
    traceback: str | None = None


class Attempt(Document):
    """One try inside a run, counted from 1: one pod or one process."""

    number: int
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    error: AttemptError | None = None


class Result(Document):
    """The document about a finished run: exactly one is stored per run, the first one wins.

    `class_` travels as `class`. `output` is the function's bytes, `log_tail` the last lines of stdout and stderr (or
    `log_claim` when they are above 16 KiB). `engine`, `job` and `spec_hash` are None for a run that never started.
    `dispatched_at` is when a controller asked the engine to start it, the last one that did; where another one goes on
    with a Job, the second in which that was made. None when nobody asked, or when who sealed the result did not know
    (news are lossy). Up to there the run was queued, from there on it was starting.
    """

    version: int = 1
    request_id: str
    run_id: str
    function: str
    topic: str
    state: State
    reason: Reason
    message: str = ""
    class_: ResultClass = Field(default="platform", alias="class")
    output: Content = Content()
    attempts: tuple[Attempt, ...] = ()
    queued_at: AwareDatetime | None = None
    dispatched_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime
    spec_hash: str | None = None
    catalog: str | None = None
    engine: str | None = None
    job: str | None = None
    root_request_id: str
    parent_run_id: str | None = None
    hops: int = 0
    log_tail: str | None = None
    log_claim: ClaimCheck | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    errors: tuple[dict[str, Any], ...] = ()

    @property
    def succeeded(self) -> bool:
        return self.state is State.SUCCEEDED

    def times(self) -> dict[str, str]:
        """Headers that tell when the run was queued, began and ended, as far as it is known: on the stored result and
        on replies."""
        instants = {
            wire.H_QUEUED_AT: self.queued_at,
            wire.H_STARTED_AT: self.started_at,
            wire.H_FINISHED_AT: self.finished_at,
        }
        return {name: instant.isoformat() for name, instant in instants.items() if instant is not None}

    def problem(self) -> dict[str, Any]:
        """A finished run without success as an RFC 9457 problem document."""
        info = reason_info(self.reason)
        document: dict[str, Any] = {
            "type": f"https://invoker.dev/problems/{self.reason}",
            "title": info.meaning,
            "status": info.http_status,
            "detail": self.message or info.meaning,
            "code": str(self.reason),
            "state": str(self.state),
            "class": info.result_class,
            "request_id": self.request_id,
            "run_id": self.run_id,
            "function": self.function,
            "attempts": len(self.attempts),
        }
        if self.errors:
            document["errors"] = list(self.errors)
        if self.attempts and self.attempts[-1].error is not None:
            document["error"] = self.attempts[-1].error.model_dump(mode="json")
        return document


class RunStatusDocument(Document):
    """The latest news of a run in flight (`invoker.status.<run>`): lossy, nothing is decided from it."""

    version: int = 1
    run_id: str
    request_id: str
    function: str
    topic: str
    state: State
    attempts: tuple[Attempt, ...] = ()
    percent: float | None = None
    text: str | None = None
    queued_at: AwareDatetime | None = None
    dispatched_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    at: AwareDatetime
    engine: str | None = None
    job: str | None = None
    spec_hash: str | None = None
    catalog: str | None = None
    root_request_id: str | None = None
    parent_run_id: str | None = None
    reason: Reason | None = None
