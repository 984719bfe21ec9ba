"""The path of an event on one machine: what Invoker adds before a process starts, and after a function returns.

    python benchmarks/path.py [--samples 200]

One nats-server, one controller and the local engine run in processes of their own; the caller is this process. Each
figure stands beside its reference, measured in the same run, alternating. Wall clock (CLOCK_REALTIME) of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rig import Rig, rig, summary

from invoker.connection import ConnectionOptions, connect

STAMP = ["date", "+%s%N"]
FUNCTIONS = {
    "stamp": """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: stamp}
spec:
  subscriptions: [{topic: bench.stamp}]
  command: [date, "+%s%N"]
  output: {from: stdout}
""",
    "answer": """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: answer}
spec:
  subscriptions: [{topic: bench.answer}]
  runtime: python
  handler: main.handle
  code: |
    import time

    def handle(event, context):
        return str(time.time_ns())
""",
}


async def start_delays(bench: Rig, samples: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the publish (or the Popen call) to the first instruction of the process, pair by pair."""
    client = await connect(ConnectionOptions(url=bench.nats_url))
    ours, bare = [], []
    for _ in range(samples):
        before = time.time_ns()
        reply = await client.request("invoker.call.topic.bench.stamp", b"x", timeout=30)
        ours.append((int(reply.data) - before) / 1e6)
        before = time.time_ns()
        out = await asyncio.to_thread(subprocess.run, STAMP, capture_output=True, check=True)
        bare.append((int(out.stdout) - before) / 1e6)
    await client.close()
    return ours, bare


async def reply_delays(bench: Rig, samples: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the function's return to the reply at the caller, and of a bare publish to a subscriber."""
    client = await connect(ConnectionOptions(url=bench.nats_url))
    other = await connect(ConnectionOptions(url=bench.nats_url))
    subscription = await client.subscribe("bench.bare")
    await client.flush()
    ours, bare = [], []
    for _ in range(samples):
        reply = await client.request("invoker.call.topic.bench.answer", b"x", timeout=30)
        ours.append((time.time_ns() - int(reply.data)) / 1e6)
        await other.publish("bench.bare", str(time.time_ns()).encode())
        message = await subscription.next_msg(timeout=5)
        bare.append((time.time_ns() - int(message.data)) / 1e6)
    await client.close()
    await other.close()
    return ours, bare


async def report(
    title: str, measure: Callable[[Rig, int], Awaitable[tuple[list[float], list[float]]]], bench: Rig, samples: int
) -> None:
    await measure(bench, max(3, samples // 20))  # warm-up, thrown away
    ours, bare = await measure(bench, samples)
    difference = statistics.median(one - other for one, other in zip(ours, bare, strict=True))
    print(f"{title}\n  invoker   {summary(ours)}\n  reference {summary(bare)}\n  difference p50 {difference:.2f} ms")


async def main(samples: int) -> None:
    async with rig(FUNCTIONS) as bench:
        await report("publish → process started (reference: a bare Popen)", start_delays, bench, samples)
        await report(
            "function returns → reply at the caller (reference: publish → subscriber)", reply_delays, bench, samples
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200)
    asyncio.run(main(parser.parse_args().samples))
