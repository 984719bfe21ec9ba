"""One run that the engine knows: its level, and what is under way for it. And those who watch all runs.

A run is changed by the driver only. It has no task of its own: most of its life it is this object and a line in the
spawner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from trigger.engine import AttemptStatus, Phase, RunEnd, RunStatus
from trigger.local_engine.attempts import Verdict
from trigger.local_engine.log import RunLog
from trigger.plan import RunPlan

if TYPE_CHECKING:
    from trigger.local_engine.live_attempt import LiveAttempt


class Run:
    """A run and its present level. `changed` is called with each new level; `program` is its command's file.

    At most one of these is under way: `live` (a process), `work` (preparation), `pause` (before another attempt).
    """

    __slots__ = (
        "_changed",
        "_now",
        "attempts",
        "code_name",
        "deadline",
        "dispatched_at",
        "end",
        "folder",
        "live",
        "log",
        "lost",
        "pause",
        "plan",
        "program",
        "released",
        "started",
        "stop_reason",
        "tries",
        "work",
    )

    def __init__(
        self,
        plan: RunPlan,
        program: str | None,
        folder: str,
        changed: Callable[[RunStatus], None],
        now: Callable[[], datetime],
    ) -> None:
        self.plan = plan
        self.program = program
        self.folder = folder
        self.dispatched_at = now()
        self.log: RunLog | None = None
        self.attempts: tuple[AttemptStatus, ...] = ()
        self.end: RunEnd | None = None
        self.started = False
        self.stop_reason: str | None = None
        self.released = False
        self.tries = 0
        self.lost = 0
        self.code_name: str | None = None
        self.live: LiveAttempt | None = None
        self.work: asyncio.Task[None] | None = None
        self.pause: asyncio.TimerHandle | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self._changed = changed
        self._now = now

    @property
    def status(self) -> RunStatus:
        phase = Phase.ENDED if self.end else Phase.RUNNING if self.started else Phase.PENDING
        return RunStatus(self.plan.run_id, phase, self.attempts, self.end)

    def open_log(self) -> RunLog:
        """The run's log, made when somebody needs it: most runs print nothing."""
        if self.log is None:
            self.log = RunLog(max(1, self.plan.limits.log_tail_bytes))
            if self.end is not None:
                self.log.close()
        return self.log

    def take_output(self, attempt: int, pieces: list[tuple[int, bytes]], dropped: int) -> None:
        self.open_log().add(attempt, pieces, dropped, self._now())

    def last_error_line(self, attempt: int) -> str:
        return self.log.last_line(attempt, "stderr") if self.log is not None else ""

    def begin_attempt(self) -> None:
        """An attempt's process has started. Not earlier: a run that waits for its environment is pending."""
        self.started = True
        self.attempts += (AttemptStatus(len(self.attempts) + 1, self._now()),)
        self._changed(self.status)

    def end_attempt(self, verdict: Verdict, termination: bytes) -> None:
        """The attempt's process has ended. Told together with what follows: the run's end or the pause."""
        last = self.attempts[-1]
        ended = AttemptStatus(
            last.number, last.started_at, self._now(), verdict.exit_code, verdict.reason, verdict.message, termination
        )
        self.attempts = (*self.attempts[:-1], ended)

    def drop_attempt(self, number: int) -> None:
        """The attempt was lost with the spawner and does not count."""
        self.attempts = self.attempts[: number - 1]
        self.lost += 1

    def next_folder(self, number: int) -> str:
        """The work folder of an attempt: a fresh one also when the attempt is begun again."""
        self.tries += 1
        return f"{self.folder}/{number}" if self.tries == number else f"{self.folder}/{number}.{self.tries}"

    def tell(self) -> None:
        """Tell the present level."""
        self._changed(self.status)

    def forget_plans(self) -> None:
        """Nothing that is under way shall go on."""
        for handle in (self.pause, self.deadline, self.work):
            if handle is not None:
                handle.cancel()
        self.pause = self.deadline = self.work = None

    def finish(self, end: RunEnd) -> None:
        """The run has ended: nothing of it lives."""
        tail = self.log.tail() if self.log is not None else b""
        self.end = RunEnd(end.state, end.reason, end.message, end.output, tail)
        self.live = None
        if self.log is not None:
            self.log.close()
        self._changed(self.status)

    def ask_to_stop(self, reason: str) -> bool:
        """Leave word that the run is to end; False when that was asked before or it has ended."""
        if self.end is not None or self.stop_reason is not None:
            return False
        self.stop_reason = reason
        return True
