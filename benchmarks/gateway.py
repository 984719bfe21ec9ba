"""Publishing over HTTP beside an empty POST of the same app: calls a second, and what one call adds.

    python benchmarks/gateway.py [--calls 4000] [--rounds 3]

nats-server, controller, gateway and caller are processes of their own. The empty route passes the gateway's door as
every call does, and reads its body. The topic matches nothing, so that no run competes for the processors; the events
are accepted all the same, which takes the controller more of them than publishing takes the gateway: so the throughput
is told with a controller on the same machine and without one. `at once` is `Prefer: respond-async`: stored, and
answered. `with its runs` is the usual answer: accepted by a controller. In alternating order, after a warm-up; quote
ratios and differences only.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rig import machine, processor_seconds, rig, summary

_GATEWAY = """
import asyncio, sys
from starlette.responses import Response
from starlette.routing import Route
from invoker.connection import ConnectionOptions
from invoker.gateway.app import gateway_app, opened_gateway
from invoker.gateway.http_server import http_server
from invoker.gateway.settings import load_gateway_settings
from invoker.logs import configure_logs

configure_logs("json", "warning")
settings = load_gateway_settings({}, gateway_anonymous=("admin",))

async def empty(request):
    async for _ in request.stream():
        pass
    return Response(b"{}", 202, media_type="application/json")

async def main():
    async with opened_gateway(settings, ConnectionOptions(url=sys.argv[1])) as gateway:
        app = gateway_app(gateway, [Route("/empty/{name}", empty, methods=["POST"])])
        async with http_server(app, "127.0.0.1", 0, "-") as url:
            await gateway.client.feed.live()
            print(url, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""
CALLS = {
    "empty": ("/empty/x", ""),
    "at once": ("/v1/topics/bench.nothing", "Prefer: respond-async\r\n"),
    "with its runs": ("/v1/topics/bench.nothing", ""),
}
AT_ONCE = 32
OTHER = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: other}
spec: {subscriptions: [{topic: something.else}], command: ["true"]}
"""


@asynccontextmanager
async def gateway(nats_url: str) -> AsyncIterator[tuple[str, int]]:
    """Host and port, and the process, of a gateway with an empty route."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _GATEWAY, nats_url, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        yield url.removeprefix("http://"), process.pid
    finally:
        process.kill()
        await process.wait()


class Caller:
    """One connection that is kept; as little of a client as possible."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, address: str) -> None:
        path, headers = CALLS[kind]
        self._reader, self._writer = reader, writer
        self._call = f"POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: 5\r\n\r\nhello".encode()

    @classmethod
    async def connected(cls, kind: str, address: str) -> Caller:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        return cls(reader, writer, kind, address)

    async def call(self) -> None:
        self._writer.write(self._call)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise SystemExit(f"unexpected answer: {head!r}")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()


async def throughput(kind: str, address: str, calls: int) -> float:
    """Calls a second over 32 connections."""
    callers = [await Caller.connected(kind, address) for _ in range(AT_ONCE)]

    async def work(caller: Caller) -> None:
        for _ in range(calls // AT_ONCE):
            await caller.call()

    began = time.perf_counter()
    await asyncio.gather(*(work(caller) for caller in callers))
    spent = time.perf_counter() - began
    for caller in callers:
        caller.close()
    return calls // AT_ONCE * AT_ONCE / spent


async def delays(address: str, calls: int) -> dict[str, list[float]]:
    """Milliseconds of single calls, one after the other, in alternating order."""
    callers = {kind: await Caller.connected(kind, address) for kind in CALLS}
    found: dict[str, list[float]] = {kind: [] for kind in CALLS}
    for number in range(calls):
        for kind, caller in callers.items():
            began = time.perf_counter()
            await caller.call()
            if number >= 20:
                found[kind].append((time.perf_counter() - began) * 1000)
    for caller in callers.values():
        caller.close()
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine())
    async with rig({"other": OTHER}, {"log_level": "error"}) as bench, gateway(bench.nats_url) as (address, pid):
        for kind in CALLS:
            await throughput(kind, address, 1_000)
        single = await delays(address, given.calls // 8)
        base = statistics.median(single["empty"])
        for kind, found in single.items():
            print(f"{kind:14} {summary(found)}   p50 added {statistics.median(found) - base:5.2f} ms (goal 3)")
        print("controller on the same processors:")
        await _rates(list(CALLS), address, pid, given.rounds, given.calls)
        await bench.kill()
        print("no controller, the events queue:")
        await _rates(["empty", "at once"], address, pid, given.rounds, given.calls)


async def _rates(kinds: list[str], address: str, pid: int, rounds: int, calls: int) -> None:
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            before = processor_seconds(pid)
            rates[kind].append(await throughput(kind, address, calls))
            used[kind].append((processor_seconds(pid) - before) / calls * 1000)
    empty = statistics.median(rates["empty"])
    for kind, found in rates.items():
        rate = statistics.median(found)
        print(
            f"{kind:14} {rate:7.0f} calls/s at {AT_ONCE} in flight, ratio {rate / empty:4.2f} (goal 0.5), "
            f"{statistics.median(used[kind]):.2f} ms of the gateway's processor a call"
        )


if __name__ == "__main__":
    asyncio.run(main())
