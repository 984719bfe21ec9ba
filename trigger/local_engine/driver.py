"""What one run goes through: prepare, start, end, judge, pause, again; and how it is stopped half-way.

Every step is a call that returns at once and leaves the next step to an event: the preparation's task, the spawner's
news, a timer. The decisions are in `attempts.py`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import structlog

from invoker.errors import EngineUnavailableError, StartRefusedError
from invoker.result import Reason, State
from trigger import endings
from trigger.engine import RunEnd
from trigger.local_engine import attempts, workfolder
from trigger.local_engine import order as orders
from trigger.local_engine.attempts import AttemptEnd, Interruption
from trigger.local_engine.live_attempt import LiveAttempt
from trigger.local_engine.order import Prepared
from trigger.local_engine.preparation import Preparation, PreparationError
from trigger.local_engine.processes import Processes, ProcessRefusedError
from trigger.local_engine.protocol import Ended
from trigger.local_engine.removal import Removals
from trigger.local_engine.run import Run
from trigger.plan import RunPlan

LOST_LIMIT = 3
"""How often an attempt is begun again because the spawner was killed, before the run counts as lost."""
_NOT_NOW = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})

_log = structlog.get_logger(component="local-engine")


class Driver:
    """Takes runs from start to end. Everything here is called in the event loop."""

    def __init__(
        self,
        processes: Processes,
        preparation: Preparation,
        removals: Removals,
        first_pause_seconds: float,
    ) -> None:
        self._processes = processes
        self._preparation = preparation
        self._removals = removals
        self._first_pause_seconds = first_pause_seconds
        self._reopening = asyncio.Lock()
        self._closed = False

    def begin(self, run: Run, seconds_left: float | None) -> None:
        """Set the run going. `seconds_left` is the time to its deadline."""
        if seconds_left is not None:
            loop = asyncio.get_running_loop()
            run.deadline = loop.call_later(max(0.0, seconds_left), self._reach_deadline, run)
        self._next_attempt(run)

    def stop(self, run: Run, reason: str) -> None:
        """Have the run end: its process gets SIGTERM and after its grace SIGKILL, and no attempt follows."""
        self._stop(run, reason, Interruption.STOP)

    def close(self) -> None:
        """Start nothing more; what happens to processes from now on is nobody's concern."""
        self._closed = True

    async def reopen(self) -> None:
        """Start a new spawner when the last one is gone. Raises `EngineUnavailableError`."""
        async with self._reopening:
            if not self._processes.is_open:
                await self._processes.open()

    def _reach_deadline(self, run: Run) -> None:
        self._stop(run, str(Reason.TIMEOUT), Interruption.DEADLINE)

    def _stop(self, run: Run, reason: str, why: Interruption) -> None:
        if not run.ask_to_stop(reason):
            return
        if run.live is not None:
            run.live.interrupt(why)  # its end is reported when nothing of it lives
        else:
            self._finish(run, endings.stopped(reason, len(run.attempts)))

    # towards an attempt

    def _next_attempt(self, run: Run) -> None:
        run.pause = None
        number = len(run.attempts) + 1
        folder = run.next_folder(number)
        prepared = self._preparation.at_once(run)
        if prepared is not None:
            self._launch(run, number, folder, prepared)
        else:
            run.work = asyncio.get_running_loop().create_task(self._prepare(run, number, folder))

    async def _prepare(self, run: Run, number: int, folder: str) -> None:
        """Preparation to its end, good or bad. A stop cancels it."""
        limit = run.plan.limits.pending_timeout_seconds
        end = RunEnd(State.FAILED, Reason.ENGINE, "the local engine failed; its log says how")
        try:
            async with asyncio.timeout(limit):
                prepared = await self._preparation.prepare(run, Path(folder))
            run.work = None
            self._launch(run, number, folder, prepared)
            return
        except TimeoutError:
            end = RunEnd(State.FAILED, Reason.PENDING_TIMEOUT, f"could not start within its {limit:g} s")
        except PreparationError as error:
            end = error.end
        except Exception:  # a bug of ours must end this run, not leave it unfinished
            _log.exception("preparing a run failed", **run.plan.ids())
        run.work = None
        self._finish(run, end)

    def _launch(self, run: Run, number: int, folder: str, prepared: Prepared) -> None:
        try:
            order = orders.make_order(
                run.plan, number, prepared, program=run.program, folder=folder, uid=_uid(run.plan, number)
            )
        except StartRefusedError as error:
            self._finish(run, RunEnd(State.FAILED, Reason.CONFIG, error.message))
            return
        attempt = run.live = LiveAttempt(run, number, self._processes, self)
        try:
            attempt.launch(order)
        except EngineUnavailableError:
            self.attempt_lost(attempt)

    # what became of it (AttemptOwner)

    def attempt_started(self, attempt: LiveAttempt) -> None:
        attempt.run.begin_attempt()

    def attempt_ended(self, attempt: LiveAttempt, end: Ended) -> None:
        output_bytes = attempt.run.plan.limits.output_bytes
        attempt.run.live = None
        if end.spooled and end.exit_code == 0 and end.output_size <= output_bytes:
            attempt.run.work = asyncio.get_running_loop().create_task(self._read_spool(attempt, end))
        else:
            self._judge(attempt, end)

    async def _read_spool(self, attempt: LiveAttempt, end: Ended) -> None:
        try:
            output = await asyncio.to_thread(workfolder.read_spool, Path(attempt.spool))
            end = end._replace(output=output)
        except OSError as error:
            end = end._replace(trouble=f"its output cannot be read back: {workfolder.words(error)}")
        attempt.run.work = None
        self._judge(attempt, end)

    def _judge(self, attempt: LiveAttempt, end: Ended) -> None:
        run, number = attempt.run, attempt.number
        verdict = attempts.judge(
            run.plan,
            number,
            AttemptEnd(
                returncode=end.exit_code,
                interruption=attempt.interruption,
                termination=end.termination,
                output=end.output,
                output_size=end.output_size,
                last_line=run.last_error_line(number) if end.exit_code else "",
                trouble=end.trouble,
            ),
        )
        run.end_attempt(verdict, end.termination[: endings.TERMINATION_BYTES])
        if attempt.interruption is Interruption.STOP:
            self._finish(run, endings.stopped(run.stop_reason or "", number))
        elif attempts.another_attempt(run.plan, number, verdict):
            run.tell()
            seconds = attempts.pause_seconds(number, self._first_pause_seconds)
            run.pause = asyncio.get_running_loop().call_later(seconds, self._next_attempt, run)
        else:
            self._finish(run, attempts.run_end(verdict))

    def attempt_refused(self, attempt: LiveAttempt, error: ProcessRefusedError) -> None:
        self._finish(attempt.run, refusal(error))

    def attempt_lost(self, attempt: LiveAttempt) -> None:
        """The spawner was killed. That is none of the function's doing: the attempt is begun again, uncounted."""
        run = attempt.run
        run.live = None
        if self._closed:
            return
        run.drop_attempt(attempt.number)
        if run.stop_reason is not None:
            self._finish(run, endings.stopped(run.stop_reason, attempt.number))
        elif run.lost >= LOST_LIMIT:
            text = f"its process was lost {run.lost} times: something ends the local engine's spawner"
            self._finish(run, RunEnd(State.LOST, Reason.ENGINE, text))
        else:
            run.work = asyncio.get_running_loop().create_task(self._begin_again(run))

    async def _begin_again(self, run: Run) -> None:
        try:
            await self.reopen()
        except EngineUnavailableError as error:
            run.work = None
            self._finish(run, RunEnd(State.LOST, Reason.ENGINE, error.message))
            return
        run.work = None
        self._next_attempt(run)

    def attempt_broken(self, attempt: LiveAttempt) -> None:
        """Hearing of the attempt raised something: a bug of ours, which must not leave the run unfinished."""
        if attempt.run.end is None:
            text = "the local engine failed; its log says how"
            self._finish(attempt.run, RunEnd(State.FAILED, Reason.ENGINE, text))

    def _finish(self, run: Run, end: RunEnd) -> None:
        run.forget_plans()
        run.finish(end)
        self._preparation.done_with(run.plan.function, run.code_name)
        self._removals.add(run.folder, run.plan.limits.ttl_seconds_after_finished)


def refusal(error: ProcessRefusedError) -> RunEnd:
    """The end of a run whose process could not be started."""
    named = errno.errorcode.get(error.number, str(error.number))
    if error.step == "folder":
        text = f"its work folder {error.subject} cannot be made: {error.text} ({named})"
        return RunEnd(State.FAILED, workfolder.reason_of(error.number), text)
    hint = "; is the interpreter named in its first line there?" if error.number == errno.ENOENT else ""
    text = f"{error.subject} cannot be started: {error.text} ({named}){hint}"
    return RunEnd(State.FAILED, Reason.ENGINE if error.number in _NOT_NOW else Reason.CONFIG, text)


def _uid(plan: RunPlan, number: int) -> str:
    """What the run API knows the attempt by. Random in part: a run begun anew has attempts of the same numbers."""
    return f"{plan.run_id}-{number}-{os.urandom(4).hex()}"
