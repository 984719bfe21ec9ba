"""How long a command of one's own takes to be there: `invoker --version` and the start of `invoker dev`.

    python benchmarks/startup.py

References: a Python that imports Typer and nothing else, and a bare nats-server until it accepts connections.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rig import machine

from invoker.nats_server import nats_server

PAIRS = 15


def seconds_of(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    return time.monotonic() - began


def version_pairs() -> tuple[list[float], list[float]]:
    ours = [sys.executable, "-m", "invoker", "--version"]
    bare = [sys.executable, "-c", "import typer"]
    pairs = [(seconds_of(ours), seconds_of(bare)) for _ in range(PAIRS + 1)][1:]
    return [one for one, _ in pairs], [other for _, other in pairs]


def dev_ready() -> float:
    """Seconds from the command to its dev.json, which is written when everything answers."""
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        catalog, state = Path(folder) / "functions", Path(folder) / "state"
        catalog.mkdir()
        began = time.monotonic()
        command = [sys.executable, "-m", "invoker", "dev", "--state", str(state), "--catalog", str(catalog)]
        dev = subprocess.Popen(
            [*command, "--port", "0", "--http-port", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not (state / "dev.json").exists():
                if dev.poll() is not None:
                    raise SystemExit("invoker dev did not start")
                time.sleep(0.005)
            return time.monotonic() - began
        finally:
            dev.terminate()
            dev.wait()


async def bare_server() -> float:
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        began = time.monotonic()
        async with nats_server(Path(folder)):
            return time.monotonic() - began


def main() -> None:
    print(machine())
    ours, bare = version_pairs()
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    print(
        f"invoker --version {statistics.median(ours):.3f} s, import typer {statistics.median(bare):.3f} s: {ratio:.2f}"
    )
    devs = [dev_ready() for _ in range(7)]
    servers = [asyncio.run(bare_server()) for _ in range(7)]
    print(f"invoker dev ready {statistics.median(devs):.2f} s, bare nats-server {statistics.median(servers):.3f} s")


if __name__ == "__main__":
    main()
