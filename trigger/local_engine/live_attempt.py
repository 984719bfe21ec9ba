"""One started attempt: hears of its process, counts its time, has it ended."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol

from trigger.local_engine.attempts import Interruption
from trigger.local_engine.processes import Processes, ProcessRefusedError
from trigger.local_engine.protocol import Ended, Order
from trigger.local_engine.run import Run


class AttemptOwner(Protocol):
    """Who decides what follows. Exactly one of the last four is called, once, after `attempt_started` or instead."""

    def attempt_started(self, attempt: LiveAttempt) -> None: ...

    def attempt_ended(self, attempt: LiveAttempt, end: Ended) -> None: ...

    def attempt_refused(self, attempt: LiveAttempt, error: ProcessRefusedError) -> None: ...

    def attempt_lost(self, attempt: LiveAttempt) -> None: ...

    def attempt_broken(self, attempt: LiveAttempt) -> None: ...


class LiveAttempt:
    """An attempt from its launch to its end. `interruption` says who wanted it ended, if anybody did: the first one."""

    __slots__ = ("_key", "_owner", "_processes", "_timers", "interruption", "number", "run", "spool")

    def __init__(self, run: Run, number: int, processes: Processes, owner: AttemptOwner) -> None:
        self.run = run
        self.number = number
        self.spool = ""
        self.interruption: Interruption | None = None
        self._processes = processes
        self._owner = owner
        self._timers: tuple[asyncio.TimerHandle, ...] = ()
        self._key = 0

    def launch(self, order: Order) -> None:
        """Ask for the process. Raises `EngineUnavailableError` when there is no spawner.

        The order is not kept: it is the largest part of a run, and thousands may be in flight.
        """
        self.spool = order.spool
        self._key = self._processes.launch(order, self)

    def interrupt(self, why: Interruption) -> None:
        """SIGTERM to the process group now, SIGKILL after the grace; nothing more when that is under way."""
        if self.interruption is not None:
            return
        self.interruption = why
        self._processes.signal(self._key, signal.SIGTERM)
        grace = max(0.0, self.run.plan.limits.grace_seconds)
        loop = asyncio.get_running_loop()
        self._timers += (loop.call_later(grace, self._processes.signal, self._key, signal.SIGKILL),)

    def forget_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = ()

    # what the spawner says

    def started(self) -> None:
        seconds = self.run.plan.limits.timeout_seconds
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self.interrupt, Interruption.TIMEOUT)
            self._timers += (timer,)
        self._owner.attempt_started(self)

    def printed(self, pieces: list[tuple[int, bytes]], dropped: int) -> None:
        self.run.take_output(self.number, pieces, dropped)

    def ended(self, end: Ended) -> None:
        self.forget_timers()
        self._owner.attempt_ended(self, end)

    def refused(self, error: ProcessRefusedError) -> None:
        self.forget_timers()
        self._owner.attempt_refused(self, error)

    def lost(self) -> None:
        self.forget_timers()
        self._owner.attempt_lost(self)

    def broken(self) -> None:
        self._owner.attempt_broken(self)
