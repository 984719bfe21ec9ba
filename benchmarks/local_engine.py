"""The local engine against a bare `subprocess.Popen(["/bin/true"]).wait()` loop, and the stalls of its event loop.

    python benchmarks/local_engine.py [--runs 1500] [--pairs 9] [--parallel 2 8] [--json]

Both sides run in this process, loaded with 100 MB of live objects, in alternating pairs (bare first, engine first, …);
the ratio of each pair is computed, the median of them printed. Bare: N threads. Engine: N tasks, each of which starts a
run, waits for its end through `watch`, and releases it; folders are made and removed (TTL 0), output is captured.
Stalls: how much later than asked a 1 ms heartbeat of the same loop wakes up, in rounds of their own at full rate, next
to the same heartbeat in an idle loop (what the machine itself does) and beside the bare loop in threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trigger.engine import Phase
from trigger.local_engine import LocalEngine
from trigger.plan import Code, Limits, RunPlan

BALLAST_BYTES = 100 * 1024 * 1024
HEARTBEAT_SECONDS = 0.001


def ballast() -> list[Any]:
    """Live objects of about 100 MB: dictionaries with strings, as a controller's records are."""
    one = sys.getsizeof({"id": ""}) + sys.getsizeof("x" * 40)
    return [{"id": f"{number:040d}"} for number in range(BALLAST_BYTES // one)]


def bare(runs: int, parallel: int) -> float:
    """Runs per second of the reference."""

    def work() -> None:
        for _ in range(runs // parallel):
            subprocess.Popen(["/bin/true"]).wait()

    threads = [threading.Thread(target=work) for _ in range(parallel)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return runs // parallel * parallel / (time.perf_counter() - began)


class Client:
    """Starts runs and waits for their ends, as the controller does: one watcher, a future per run."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._count = 0

    async def watch(self) -> None:
        async for status in self._engine.watch():
            if status.phase is Phase.ENDED and (future := self._ends.pop(status.run_id, None)):
                assert status.end is not None
                assert status.end.message == "", status
                future.set_result(None)

    async def once(self) -> None:
        self._count += 1
        run_id = f"run{self._count}"
        end = self._ends[run_id] = asyncio.get_running_loop().create_future()
        await self._engine.start(_plan(run_id))
        await end
        await self._engine.release(run_id)

    async def rate(self, runs: int, parallel: int) -> float:
        async def work() -> None:
            for _ in range(runs // parallel):
                await self.once()

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(parallel)))
        return runs // parallel * parallel / (time.perf_counter() - began)


def _plan(run_id: str) -> RunPlan:
    return RunPlan(
        run_id=run_id,
        request_id="request",
        function="true",
        topic="bench",
        spec_hash="0",
        catalog="0",
        code=Code(command=("/bin/true",)),
        env={"INVOKER_RUN_ID": run_id},
        limits=Limits(ttl_seconds_after_finished=0.0, timeout_seconds=60.0),
    )


async def heartbeat(late: list[float]) -> None:
    while True:
        asked = time.perf_counter() + HEARTBEAT_SECONDS
        await asyncio.sleep(HEARTBEAT_SECONDS)
        late.append(time.perf_counter() - asked)


async def stalls(work: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """How late a heartbeat beside `work` was, in milliseconds."""
    late: list[float] = []
    beat = asyncio.create_task(heartbeat(late))
    await work()
    beat.cancel()
    late.sort()
    milliseconds = [value * 1000 for value in late]
    return {
        "beats": float(len(late)),
        "p50": milliseconds[len(late) // 2],
        "p99": milliseconds[int(len(late) * 0.99)],
        "p99.9": milliseconds[int(len(late) * 0.999)],
        "max": milliseconds[-1],
    }


async def measure(client: Client, runs: int, pairs: int, parallel: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"bare": [], "engine": []}
    ratios = []
    await client.rate(200, parallel)
    for number in range(pairs):
        order = ("bare", "engine") if number % 2 == 0 else ("engine", "bare")
        for side in order:
            if side == "bare":
                rate = await asyncio.to_thread(bare, runs, parallel)
            else:
                rate = await client.rate(runs, parallel)
            rates[side].append(rate)
        ratios.append(rates["engine"][-1] / rates["bare"][-1])
    return {
        "parallel": parallel,
        "bare": statistics.median(rates["bare"]),
        "engine": statistics.median(rates["engine"]),
        "ratio": statistics.median(ratios),
        "ratios": sorted(round(ratio, 3) for ratio in ratios),
    }


def describe(rows: list[dict[str, Any]], late: dict[str, dict[str, float]]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}")
    print("\n/bin/true per second, medians (goal: ratio ≥ 0.85)")
    print(f"{'parallel':>8} {'bare':>8} {'engine':>8} {'ratio':>7}   ratios of all pairs")
    for row in rows:
        print(
            f"{row['parallel']:>8} {row['bare']:>8.0f} {row['engine']:>8.0f} {row['ratio']:>7.2f}   "
            + " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        )
    print("\nlateness of a 1 ms heartbeat in ms (goal: p99.9 ≤ 5 while spawning)")
    print(f"{'beside':>16} {'beats':>7} {'p50':>7} {'p99':>7} {'p99.9':>7} {'max':>7}")
    for name, row in late.items():
        figures = " ".join(f"{row[key]:>7.2f}" for key in ("p50", "p99", "p99.9", "max"))
        print(f"{name:>16} {row['beats']:>7.0f} {figures}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1500, help="runs per round")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of rounds, at least 7 for the goal")
    parser.add_argument("--parallel", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    load = ballast()
    with tempfile.TemporaryDirectory() as folder:
        async with LocalEngine(Path(folder)) as engine:
            client = Client(engine)
            watching = asyncio.create_task(client.watch())
            rows = [await measure(client, arguments.runs, arguments.pairs, count) for count in arguments.parallel]
            late = {"nothing": await stalls(lambda: asyncio.sleep(4))}
            for count in arguments.parallel:
                beside_bare = await stalls(lambda n=count: asyncio.to_thread(bare, arguments.runs * 6, n))
                late[f"bare, {count}"] = beside_bare
                late[f"engine, {count}"] = await stalls(lambda n=count: client.rate(arguments.runs * 6, n))
            watching.cancel()
    if arguments.json:
        print(json.dumps({"rates": rows, "stalls": late, "live_objects": len(load)}))
    else:
        describe(rows, late)


if __name__ == "__main__":
    asyncio.run(main())
