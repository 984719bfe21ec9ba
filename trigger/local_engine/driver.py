"""What one run goes through: prepare, start, wait, judge, pause, again; and how it is stopped half-way.

The decisions are in `attempts.py`; this file carries them out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from invoker.errors import (
    BackPressureError,
    EngineUnavailableError,
    InvokerError,
    RunFinishedError,
    ServerUnreachableError,
    StartRefusedError,
)
from invoker.result import Reason, State
from trigger.engine import RunEnd
from trigger.local_engine import attempts, workfolder
from trigger.local_engine import order as orders
from trigger.local_engine.attempts import AttemptEnd, Interruption, Verdict
from trigger.local_engine.order import Interpreter, Places
from trigger.local_engine.processes import Processes, ProcessRefusedError, SpawnerGoneError
from trigger.local_engine.protocol import Ended, Order
from trigger.local_engine.removal import Removals
from trigger.local_engine.requirements import Environments, InstallError
from trigger.local_engine.run import Run
from trigger.plan import InputMode, RunPlan

RUNTIME_PROGRAM = Path(__file__).resolve().parents[2] / "invoker" / "runtime" / "python.py"
LOST_LIMIT = 3
"""How often an attempt is begun again because the spawner was killed, before the run counts as lost."""
TRANSIENT_PAUSE_SECONDS = 0.5
_TRANSIENT_NUMBERS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_TRANSIENT_ERRORS = (EngineUnavailableError, ServerUnreachableError, BackPressureError)
_NO_ACCESS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver works with; `LocalEngine` documents the settings among it."""

    state_dir: Path
    interpreter: Interpreter
    processes: Processes
    environments: Environments
    removals: Removals
    fetch_input: Callable[[RunPlan], Awaitable[AsyncIterator[bytes]]] | None
    first_pause_seconds: float
    now: Callable[[], datetime]
    note_environment: Callable[[str, str | None], None]


class _EndedEarlyError(Exception):
    """The run ends here, with this end, for a reason that is none of its process's."""

    def __init__(self, end: RunEnd) -> None:
        super().__init__(end.message)
        self.end = end


class _TransientError(Exception):
    """Not now, perhaps soon."""


class Driver:
    """Takes runs from start to end, one coroutine each."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._with = surroundings
        self._reopening = asyncio.Lock()

    async def drive(self, run: Run) -> None:
        """Work the run off. Returns when it has ended and said so; raises nothing but CancelledError."""
        deadline = self._arm_deadline(run)
        try:
            end = await self._work_off(run)
        except _EndedEarlyError as early:
            end = early.end
        except Exception:  # a bug of ours must end this run, not the controller, and not leave the run unfinished
            _log.exception("run %s ended by an error of the local engine", run.plan.run_id)
            end = RunEnd(State.FAILED, Reason.ENGINE, "the local engine failed; its log says how")
        finally:
            if deadline is not None:
                deadline.cancel()
        run.finish(replace(end, log_tail=run.log.tail()))
        self._with.removals.add(run.folder, run.plan.limits.ttl_seconds_after_finished)

    async def reopen(self) -> None:
        """Start a new spawner when the last one is gone. Raises `EngineUnavailableError`."""
        async with self._reopening:
            if not self._with.processes.is_open:
                await self._with.processes.open()

    def stop(self, run: Run, reason: str) -> None:
        """Have the run end: its process gets SIGTERM and after its grace SIGKILL, and no attempt follows."""
        if run.ask_to_stop(reason):
            self._interrupt(run, Interruption.STOP)

    def _arm_deadline(self, run: Run) -> asyncio.TimerHandle | None:
        if run.plan.deadline_at is None:
            return None
        left = (run.plan.deadline_at - self._with.now()).total_seconds()
        return asyncio.get_running_loop().call_later(max(0.0, left), self._reach_deadline, run)

    def _reach_deadline(self, run: Run) -> None:
        if run.ask_to_stop(str(Reason.TIMEOUT)):
            self._interrupt(run, Interruption.DEADLINE)

    def _interrupt(self, run: Run, why: Interruption) -> None:
        if run.process is None or run.interruption is not None:
            return
        run.interruption = why
        run.process.signal(signal.SIGTERM)
        grace = max(0.0, run.plan.limits.grace_seconds)
        run.timers.append(asyncio.get_running_loop().call_later(grace, run.process.signal, signal.SIGKILL))

    # the life of a run

    async def _work_off(self, run: Run) -> RunEnd:
        number = 1
        while True:
            verdict = await self._attempt(run, number)
            if run.stop_reason is not None and run.interruption is Interruption.STOP:
                return attempts.stopped(run.stop_reason, number)
            if not attempts.another_attempt(run.plan, number, verdict):
                return attempts.run_end(verdict, b"")
            run.tell()
            await self._wait(run, attempts.pause_seconds(number, self._with.first_pause_seconds), number)
            number += 1

    async def _wait(self, run: Run, seconds: float, number: int) -> None:
        """Pause; a stop ends the pause and the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(run.stopping().wait(), seconds)
        self._check_stop(run, number)

    def _check_stop(self, run: Run, number: int) -> None:
        if run.stop_reason is not None:
            raise _EndedEarlyError(attempts.stopped(run.stop_reason, number))

    async def _attempt(self, run: Run, number: int) -> Verdict:
        """One attempt to its end. Begun again, uncounted, when the spawner was killed below it."""
        for _ in range(LOST_LIMIT):
            order = await self._prepared(run, number)
            try:
                ended = await self._run_process(run, number, order)
            except SpawnerGoneError:
                run.drop_attempt(number)
                await self._reopen_or_end()
                continue
            return await self._judge(run, number, order, ended)
        text = f"its process was lost {LOST_LIMIT} times: somebody ends the engine's spawner"
        raise _EndedEarlyError(RunEnd(State.LOST, Reason.ENGINE, text))

    async def _reopen_or_end(self) -> None:
        try:
            await self.reopen()
        except EngineUnavailableError as error:
            raise _EndedEarlyError(RunEnd(State.LOST, Reason.ENGINE, error.message)) from error

    async def _run_process(self, run: Run, number: int, order: Order) -> Ended:
        now = self._with.now
        self._check_stop(run, number - 1)
        try:
            run.process = self._with.processes.launch(
                order,
                lambda: self._started(run),
                lambda pieces, dropped: run.log.add(number, pieces, dropped, now()),
            )
        except EngineUnavailableError as error:
            raise SpawnerGoneError from error
        try:
            return await run.process.ended
        except ProcessRefusedError as error:
            raise _EndedEarlyError(refusal(run.plan, error)) from error
        finally:
            run.process = None
            run.cancel_timers()

    def _started(self, run: Run) -> None:
        run.begin_attempt(self._with.now())
        if run.plan.limits.timeout_seconds is not None:
            loop = asyncio.get_running_loop()
            seconds = run.plan.limits.timeout_seconds
            run.timers.append(loop.call_later(seconds, self._interrupt, run, Interruption.TIMEOUT))

    async def _judge(self, run: Run, number: int, order: Order, ended: Ended) -> Verdict:
        output = ended.output
        trouble = ended.trouble
        if ended.spooled and ended.exit_code == 0 and ended.output_size <= run.plan.limits.output_bytes:
            try:
                output = await asyncio.to_thread(workfolder.read_spool, Path(order.spool))
            except OSError as error:
                trouble = f"its output cannot be read back from {order.spool}: {error.strerror}"
        end = AttemptEnd(
            returncode=ended.exit_code,
            interruption=run.interruption,
            termination=ended.termination,
            output=output,
            output_size=ended.output_size,
            last_line=run.log.last_line(number, "stderr") if ended.exit_code else "",
            trouble=trouble,
        )
        verdict = attempts.judge(run.plan, number, end)
        run.end_attempt(verdict, ended.termination[: attempts.TERMINATION_BYTES], self._with.now())
        return verdict

    # preparation

    async def _prepared(self, run: Run, number: int) -> Order:
        """The order of the next process, with everything in place that it needs."""
        folder = run.next_folder(number)
        if not _needs_preparation(run.plan):
            return self._order(run, number, folder, self._with.interpreter, None)
        work = asyncio.ensure_future(self._prepare_patiently(run, number, folder))
        stop = asyncio.ensure_future(run.stopping().wait())
        limit = run.plan.limits.pending_timeout_seconds
        try:
            await asyncio.wait({work, stop}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            self._check_stop(run, number - 1)
            text = f"could not start within its {limit:g} s: still preparing its environment or input"
            raise _EndedEarlyError(RunEnd(State.FAILED, Reason.PENDING_TIMEOUT, text))
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def _prepare_patiently(self, run: Run, number: int, folder: str) -> Order:
        tries = 0
        while True:
            try:
                return await self._prepare(run, number, folder)
            except _TransientError as error:
                tries += 1
                _log.info("run %s waits: %s", run.plan.run_id, error)
                await asyncio.sleep(attempts.pause_seconds(tries, TRANSIENT_PAUSE_SECONDS))

    async def _prepare(self, run: Run, number: int, folder: str) -> Order:
        plan = run.plan
        interpreter = await self._interpreter(plan)
        code = await self._code(plan)
        if plan.input is InputMode.FILE:
            await self._write_input(plan, Path(folder))
        return self._order(run, number, folder, interpreter, code)

    async def _interpreter(self, plan: RunPlan) -> Interpreter:
        if plan.code.runtime is None or plan.code.requirements is None:
            return self._with.interpreter
        try:
            python = await self._with.environments.python_for(plan.code.requirements)
        except (InstallError, OSError) as error:
            text = f"{plan.code.requirements.name} cannot be installed: {error}"
            self._with.note_environment(plan.function, text)
            raise _EndedEarlyError(RunEnd(State.FAILED, Reason.CONFIG, text)) from error
        self._with.note_environment(plan.function, None)
        return Interpreter(str(python), str(python.parent))

    async def _code(self, plan: RunPlan) -> Path | None:
        code = plan.code
        if code.folder is None and code.inline is None:
            return None
        name = f"{plan.function}-{plan.spec_hash}"
        try:
            return await asyncio.to_thread(
                workfolder.snapshot_code, self._with.state_dir, name, code.folder, code.inline
            )
        except OSError as error:
            text = f"the code of {plan.function} cannot be copied: {_words(error)}"
            raise _EndedEarlyError(RunEnd(State.FAILED, _reason_of(error.errno), text)) from error

    async def _write_input(self, plan: RunPlan, folder: Path) -> None:
        if self._with.fetch_input is None:
            raise _EndedEarlyError(
                RunEnd(State.FAILED, Reason.ENGINE, "nothing gives this engine input for 'as: file'")
            )
        try:
            await write_chunks(folder, await self._with.fetch_input(plan))
        except RunFinishedError as error:
            raise _EndedEarlyError(
                RunEnd(State.CANCELLED, Reason.CANCELLED, "the run has its result already")
            ) from error
        except _TRANSIENT_ERRORS as error:
            raise _TransientError(error.message) from error
        except InvokerError as error:
            text = f"its input cannot be read: {error.message}"
            raise _EndedEarlyError(RunEnd(State.FAILED, Reason.ENGINE, text)) from error
        except OSError as error:
            text = f"its input cannot be written: {_words(error)}"
            raise _EndedEarlyError(RunEnd(State.FAILED, _reason_of(error.errno), text)) from error

    def _order(self, run: Run, number: int, folder: str, interpreter: Interpreter, code: Path | None) -> Order:
        try:
            return orders.make_order(
                run.plan,
                folder=folder,
                uid=f"{run.plan.run_id}-{number}-{secrets.token_hex(4)}",
                interpreter=interpreter,
                runtime_program=str(RUNTIME_PROGRAM),
                code_folder=code,
                folder_exists=run.plan.input is InputMode.FILE,
            )
        except StartRefusedError as error:
            raise _EndedEarlyError(RunEnd(State.FAILED, Reason.CONFIG, error.message)) from error


async def write_chunks(folder: Path, chunks: AsyncIterator[bytes]) -> None:
    """Make the work folder and its input file, never holding more than one chunk, never writing in the loop."""
    path = Path(Places(str(folder)).input)
    file = await asyncio.to_thread(workfolder.new_input, folder, path)
    try:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)


def refusal(plan: RunPlan, error: ProcessRefusedError) -> RunEnd:
    """The end of a run whose process could not be started."""
    named = errno.errorcode.get(error.number, str(error.number))
    if error.step == "folder":
        text = f"its work folder {error.subject} cannot be made: {error.text} ({named})"
        return RunEnd(State.FAILED, _reason_of(error.number), text)
    hint = "; is the interpreter in its first line there?" if error.number == errno.ENOENT else ""
    text = f"{error.subject} cannot be started: {error.text} ({named}){hint}"
    reason = Reason.ENGINE if error.number in _TRANSIENT_NUMBERS else Reason.CONFIG
    return RunEnd(State.FAILED, reason, text)


def _needs_preparation(plan: RunPlan) -> bool:
    code = plan.code
    return (
        plan.input is InputMode.FILE
        or code.folder is not None
        or code.inline is not None
        or (code.runtime is not None and code.requirements is not None)
    )


def _reason_of(number: int | None) -> Reason:
    return Reason.CONFIG if number in _NO_ACCESS else Reason.ENGINE


def _words(error: OSError) -> str:
    named = errno.errorcode.get(error.errno or 0, "")
    where = f" ({os.fspath(error.filename)})" if error.filename else ""
    return f"{error.strerror or error}{where}{f' [{named}]' if named else ''}"
