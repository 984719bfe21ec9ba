"""A function's output until its result is stored, through a gateway's run API.

    python benchmarks/gateway_run_api.py [--samples 300]

One nats-server and one gateway in processes of their own; the function is this process, over one kept connection. The
answer comes after the result was stored, so its time is the figure. Beside it, alternating in the same run: the same
call refused at once for want of a token (the same app, route and body, no custody), and the one create-only publish
that it cannot do without. Outputs of 1 KiB are inline in the result, those of 64 KiB and 1 MiB go behind claim checks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
from gateway_process import gateway_process
from rig import machine, summary

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.nats_server import nats_server
from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Reason, Result, State
from invoker.results.nats import ResultStream
from invoker.streams import StreamLimits, ensure_streams

KEY = "the key of a benchmark"
SIZES = {"1 KiB": 1024, "64 KiB": 64 * 1024, "1 MiB": 1024**2}
GOAL_MS = 3.0
WARM_UP = 30


@dataclass
class Bench:
    """What is measured at: where outputs go, and the custody behind it."""

    url: str
    http: aiohttp.ClientSession
    results: ResultStream
    count: int = 0

    async def accepted(self) -> RunAddress:
        """The next run, as a controller would have made it."""
        self.count += 1
        request_id, now = f"bench-{self.count}", datetime.now(UTC)
        record = RequestRecord(
            request_id=request_id, topic="bench", received_at=now, accepted_at=now, sha256="", catalog="c",
            functions=("bench",), root_request_id=request_id, body=Content.inline(b"x"),
        )  # fmt: skip
        address = RunAddress(request_id, "bench")
        await self.results.put_record(record)
        await self.results.put_ticket(RunTicket(run_id=address.run_id, request_id=request_id, function="bench"))
        return address

    async def output(self, address: RunAddress, data: bytes, token: str | None) -> float:
        """Milliseconds of one `PUT output`."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        began = time.perf_counter()
        async with self.http.put(f"{run_url(self.url, address)}/output", data=BytesIO(data), headers=headers) as answer:
            await answer.read()
        took = time.perf_counter() - began
        assert answer.status == (201 if token else 401), answer.status
        return took * 1000

    async def stored(self, address: RunAddress) -> float:
        """Milliseconds of the create-only publish of a result."""
        result = Result(
            request_id=f"bare-{address.request_id}", run_id=address.run_id, function="bench", topic="bench",
            state=State.SUCCEEDED, reason=Reason.COMPLETED, finished_at=datetime.now(UTC), root_request_id="bare",
        )  # fmt: skip
        began = time.perf_counter()
        await self.results.put_result(result)
        return (time.perf_counter() - began) * 1000


async def measured(bench: Bench, size: int, samples: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of call, taken in turns."""
    data = bytes(size)
    kinds: dict[str, Callable[[RunAddress], Awaitable[float]]] = {
        "stored": lambda address: bench.output(address, data, run_token(KEY.encode(), address)),
        "refused": lambda address: bench.output(address, data, None),
        "bare": bench.stored,
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(samples + WARM_UP):
        for kind, call in kinds.items():
            took = await call(await bench.accepted())
            if number >= WARM_UP:
                found[kind].append(took)
    return found


async def main(samples: int) -> None:
    print(machine())
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        async with nats_server(Path(folder) / "jetstream") as server:
            client = await connect(ConnectionOptions(url=server.url))
            await ensure_streams(client.jetstream(), wire.Names(), StreamLimits())
            results = ResultStream(client, client.jetstream(), wire.Names())
            async with (
                gateway_process(server.url, INVOKER_RUN_TOKEN_KEY=KEY) as gateway,
                aiohttp.ClientSession() as http,
            ):
                bench = Bench(gateway.url, http, results)
                for name, size in SIZES.items():
                    tell(name, await measured(bench, size, samples))
            await client.close()


def tell(name: str, found: dict[str, list[float]]) -> None:
    middle = {kind: statistics.median(milliseconds) for kind, milliseconds in found.items()}
    print(f"\noutput of {name}")
    print(f"  output → result stored           {summary(found['stored'])}")
    print(f"  the same call, refused at once   {summary(found['refused'])}")
    print(f"  one create-only publish          {summary(found['bare'])}")
    print(
        f"  p50 above the refused call {middle['stored'] - middle['refused']:+.2f} ms, "
        f"{middle['stored'] / middle['refused']:.1f} × it"
        + (f"; goal for small outputs: p50 at most {GOAL_MS:g} ms" if name == "1 KiB" else "")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=300)
    asyncio.run(main(parser.parse_args().samples))
