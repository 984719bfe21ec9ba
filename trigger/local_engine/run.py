"""One run that the engine knows: its attempts, its end, who wants it stopped. And those who watch all runs.

One coroutine (`LocalEngine._drive`) changes a run; `stop` only leaves word that it is to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from trigger.engine import AttemptStatus, Phase, RunEnd, RunStatus
from trigger.local_engine.attempts import Interruption, Verdict
from trigger.local_engine.log import RunLog
from trigger.local_engine.processes import Process
from trigger.plan import RunPlan

MAX_UNREAD = 100_000


class Run:
    """A run and its present level. `changed` is called with each new level."""

    __slots__ = (
        "_changed",
        "attempts",
        "end",
        "folder",
        "interruption",
        "log",
        "plan",
        "process",
        "released",
        "started",
        "stop_asked",
        "stop_reason",
        "timers",
        "tries",
    )

    def __init__(self, plan: RunPlan, folder: str, changed: Callable[[RunStatus], None]) -> None:
        self.plan = plan
        self.folder = folder
        self.log = RunLog(max(1, plan.limits.log_tail_bytes))
        self.attempts: list[AttemptStatus] = []
        self.end: RunEnd | None = None
        self.started = False
        self.process: Process | None = None
        self.interruption: Interruption | None = None
        self.stop_reason: str | None = None
        self.stop_asked: asyncio.Event | None = None
        self.released = False
        self.timers: list[asyncio.TimerHandle] = []
        self.tries = 0
        self._changed = changed

    @property
    def status(self) -> RunStatus:
        phase = Phase.ENDED if self.end else Phase.RUNNING if self.started else Phase.PENDING
        return RunStatus(self.plan.run_id, phase, tuple(self.attempts), self.end)

    def begin_attempt(self, at: datetime) -> None:
        """An attempt's process has started. Not earlier: a run that waits for its environment is pending."""
        self.started = True
        self.attempts.append(AttemptStatus(len(self.attempts) + 1, started_at=at))
        self._changed(self.status)

    def end_attempt(self, verdict: Verdict, termination: bytes, at: datetime) -> None:
        """The attempt's process has ended. Told together with what follows: the run's end or the pause."""
        self.attempts[-1] = replace(
            self.attempts[-1],
            finished_at=at,
            exit_code=verdict.exit_code,
            reason=verdict.reason,
            message=verdict.message,
            termination=termination,
        )

    def drop_attempt(self, number: int) -> None:
        """The attempt was lost with the spawner and does not count."""
        del self.attempts[number - 1 :]
        self.interruption = None

    def next_folder(self, number: int) -> str:
        """The work folder of an attempt: a fresh one also when the attempt is begun again."""
        self.tries += 1
        return f"{self.folder}/{number}" if self.tries == number else f"{self.folder}/{number}.{self.tries}"

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def tell(self) -> None:
        """Tell the present level."""
        self._changed(self.status)

    def finish(self, end: RunEnd) -> None:
        """The run has ended: nothing of it lives."""
        self.end = end
        self.process = None
        self.log.close()
        self._changed(self.status)

    def ask_to_stop(self, reason: str) -> bool:
        """Leave word that the run is to end; False when that was asked before or it has ended."""
        if self.end is not None or self.stop_reason is not None:
            return False
        self.stop_reason = reason
        if self.stop_asked is not None:
            self.stop_asked.set()
        return True

    def stopping(self) -> asyncio.Event:
        """Set when the run is to stop. Made on demand: most runs are never waited on for this."""
        if self.stop_asked is None:
            self.stop_asked = asyncio.Event()
            if self.stop_reason is not None:
                self.stop_asked.set()
        return self.stop_asked


class Watcher:
    """The newest level of each run that changed since one reader last looked; older levels are overwritten."""

    def __init__(self, present: list[RunStatus]) -> None:
        self._unread = {status.run_id: status for status in present}
        self._news = asyncio.Event()

    def put(self, status: RunStatus) -> None:
        self._unread.pop(status.run_id, None)  # so that the order is that of the last changes
        self._unread[status.run_id] = status
        self._news.set()

    def forget(self, run_id: str) -> None:
        """A run was released. Its last level is kept for a reader that is behind, unless that is absurdly far."""
        if len(self._unread) > MAX_UNREAD:
            self._unread.pop(run_id, None)

    async def take(self) -> list[RunStatus]:
        """What changed, oldest change first; waits until something did."""
        while not self._unread:
            self._news.clear()
            await self._news.wait()
        statuses = list(self._unread.values())
        self._unread.clear()
        return statuses
