"""A page of 50 of many stored runs over HTTP, with and without filters, beside an empty answer of the same gateway.

The runs are put into RESULTS as a controller would put them, then a gateway is started as a process of its own: how
long it needs until its table of recent runs is filled is told too, and its memory then. `--runs 100000` is the default.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
from gateway_process import gateway_process
from rig import resident_bytes, summary

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import nats_server
from invoker.result import Reason, Result, State
from invoker.results.nats import ResultStream
from invoker.streams import StreamLimits, ensure_streams

ROUNDS = 100
_FAILED = {Reason.ERROR: State.FAILED, Reason.TIMEOUT: State.TIMED_OUT, Reason.OUT_OF_MEMORY: State.FAILED}
PAGES = {
    "newest": "/v1/runs",
    "one function of 50": "/v1/runs?function=function-7",
    "failed (3 in 100)": "/v1/runs?state=failed",
    "function and reason (1 in 5,000)": "/v1/runs?function=function-7&reason=timeout",
    "topic pattern": "/v1/runs?topic=orders.*.7",
    "one that is the oldest of all": "/v1/runs?reason=node-lost",
    "nothing fits": "/v1/runs?function=function-7&topic=nothing.at.all",
    "since an hour": "/v1/runs?since=1h",
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        async with nats_server(Path(folder) / "jetstream") as server:
            began = time.perf_counter()
            await _store(server.url, count)
            print(f"{count} runs stored in {time.perf_counter() - began:.1f} s")
            async with gateway_process(server.url) as gateway, aiohttp.ClientSession(gateway.url) as http:
                before = resident_bytes(gateway.pid)
                await _measure(http, "while the table is being filled", "/v1/runs?function=function-7", 5)
                waited = await _filled(gateway.probe_url)
                after = resident_bytes(gateway.pid)
                print(f"table filled after {waited:.1f} s more; memory {before >> 20} → {after >> 20} MiB")
                for name in ("warm-up", "empty answer (reference)"):
                    await _measure(http, name, "/v1/nothing-here", ROUNDS)
                for name, path in PAGES.items():
                    await _measure(http, name, path, ROUNDS)
                await _walk(http, count)


async def _store(url: str, count: int) -> None:
    client = await connect(ConnectionOptions(url=url))
    js, names = client.jetstream(), wire.Names()
    await ensure_streams(js, names, StreamLimits())
    results, claims = ResultStream(client, js, names), ClaimStore(js, names)
    assert claims is not None
    now, free = datetime.now(UTC), asyncio.Semaphore(256)

    async def put(number: int) -> None:
        async with free:
            reason = Reason.COMPLETED
            if number == 0:
                reason = Reason.NODE_LOST
            elif number % 100 in (3, 5, 7):
                reason = (Reason.ERROR, Reason.OUT_OF_MEMORY, Reason.TIMEOUT)[number % 100 // 2 - 1]
            at, request_id = now - timedelta(seconds=(count - number) / 10), f"request-{number:08d}"
            function = f"function-{number % 50}"
            state = State.SUCCEEDED if reason is Reason.COMPLETED else _FAILED.get(reason, State.LOST)
            await results.put_result(
                Result(
                    request_id=request_id, run_id=wire.run_id_of(request_id, function), function=function,
                    topic=f"orders.{number % 40}.{number % 11}", state=state, reason=reason, queued_at=at,
                    started_at=at, finished_at=at, root_request_id=request_id,
                )
            )  # fmt: skip

    for start in range(0, count, 5_000):
        await asyncio.gather(*(put(number) for number in range(start, min(count, start + 5_000))))
    await client.close()


async def _filled(probe_url: str) -> float:
    began = time.perf_counter()
    async with aiohttp.ClientSession(probe_url) as probes:
        while True:
            async with probes.get("/metrics") as answer:
                if "invoker_recent_runs_loaded 1.0" in await answer.text():
                    return time.perf_counter() - began
            await asyncio.sleep(0.2)


async def _measure(http: aiohttp.ClientSession, name: str, path: str, rounds: int) -> None:
    times, length = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        async with http.get(path) as answer:
            document = await answer.json(content_type=None)
        times.append((time.perf_counter() - began) * 1000)
        length = len(document.get("items", ()))
    p95 = sorted(times)[int(len(times) * 0.95) - 1] if len(times) > 1 else times[0]
    print(f"  {name:36s} {summary(times) if len(times) > 1 else ''}   p95 {p95:6.2f} ms   {length} rows")


async def _walk(http: aiohttp.ClientSession, count: int) -> None:
    """From the newest to the oldest, 500 at a time: every row once."""
    seen, path, began = 0, "/v1/runs?limit=500", time.perf_counter()
    while True:
        async with http.get(path) as answer:
            page = await answer.json()
        seen += len(page["items"])
        if page["next"] is None:
            break
        path = f"/v1/runs?limit=500&cursor={page['next']}"
    took = time.perf_counter() - began
    print(f"  all {seen} rows in pages of 500 in {took:.1f} s")
    if seen != count:
        raise SystemExit(f"{seen} rows were listed, {count} are stored")


if __name__ == "__main__":
    asyncio.run(main())
