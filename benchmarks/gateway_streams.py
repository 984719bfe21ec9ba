"""Many open event streams at one gateway: memory of its process, and how long an event needs to reach all of them.

Half of the streams follow everything, half one request each. The gateway is a process of its own; the readers are in
this one, on plain sockets. `--streams 1000` is the default.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateway_process import gateway_process
from rig import processor_seconds, resident_bytes

from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.nats_server import nats_server
from invoker.request import RequestRecord
from invoker.result import Reason, Result, State
from invoker.streams import StreamLimits, ensure_streams
from invoker.wire import Names, run_id_of, sha256_hex

EVENTS = 50


class Reader:
    """One stream on a socket: counts the results that came."""

    def __init__(self, url: str, path: str) -> None:
        self._url = urlsplit(url)
        self._path = path
        self.results = 0
        self.opened = asyncio.Event()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port, limit=1 << 16)
        head = f"GET {self._path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nAccept: text/event-stream\r\n\r\n"
        writer.write(head.encode())
        while line := await reader.readline():
            if line.startswith((b"event: open", b"event: accepted")):
                self.opened.set()
            elif line == b"event: result\n":
                self.results += 1


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    count = parser.parse_args().streams
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        async with (
            nats_server(Path(folder) / "jetstream") as server,
            Client.connect(ConnectionOptions(url=server.url)) as client,
        ):
            await ensure_streams(client._client.jetstream(), Names(), StreamLimits())
            await _accept(client, "followed")
            async with gateway_process(server.url) as gateway:
                warm = await _opened(gateway.url, 10)
                before = resident_bytes(gateway.pid)
                began = time.perf_counter()
                readers = await _opened(gateway.url, count)
                took = time.perf_counter() - began
                idle = resident_bytes(gateway.pid)
                used, times = processor_seconds(gateway.pid), []
                for number in range(EVENTS):
                    times.append(await _one_event(client, f"event-{number}", readers, number + 1))
                used = processor_seconds(gateway.pid) - used
                after = resident_bytes(gateway.pid)
                print(f"{count} streams opened in {took:.1f} s")
                print(
                    f"memory {before >> 20} MiB → {idle >> 20} MiB: + {(idle - before) / count / 1024:.1f} KiB a stream"
                )
                print(f"after {EVENTS} events to {count // 2} of them: {after >> 20} MiB")
                times.sort()
                print(f"stored → last of {count // 2} readers: p50 {times[len(times) // 2] * 1000:.1f} ms")
                print(f"processor: {used / EVENTS / (count // 2) * 1e6:.1f} µs an event and reader")
                for task in (*warm, *readers):
                    task[1].cancel()


async def _opened(url: str, count: int) -> list[tuple[Reader, asyncio.Task[None]]]:
    found = []
    for number in range(count):
        path = "/v1/stream" if number % 2 == 0 else "/v1/requests/followed/stream"
        reader = Reader(url, path)
        found.append((reader, asyncio.create_task(reader.run())))
        if number % 50 == 49:
            await asyncio.gather(*(one.opened.wait() for one, _ in found[-50:]))
    await asyncio.gather(*(one.opened.wait() for one, _ in found))
    return found


async def _accept(client: Client, request_id: str) -> None:
    now = datetime.now(UTC)
    record = RequestRecord(
        request_id=request_id, topic="t", received_at=now, accepted_at=now, sha256=sha256_hex(b""), catalog="c",
        functions=("f",), root_request_id=request_id,
    )  # fmt: skip
    await client.custody.results.put_record(record)


async def _one_event(
    client: Client, request_id: str, readers: list[tuple[Reader, asyncio.Task[None]]], wanted: int
) -> float:
    result = Result(
        request_id=request_id, run_id=run_id_of(request_id, "f"), function="f", topic="t", state=State.SUCCEEDED,
        reason=Reason.COMPLETED, finished_at=datetime.now(UTC), root_request_id=request_id,
    )  # fmt: skip
    began = time.perf_counter()
    await client.custody.results.put_result(result)
    while any(reader.results < wanted for reader, _ in readers[::2]):
        await asyncio.sleep(0.001)
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main())
