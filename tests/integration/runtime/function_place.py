"""A function's folder, and the runtime as a real process in it, started as an engine starts it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoker.runtime import ENTRY
from tests.integration.run_world import Run


@dataclass(frozen=True)
class Ended:
    """How a function's process ended."""

    code: int
    stdout: bytes
    stderr: str
    termination: bytes

    @property
    def note(self) -> dict[str, Any]:
        assert len(self.termination) <= 4096
        document: dict[str, Any] = json.loads(self.termination)
        return document


@dataclass(frozen=True)
class Place:
    """Folders of one function, and how an engine starts it there."""

    folder: Path

    def environment(self, run: Run, handler: str = "main.handle", **more: str) -> dict[str, str]:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return {
            "PATH": "/usr/bin:/bin",
            "INVOKER_HANDLER": handler,
            "INVOKER_CODE_DIR": str(self.folder),
            "INVOKER_RUN_URL": run.url,
            "INVOKER_RUN_TOKEN": run.token,
            "INVOKER_RUN_ID": run.run_id,
            "INVOKER_REQUEST_ID": run.address.request_id,
            "INVOKER_FUNCTION": run.address.function,
            "INVOKER_POD_UID": "pod-1",
            "INVOKER_WORKDIR": str(work),
            "INVOKER_TERMINATION_FILE": str(self.folder / "termination"),
        } | more

    def write(self, code: str) -> None:
        (self.folder / "main.py").write_text(code)

    async def start(self, run: Run, code: str | None = None, **more: str) -> asyncio.subprocess.Process:
        if code is not None:
            self.write(code)
        (self.folder / "termination").unlink(missing_ok=True)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-I", "-u", ENTRY, env=self.environment(run, **more), cwd=self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ended(self, process: asyncio.subprocess.Process) -> Ended:
        stdout, stderr = await process.communicate()
        file = self.folder / "termination"
        termination = file.read_bytes() if file.exists() else b""
        return Ended(process.returncode or 0, stdout, stderr.decode(), termination)

    async def run(self, run: Run, code: str | None = None, **more: str) -> Ended:
        return await self.ended(await self.start(run, code, **more))
