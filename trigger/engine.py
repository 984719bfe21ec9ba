"""The seam between the controller and what executes runs. Two sides: `local_engine`, `kubernetes_engine`.

An engine reports levels, never events: "this run is now in attempt 2", "this run has ended, so and so". A status that
is missed or repeated therefore never matters. What an engine must do is the suite in `tests/conformance/`; a change of
this file without a change there is incomplete.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from invoker.result import Reason, State
from trigger.plan import OutputMode, RunPlan

START_OK, START_REFUSED, START_UNAVAILABLE = START_ANSWERS = ("start ok", "start refused", "start unavailable")
"""How an engine without requests of its own answers a start, in the words of the metrics."""


class Phase(StrEnum):
    """Where the engine's side of a run is. `ENDED` is final: nothing of the run lives any more."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """One try as the engine saw it. `termination` is what the attempt left in its termination file (≤ 4 KiB):
    the runtime's JSON note about an error, or the output of `output.from: termination`."""

    number: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    message: str = ""
    termination: bytes = b""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How the engine's side of a run ended. `output` is what `stdout` or `termination` gave, None otherwise;
    `log_tail` the last bytes of stdout and stderr together. `message` is a sentence for the function's owner."""

    state: State
    reason: Reason
    message: str = ""
    output: bytes | None = None
    log_tail: bytes = b""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The present level of one run. `end` is set exactly when `phase` is ENDED and the engine knows how it went;
    ENDED without `end` means that the engine knows nothing of the run."""

    run_id: str
    phase: Phase
    attempts: tuple[AttemptStatus, ...] = ()
    end: RunEnd | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True)
class AdoptedRun:
    """What a run that goes on was started with, whatever its function is by now. `runtime` None: a plain command.
    `dispatched_at` is when it was; a cluster tells that in whole seconds, rounded down."""

    spec_hash: str
    catalog: str
    output: OutputMode
    runtime: str | None
    dispatched_at: datetime


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's output: which attempt, which stream (`stdout`, `stderr`), the text without its line end."""

    attempt: int
    stream: str
    text: str
    at: datetime


class Engine(Protocol):
    """What executes runs. All methods may be called again with the same arguments, at any time, without harm."""

    name: str

    async def settle(self) -> None:
        """When this returns the engine knows the runs that were there before it, or has met trouble, or it has taken
        too long. Asked before runs are taken from the queue: they wait better there than one by one in `adopt`."""
        ...

    async def start(self, plan: RunPlan) -> None:
        """When this returns the run is known to the engine and its end will be reported, once at least.

        Idempotent per run id: a run that is already known (alive or ended, not released) is left alone. Raises
        `StartRefusedError` (permanent, in words) or `EngineUnavailableError` (transient, try again; with the field
        `retry_seconds` not sooner than that).
        """
        ...

    async def adopt(self, run_id: str) -> AdoptedRun | None:
        """Look after a run that was started before, here or by a controller that has died, and was not released: its
        end will be reported, as after `start`. None when there is no such run. Raises `EngineUnavailableError`."""
        ...

    def place_of(self, run_id: str) -> str | None:
        """Where people look for the run in the engine's own world (`namespace/name` of its Job), known before it is
        started; None where there is no such place."""
        ...

    def watch(self) -> AsyncIterator[RunStatus]:
        """The present status of every known run, then every change; may repeat, never skips a run's last status,
        ends only when cancelled."""
        ...

    async def stop(self, run_id: str, reason: str) -> None:
        """Ask a run to end, without further attempts: its processes get SIGTERM, then SIGKILL after their grace.

        Returns without waiting for the end. `watch` reports ENDED for the run afterwards in any case, also for a run
        that had ended and for one that the engine does not know. A run whose start is under way is not begun any more
        where that can be helped, and ENDED is reported after the start has returned or raised.
        """
        ...

    async def release(self, run_id: str) -> None:
        """The run's result is sealed and its message acked: the engine may forget it and free what it held
        (work folder after `ttlSecondsAfterFinished`, finalizer, volume claim). Unknown runs are no error."""
        ...

    def logs(self, run_id: str, follow: bool) -> AsyncIterator[LogLine]:
        """The lines the run has written so far, oldest first (bounded: old lines may be gone); with `follow` also the
        coming ones until the run has ended. Unknown runs give nothing."""
        ...
