"""What must be in place before an attempt can start: its interpreter, its code, its input file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from invoker.errors import (
    BackPressureError,
    EngineUnavailableError,
    InvokerError,
    RunFinishedError,
    ServerUnreachableError,
)
from invoker.result import Reason
from trigger import endings
from trigger.engine import RunEnd
from trigger.local_engine import attempts, workfolder
from trigger.local_engine.order import Interpreter, Places, Prepared
from trigger.local_engine.references import UnreadableReferenceError, references_of, values_of
from trigger.local_engine.requirements import Environments, InstallError
from trigger.local_engine.run import Run
from trigger.local_engine.snapshots import Snapshots
from trigger.plan import InputMode, RunPlan

FetchInput = Callable[[RunPlan], Awaitable[AsyncIterator[bytes]]]

FIRST_PAUSE_SECONDS = 0.5
"""Before the input is fetched again when a server did not answer; doubled each time."""
_TRANSIENT = (EngineUnavailableError, ServerUnreachableError, BackPressureError)

_log = structlog.get_logger(component="local-engine")


class PreparationError(Exception):
    """The run ends here, with this end."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.end = RunEnd(endings.state_of(reason), reason, message)


class Preparation:
    """Prepares attempts. Several at once share one installation and one copy of the code."""

    def __init__(
        self,
        interpreter: Interpreter,
        environments: Environments,
        snapshots: Snapshots,
        fetch_input: FetchInput | None,
        note_environment: Callable[[str, str | None], None],
        secrets_dir: Path | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._environments = environments
        self._snapshots = snapshots
        self._fetch_input = fetch_input
        self._note_environment = note_environment
        self._secrets_dir = secrets_dir
        self._nothing = Prepared(interpreter)

    def at_once(self, run: Run) -> Prepared | None:
        """What the attempt starts with when nothing is left to be done; None when `prepare` must be awaited."""
        plan, code = run.plan, run.plan.code
        if (
            plan.input is InputMode.FILE
            or references_of(plan)
            or (code.runtime is not None and code.requirements is not None)
        ):
            return None
        if code.folder is None and code.inline is None:
            return self._nothing
        name = _code_name(plan)
        folder = self._snapshots.use(plan.function, name, held=run.code_name)
        if folder is not None:
            run.code_name = name
        return None if folder is None else Prepared(self._interpreter, folder)

    async def prepare(self, run: Run, folder: Path) -> Prepared:
        """Put everything in place. Raises `PreparationError` with the run's end when that cannot be done.

        A server that does not answer is asked again until the caller gives up.
        """
        plan = run.plan
        interpreter = await self._find_interpreter(plan)
        code_folder = await self._snapshot(run)
        values = await self._values(plan)
        if plan.input is InputMode.FILE:
            await self._write_input(plan, folder)
        return Prepared(interpreter, code_folder, folder_exists=plan.input is InputMode.FILE, values=values)

    def done_with(self, function: str, code_name: str | None) -> None:
        """A run that had this code has ended."""
        if code_name is not None:
            self._snapshots.leave(function, code_name)

    async def _find_interpreter(self, plan: RunPlan) -> Interpreter:
        if plan.code.runtime is None or plan.code.requirements is None:
            return self._interpreter
        try:
            python = await self._environments.python_for(plan.code.requirements)
        except (InstallError, OSError) as error:
            text = f"{plan.code.requirements.name} cannot be installed: {error}"
            self._note_environment(plan.function, text)
            raise PreparationError(Reason.CONFIG, text) from error
        self._note_environment(plan.function, None)
        return Interpreter.at(str(python))

    async def _values(self, plan: RunPlan) -> dict[str, str]:
        if self._secrets_dir is None or not references_of(plan):
            return {}
        try:
            return await asyncio.to_thread(values_of, plan, self._secrets_dir)
        except UnreadableReferenceError as error:
            raise PreparationError(Reason.CONFIG, str(error)) from error

    async def _snapshot(self, run: Run) -> Path | None:
        """The run's code. A run keeps the copy of its first attempt."""
        plan, code = run.plan, run.plan.code
        if code.folder is None and code.inline is None:
            return None
        name = _code_name(plan)
        try:
            folder = await self._snapshots.make(plan.function, name, code.folder, code.inline, held=run.code_name)
        except OSError as error:
            text = f"the code of {plan.function} cannot be copied: {workfolder.words(error)}"
            raise PreparationError(workfolder.reason_of(error.errno), text) from error
        run.code_name = name
        return folder

    async def _write_input(self, plan: RunPlan, folder: Path) -> None:
        tries = 0
        while True:
            try:
                await self._fetch_into(plan, folder)
                return
            except _TRANSIENT as error:
                tries += 1
                _log.info("run waits for its input", error_message=str(error), **plan.ids())
                await asyncio.sleep(attempts.pause_seconds(tries, FIRST_PAUSE_SECONDS))

    async def _fetch_into(self, plan: RunPlan, folder: Path) -> None:
        if self._fetch_input is None:
            raise PreparationError(Reason.ENGINE, "nothing gives this engine the input for 'input.as: file'")
        try:
            await write_chunks(folder, await self._fetch_input(plan))
        except _TRANSIENT:
            raise
        except RunFinishedError as error:
            raise PreparationError(Reason.CANCELLED, "not started: the run has its result already") from error
        except InvokerError as error:
            raise PreparationError(Reason.ENGINE, f"its input cannot be read: {error.message}") from error
        except OSError as error:
            text = f"its input cannot be written: {workfolder.words(error)}"
            raise PreparationError(workfolder.reason_of(error.errno), text) from error


async def write_chunks(folder: Path, chunks: AsyncIterator[bytes]) -> None:
    """Make the work folder and its input file, never holding more than one chunk, never writing in the loop."""
    path = Path(Places(str(folder)).input)
    file = await asyncio.to_thread(workfolder.new_input, folder, path)
    try:
        async for chunk in chunks:
            await asyncio.to_thread(workfolder.write_all, file, chunk)
    finally:
        await asyncio.to_thread(file.close)


def _code_name(plan: RunPlan) -> str:
    return f"{plan.function}-{plan.spec_hash}"
