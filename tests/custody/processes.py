"""A controller as a child process, and a look at every process that its functions left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

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

    def command(self) -> list[str]:
        return ["-m", "tests.custody.controller_program", str(self.folder / "ready")]

    def ready(self) -> str | None:
        """The HTTP address, once there is one."""
        file = self.folder / "ready"
        return file.read_text() if file.exists() else None

    async def start(self) -> Self:
        """When this returns the controller takes events, or is dead already by its own hand."""
        self.folder.mkdir(parents=True)
        with self.log_file.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self.command(),
                cwd=ROOT, env=self.environment(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

        async def up() -> bool:
            assert self.process is not None
            return self.ready() is not None or self.process.returncode is not None

        _started.append(self.process)
        await eventually(up, what="a controller that is ready")
        address = self.ready()
        if address is not None:
            self.http_url = address
        elif self.process.returncode != -signal.SIGKILL:
            pytest.fail(f"the controller did not start:\n{self.log_file.read_text()[-3000:]}")
        return self

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, within: float = 60) -> int:
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


_started: list[asyncio.subprocess.Process] = []


@pytest.fixture(autouse=True)
def no_controller_stays() -> Iterator[None]:
    """A test that failed half-way leaves nothing that runs: it would slow down, and so fail, those after it."""
    yield
    while _started:
        process = _started.pop()
        if process.returncode is None and _is_child(process.pid):
            os.kill(process.pid, signal.SIGKILL)


def _is_child(pid: int) -> bool:
    """Whether the process is ours: the number of one that has ended may be another's by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == os.getpid()


@dataclass
class DevProcess(ControllerProcess):
    """`invoker dev`, whose nats-server ends with it; all of one state share `state`, and with `port` one address."""

    state: Path = Path()
    port: int = 0

    def environment(self) -> dict[str, str]:
        given = super().environment()
        # What `invoker dev` decides itself, and where the server is.
        for name in (
            "INVOKER_STATE_DIR",
            "INVOKER_SOLE_CONTROLLER",
            "INVOKER_CATALOG",
            "INVOKER_HTTP_PORT",
            "NATS_URL",
        ):
            del given[name]
        return given

    def command(self) -> list[str]:
        ports = ["--port", str(self.port), "--http-port", "0"]
        return ["-m", "invoker", "dev", "--state", str(self.state), "--catalog", str(self.catalog), *ports]

    def ready(self) -> str | None:
        with suppress(OSError, ValueError):
            facts = json.loads((self.state / "dev.json").read_text())
            if facts["pid"] == self.pid:  # not the one of a dev that was killed
                self.nats_url = facts["nats_url"]
                return str(facts["http_url"])
        return None


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
