"""What the benchmarks stand on: a nats-server and a controller in processes of their own, and how figures are told."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from invoker.nats_server import NatsServer, nats_server

_CONTROLLER = """
import asyncio, json, sys
from pathlib import Path
from invoker.connection import ConnectionOptions
from trigger.app import run_controller
from invoker.logs import configure_logs
from trigger.settings import load_settings

configure_logs("json", "warning")
given = {"http_port": 0, "sole_controller": True} | json.loads(sys.argv[4])
settings = load_settings({}, catalog=Path(sys.argv[2]), state_dir=Path(sys.argv[3]), **given)

def ready(up):
    print("ready", up.http_url, flush=True)

asyncio.run(run_controller(settings, ConnectionOptions(url=sys.argv[1]), ready=ready))
"""


@dataclass(slots=True)
class Rig:
    """A running installation: where its NATS is, and its controller, which may be killed and started again."""

    server: NatsServer
    folder: Path
    settings: Mapping[str, Any]
    http_url: str = ""
    process: asyncio.subprocess.Process | None = None

    @property
    def nats_url(self) -> str:
        return self.server.url

    @property
    def nats_pid(self) -> int:
        return self.server.pid

    @property
    def controller_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, within: float = 30) -> None:
        """When this returns a controller takes events."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CONTROLLER, self.nats_url, str(self.folder / "functions"),
            str(self.folder / "state"), json.dumps(self.settings, default=str),
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        assert self.process.stdout is not None
        word, _, address = (await asyncio.wait_for(self.process.stdout.readline(), within)).decode().partition(" ")
        if word != "ready":
            raise SystemExit("the controller did not start")
        self.http_url = address.strip()

    async def kill(self) -> None:
        """The controller is dead when this returns; safe to repeat."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def rig(
    functions: Mapping[str, str], settings: Mapping[str, Any] | None = None, *, started: bool = True
) -> AsyncIterator[Rig]:
    """An installation with these functions (YAML by name), ended and removed when this is left, also by SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        for name, text in functions.items():
            (Path(folder) / "functions" / name).mkdir(parents=True)
            (Path(folder) / "functions" / name / "function.yaml").write_text(text)
        async with nats_server(Path(folder) / "jetstream") as server:
            bench = Rig(server, Path(folder), settings or {})
            try:
                if started:
                    await bench.start()
                yield bench
            finally:
                await bench.kill()


def summary(milliseconds: Sequence[float]) -> str:
    """p50, p90, p99 and the number of samples, in words."""
    cuts = statistics.quantiles(milliseconds, n=100)
    return f"p50 {cuts[49]:6.2f} ms   p90 {cuts[89]:6.2f} ms   p99 {cuts[98]:6.2f} ms   n {len(milliseconds)}"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, from /proc."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"process {pid} is gone")


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far, in user and system mode together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """One line about where the figures were taken."""
    cores = len(Path("/proc/cpuinfo").read_text().split("processor\t")) - 1
    return f"{platform.system()} {platform.release()}, {cores} cores, Python {platform.python_version()}"
