"""What the benchmarks stand on: a nats-server and a controller in processes of their own, and how figures are told."""

from __future__ import annotations

import asyncio
import platform
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from invoker.nats_server import nats_server

_CONTROLLER = """
import asyncio, sys
from pathlib import Path
from invoker.connection import ConnectionOptions
from trigger.app import run_controller
from trigger.logs import configure_logs
from trigger.settings import load_settings

configure_logs("json", "warning")
settings = load_settings({}, catalog=Path(sys.argv[2]), state_dir=Path(sys.argv[3]), http_port=0, sole_controller=True)
asyncio.run(run_controller(settings, ConnectionOptions(url=sys.argv[1]), ready=lambda up: print("ready", flush=True)))
"""


@dataclass(frozen=True, slots=True)
class Rig:
    """A running installation: where its NATS is, and the process ids of server and controller."""

    nats_url: str
    nats_pid: int
    controller_pid: int


@asynccontextmanager
async def rig(functions: Mapping[str, str]) -> AsyncIterator[Rig]:
    """An installation with these functions (YAML by name), ended and removed when this is left."""
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        catalog = Path(folder) / "functions"
        for name, text in functions.items():
            (catalog / name).mkdir(parents=True)
            (catalog / name / "function.yaml").write_text(text)
        async with nats_server(Path(folder) / "jetstream") as server:
            controller = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _CONTROLLER, server.url, str(catalog), str(Path(folder) / "state"),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert controller.stdout is not None
            try:
                if await asyncio.wait_for(controller.stdout.readline(), 30) != b"ready\n":
                    raise SystemExit("the controller did not start")
                yield Rig(server.url, server.pid, controller.pid)
            finally:
                controller.kill()
                await controller.wait()


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


def machine() -> str:
    """One line about where the figures were taken."""
    cores = len(Path("/proc/cpuinfo").read_text().split("processor\t")) - 1
    return f"{platform.system()} {platform.release()}, {cores} cores, Python {platform.python_version()}"
