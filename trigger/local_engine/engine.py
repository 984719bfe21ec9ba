"""LocalEngine: runs as child processes of a small spawner, behind the seam of `trigger.engine`.

A run is an object that events move on; the spawner acts. No process is started, no folder made or removed and no
output read by this loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from invoker.errors import EngineUnavailableError, StartRefusedError
from trigger.engine import START_OK, START_REFUSED, START_UNAVAILABLE, AdoptedRun, LogLine, Phase, RunStatus
from trigger.levels import Watcher
from trigger.local_engine import workfolder
from trigger.local_engine.driver import Driver
from trigger.local_engine.order import Interpreter, Programs, check_startable
from trigger.local_engine.preparation import FetchInput, Preparation
from trigger.local_engine.processes import Processes
from trigger.local_engine.references import check_readable
from trigger.local_engine.removal import Removals
from trigger.local_engine.requirements import Environments
from trigger.local_engine.run import Run
from trigger.local_engine.snapshots import Snapshots
from trigger.plan import RunPlan


class LocalEngine:
    """Runs plans as child processes of this machine; an async context manager.

    `state_dir` belongs to one engine at a time: on entering, what an earlier one left there is removed. `python` runs
    `runtime: python` and makes the environments of requirements.txt; `fetch_input` gives the bytes for
    `input.as: file`. `secrets_dir` holds what variables refer to, `NAME/KEY` a file each; without one such functions
    are refused. `first_pause_seconds` is the pause after a first failed attempt, doubled each time up to 60 s.
    `install_env` is given to pip besides a minimal environment. `on_environment_problem(function, text or None)` is
    told when a function's requirements cannot be installed, and when they could be again; `on_request(answer)` is told
    how each start was answered, one of `START_ANSWERS`.

    Nothing of a run outlives the engine: not the end of the `async with`, not a SIGKILL of this process.
    """

    name = "local"

    def __init__(
        self,
        state_dir: Path,
        *,
        python: str = sys.executable,
        fetch_input: FetchInput | None = None,
        secrets_dir: Path | None = None,
        first_pause_seconds: float = 1.0,
        install_env: Mapping[str, str] | None = None,
        on_environment_problem: Callable[[str, str | None], None] | None = None,
        on_request: Callable[[str], None] = lambda answer: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state_dir = Path(state_dir).absolute()
        self._now = now
        self._runs: dict[str, Run] = {}
        self._watchers: set[Watcher] = set()
        self._problems: dict[str, str] = {}
        self._on_environment_problem = on_environment_problem
        self._on_request = on_request
        interpreter = Interpreter.at(python)
        self._programs = Programs(interpreter)
        self._processes = Processes(python, self._state_dir / "spawner.log")
        self._environments = Environments(
            self._state_dir / "environments", python, self._processes, install_env or {}, time.monotonic
        )
        snapshots = Snapshots(self._state_dir, self._processes.remove)
        self._secrets_dir = secrets_dir
        preparation = Preparation(
            interpreter, self._environments, snapshots, fetch_input, self._note_environment, secrets_dir
        )
        self._removals = Removals(self._processes.remove)
        self._driver = Driver(self._processes, preparation, self._removals, first_pause_seconds)
        self._is_open = False
        self._lock = -1

    async def __aenter__(self) -> Self:
        """Start the spawner and clear the state folder. Raises `EngineUnavailableError` naming what is wrong."""
        self._lock = await asyncio.to_thread(workfolder.take_state, self._state_dir)
        try:
            await self._processes.open()
        except BaseException:
            await self._processes.close()
            os.close(self._lock)
            raise
        for folder in await asyncio.to_thread(workfolder.leftovers, self._state_dir):
            self._processes.remove(str(folder))
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything at once, without grace: whoever wants grace stops the runs first."""
        self._is_open = False
        self._driver.close()
        work = [run.work for run in self._runs.values() if run.work is not None]
        for run in self._runs.values():
            run.forget_plans()
            if run.live is not None:
                run.live.forget_timers()
        await asyncio.gather(*work, return_exceptions=True)
        self._removals.close()
        await self._environments.close()
        await self._processes.close()
        os.close(self._lock)  # last: nothing of ours lives in the folder any more

    @property
    def spawner_pid(self) -> int | None:
        """The process above all attempts, for those who want to look at it (or end it)."""
        return self._processes.pid

    def environment_problem(self, function: str) -> str | None:
        """Why a function's requirements.txt cannot be installed, None when it can or was not tried."""
        return self._problems.get(function)

    async def start(self, plan: RunPlan) -> None:
        answer = START_UNAVAILABLE
        try:
            await self._start(plan)
            answer = START_OK
        except StartRefusedError:
            answer = START_REFUSED
            raise
        finally:
            self._on_request(answer)

    async def _start(self, plan: RunPlan) -> None:
        if plan.run_id in self._runs:
            return
        check_startable(plan)
        check_readable(plan, self._secrets_dir)
        program = self._programs.of(plan)
        if not self._is_open:
            raise EngineUnavailableError("the local engine is not running")
        if not self._processes.is_open:
            await self._driver.reopen()
            if plan.run_id in self._runs:  # started by another call meanwhile
                return
        run = self._runs[plan.run_id] = Run(plan, program, self._folder(plan.run_id), self._tell, self._now)
        self._tell(run.status)
        self._driver.begin(run, self._seconds_left(plan))

    async def settle(self) -> None:
        return  # its runs ended with their controller

    async def adopt(self, run_id: str) -> AdoptedRun | None:
        run = self._runs.get(run_id)
        if run is None:
            return None
        self._tell(run.status)
        plan = run.plan
        return AdoptedRun(plan.spec_hash, plan.catalog, plan.output, plan.code.runtime, run.dispatched_at)

    def place_of(self, run_id: str) -> str | None:
        return None

    def _seconds_left(self, plan: RunPlan) -> float | None:
        return None if plan.deadline_at is None else (plan.deadline_at - self._now()).total_seconds()

    def _folder(self, run_id: str) -> str:
        """The folder of a run's attempts: another one while an earlier one of that run waits to be removed."""
        folder = plain = f"{self._state_dir}/work/{run_id}"
        again = 1
        while folder in self._removals:
            again += 1
            folder = f"{plain}~{again}"
        return folder

    def _tell(self, status: RunStatus) -> None:
        for watcher in self._watchers:
            watcher.put(status)
        if status.phase is Phase.ENDED:
            run = self._runs.get(status.run_id)
            if run is not None and run.released:
                del self._runs[status.run_id]

    async def watch(self) -> AsyncIterator[RunStatus]:
        watcher = Watcher([run.status for run in self._runs.values()])
        self._watchers.add(watcher)
        try:
            while True:
                for status in await watcher.take():
                    yield status
        finally:
            self._watchers.discard(watcher)

    async def stop(self, run_id: str, reason: str) -> None:
        run = self._runs.get(run_id)
        if run is None:
            self._tell(RunStatus(run_id, Phase.ENDED))
        elif run.end is not None:
            self._tell(run.status)
        else:
            self._driver.stop(run, reason)

    async def release(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is None:
            return
        if run.end is None:
            # Released while it lives (its result came from elsewhere): it must not live on unseen.
            run.released = True
            self._driver.stop(run, "released")
            return
        del self._runs[run_id]
        for watcher in self._watchers:
            watcher.forget(run_id)

    def logs(self, run_id: str, follow: bool) -> AsyncIterator[LogLine]:
        run = self._runs.get(run_id)
        return run.open_log().lines(follow) if run is not None else _no_lines()

    def _note_environment(self, function: str, problem: str | None) -> None:
        if self._problems.get(function) == problem:
            return
        if problem is None:
            self._problems.pop(function, None)
        else:
            self._problems[function] = problem
        if self._on_environment_problem is not None:
            self._on_environment_problem(function, problem)


async def _no_lines() -> AsyncIterator[LogLine]:
    nothing: tuple[LogLine, ...] = ()
    for line in nothing:
        yield line
