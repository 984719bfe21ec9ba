"""One cached environment per content of a `requirements.txt` and version of Python.

An environment appears under its final name only when everything is installed in it, so half a one is never used, and
two controllers on one state folder do not disturb each other. An installation is a process of the engine like any
attempt: it ends with the controller.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from invoker.errors import EngineUnavailableError
from trigger.local_engine.order import SYSTEM_PATH
from trigger.local_engine.processes import Completion, Processes, ProcessRefusedError, SpawnerGoneError
from trigger.local_engine.protocol import Order

KEEP_FAILURE_SECONDS = 60.0
LOG_BYTES = 64 * 1024
MESSAGE_LINES = 6
MAX_MESSAGE_CHARACTERS = 1500


class InstallError(Exception):
    """A requirements.txt cannot be installed; the text is what pip said last."""


@dataclass(frozen=True, slots=True)
class _Failure:
    text: str
    at: float


class Environments:
    """The environments below one folder.

    `python` makes them; `extra_env` is what pip is given besides a minimal environment (an index, a proxy). `seconds`
    is a monotonic clock.
    """

    def __init__(
        self,
        folder: Path,
        python: str,
        processes: Processes,
        extra_env: Mapping[str, str],
        seconds: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._python = python
        self._processes = processes
        self._extra_env = dict(extra_env)
        self._seconds = seconds
        self._building: dict[str, asyncio.Task[Path]] = {}
        self._failures: dict[str, _Failure] = {}

    async def python_for(self, requirements: Path) -> Path:
        """The interpreter of the environment with these requirements, installed when it is not there yet.

        Concurrent callers share one installation. Raises `InstallError`; a failure is remembered until the content
        changes or 60 s have passed. Raises OSError when the file cannot be read.
        """
        content = await asyncio.to_thread(requirements.read_bytes)
        name = environment_name(content, self._python)
        python = self._folder / name / "bin" / "python"
        if python.exists():
            return python
        failure = self._failures.get(name)
        if failure is not None and self._seconds() - failure.at < KEEP_FAILURE_SECONDS:
            raise InstallError(failure.text)
        task = self._building.get(name)
        if task is None:
            task = self._building[name] = asyncio.create_task(self._build(name, requirements))
            task.add_done_callback(lambda done: self._built(name, done))
        return await asyncio.shield(task)  # one caller's stop must not end what the others wait for

    def _built(self, name: str, task: asyncio.Task[Path]) -> None:
        del self._building[name]
        if not task.cancelled() and task.exception() is not None:
            self._failures[name] = _Failure(str(task.exception()), self._seconds())

    async def close(self) -> None:
        """Give up what is being installed."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _build(self, name: str, requirements: Path) -> Path:
        """Install into a folder of its own for good, then let the content's name lead there: an environment that
        moves is broken, since its programs hold its path."""
        draft: Path | None = None
        try:
            draft = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"{name}.", dir=self._folder))
            await self._install(draft, requirements)
            link = Path(f"{draft}.link")
            link.symlink_to(draft.name)
            os.rename(link, self._folder / name)
        except BaseException as error:
            if draft is not None:
                await asyncio.to_thread(shutil.rmtree, draft, True)
            if isinstance(error, OSError):
                text = f"the environment cannot be made in {self._folder}: {error.strerror or error}"
                raise InstallError(text) from error
            raise
        return self._folder / name / "bin" / "python"

    async def _install(self, draft: Path, requirements: Path) -> None:
        await self._run(draft, [self._python, "-I", "-m", "venv", "--without-pip", str(draft)], draft)
        pip = [self._python, "-I", "-m", "pip", "--python", f"{draft}/bin/python", "--no-input", "install"]
        options = ["--disable-pip-version-check", "--no-color", "--progress-bar", "off", "-q"]
        await self._run(draft, [*pip, *options, "-r", str(requirements)], requirements.parent)

    async def _run(self, draft: Path, argv: list[str], folder: Path) -> None:
        env = {"PATH": SYSTEM_PATH, "HOME": str(draft), "TMPDIR": str(draft), "LANG": "C.UTF-8"}
        order = Order(
            path=argv[0],
            argv=argv,
            env=env | self._extra_env | {"INVOKER_INSTALL": draft.name},
            folder=str(folder),
            make_folder=False,
            mark=f"INVOKER_INSTALL={draft.name}",
            memory_bytes=None,
            log_bytes=LOG_BYTES,
            output_bytes=None,
            spool="",
            termination="",
        )
        completion = Completion(LOG_BYTES)
        try:
            key = self._processes.launch(order, completion)
            try:
                ended, printed = await completion.end()
            except asyncio.CancelledError:
                self._processes.signal(key, signal.SIGKILL)
                raise
        except (ProcessRefusedError, SpawnerGoneError, EngineUnavailableError) as error:
            raise InstallError(f"pip could not be run: {error}") from error
        if ended.exit_code != 0:
            raise InstallError(last_words(printed, ended.exit_code))


def environment_name(content: bytes, python: str) -> str:
    """The name of the environment: it changes with the content, the interpreter and its version."""
    digest = hashlib.sha256(b"\0".join([content, python.encode(), sys.version.encode()])).hexdigest()
    return digest[:32]


def last_words(printed: bytes, exit_code: int) -> str:
    """The last lines of what pip printed, as one sentence; its errors rather than its notices where there are any."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    words = " ".join((errors or lines)[-MESSAGE_LINES:])[-MAX_MESSAGE_CHARACTERS:]
    return words or f"pip ended with exit code {exit_code}"
