"""A controller as a child process, and a look at every process that its functions left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import eventually
from trigger.moments import Moment

ROOT = Path(__file__).parents[2]


@dataclass
class ControllerProcess:
    """One controller of `controller_program`, started by `start`; `folder` holds its files, `state` its work folders.

    Fast periods, since a test that waits for a default of ten seconds only waits.
    """

    folder: Path
    nats_url: str
    catalog: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    crash_at: Moment | None = None
    nth: int = 1
    process: asyncio.subprocess.Process | None = None
    http_url: str = ""

    @property
    def proof(self) -> Path:
        return self.folder / "proof"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def environment(self) -> dict[str, str]:
        settings: dict[str, object] = {
            "catalog": self.catalog,
            "state_dir": self.folder / "state",
            "http_port": 0,
            "sole_controller": True,
            "ack_wait_seconds": 4,
            "heartbeat_seconds": 1,
            "audit_seconds": 1,
        }
        if self.crash_at is not None:
            settings |= {"test_crash_at": f"{self.crash_at}:{self.nth}", "test_crash_proof": self.proof}
        named = {f"INVOKER_{name.upper()}": str(value) for name, value in (settings | dict(self.settings)).items()}
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "NATS_URL": self.nats_url} | named

    async def start(self) -> ControllerProcess:
        """When this returns the controller takes events, or is dead already by its own hand."""
        self.folder.mkdir(parents=True)
        ready = self.folder / "ready"
        with self.log_file.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.custody.controller_program", str(ready),
                cwd=ROOT, env=self.environment(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

        async def up() -> bool:
            assert self.process is not None
            return ready.exists() or self.process.returncode is not None

        await eventually(up, what="a controller that is ready")
        if ready.exists():
            self.http_url = ready.read_text()
        elif self.process.returncode != -signal.SIGKILL:
            pytest.fail(f"the controller did not start:\n{self.log_file.read_text()[-3000:]}")
        return self

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, within: float = 20.0) -> int:
        """The exit code; negative for a signal."""
        assert self.process is not None
        try:
            return await asyncio.wait_for(self.process.wait(), within)
        except TimeoutError:
            os.kill(self.pid, signal.SIGUSR1)
            await asyncio.sleep(0.5)  # for the stacks of its tasks to be in the log
            pytest.fail(f"{self.folder.name} did not end within {within:g} s:\n{self.log_file.read_text()[-12000:]}")

    def tracebacks(self) -> list[str]:
        """Lines of the log that hold an exception: none is wanted, whatever happens."""
        return [line for line in self.log_file.read_text().splitlines() if "Traceback" in line]


def processes_with(text: str) -> list[int]:
    """Every living process whose environment holds that text: the functions of one controller know its address."""
    found = []
    wanted = text.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            if state not in (b"Z", b"X") and wanted in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
