"""The controller's resident memory: idle, after 500 queued requests, after 5,000 more.

    python benchmarks/memory.py

All requests of a round are queued before the first may finish (the function is paused meanwhile), then all run to
their end. The reference of the last figure is the one after 500: what grew between them would grow for ever.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from nats.aio.client import Client as NatsClient
from rig import Rig, machine, resident_bytes, rig

from invoker import wire
from invoker.connection import ConnectionOptions, connect

FUNCTIONS = {
    "nothing": """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: nothing}
spec:
  subscriptions: [{topic: bench.nothing}]
  command: ["true"]
  ttlSecondsAfterFinished: 0
""",
}
NAMES = wire.Names()
MEBIBYTE = 1024 * 1024


async def round_of(client: NatsClient, requests: int) -> float:
    """Queue so many requests, let them run, wait for the last one; returns seconds from resume to the end."""
    js = client.jetstream()
    question = json.dumps({"function": "nothing"}).encode()
    await client.request(NAMES.control("pause"), question, timeout=10)
    for start in range(0, requests, 200):
        publishes = (js.publish(NAMES.event("bench.nothing"), b"x" * 200) for _ in range(min(200, requests - start)))
        await asyncio.gather(*publishes)
    while (await js.stream_info(NAMES.runs_stream)).state.messages < requests:
        await asyncio.sleep(0.05)
    await client.request(NAMES.control("resume"), question, timeout=10)
    began = time.monotonic()
    while (await js.stream_info(NAMES.runs_stream)).state.messages:
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def measure(bench: Rig) -> None:
    client = await connect(ConnectionOptions(url=bench.nats_url))
    idle = resident_bytes(bench.controller_pid)
    print(f"idle               {idle / MEBIBYTE:6.1f} MiB")
    seen = []
    for requests in (500, 5000):
        seconds = await round_of(client, requests)
        seen.append(resident_bytes(bench.controller_pid))
        rate = requests / seconds
        print(f"after {requests:5d} queued  {seen[-1] / MEBIBYTE:6.1f} MiB   ({rate:.0f} runs/s of `true`, end to end)")
    print(f"growth             {(seen[1] - seen[0]) / MEBIBYTE:6.1f} MiB   goal: at most 10 MiB")
    await client.close()


async def main() -> None:
    print(machine())
    async with rig(FUNCTIONS) as bench:
        await measure(bench)


if __name__ == "__main__":
    asyncio.run(main())
