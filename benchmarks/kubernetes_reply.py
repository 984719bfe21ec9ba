"""A function in a real pod returns → the reply is at the caller, beside what waiting for the Job's end would cost.

    python benchmarks/kubernetes_reply.py [--samples 40]

The function is a Python one with the output `api`; what it returns is the time at which it returns, on the same
machine's clock. One run at a time, real containers of the test cluster. References, for every run: a bare NATS publish
to a subscriber (what any reply costs), and the moment at which a watch tells that the very same Job is Complete (when
those who wait for Kubernetes would know).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from nats.aio.client import Client as NatsClient
from rig import machine, rig, summary

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from tests.cluster.account import make_account
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.cluster.fixtures import make_namespace, remove_namespace
from tests.cluster.lookup import NoClusterError, cluster_for_session, leave_cluster
from trigger.kubernetes_engine.api import Api, ClusterAccess, Kind
from trigger.kubernetes_engine.failures import ApiFailure

GOAL_MS, GOAL_TIMES = 5.0, 50.0
BOUND_SECONDS = 900
RUN_SECONDS = 60
FUNCTION = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: answer}
spec:
  subscriptions: [{topic: bench.answer}]
  runtime: python
  handler: main.handle
  ttlSecondsAfterFinished: 0
  code: |
    import time

    def handle(event, context):
        return str(time.time_ns())
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: milliseconds from its return until the reply was there, and until its Job was seen to be Complete; and
    those of a bare publish beside it."""

    reply_ms: float
    complete_ms: float
    bare_ms: float


class Completions:
    """When a watch told that a run's Job is Complete."""

    def __init__(self) -> None:
        self._told: dict[str, asyncio.Future[int]] = {}
        self.watching = asyncio.Event()

    def of(self, run_id: str) -> asyncio.Future[int]:
        return self._told.setdefault(run_id, asyncio.get_running_loop().create_future())

    async def follow(self, api: Api) -> None:
        while True:
            listing = api.list(Kind.JOB, "")
            async for _ in listing:
                pass
            self.watching.set()
            try:
                async for event in api.watch(Kind.JOB, "", listing.resource_version):
                    at = time.time_ns()
                    conditions = event.object.get("status", {}).get("conditions") or ()
                    if any(one["type"] == "Complete" and one["status"] == "True" for one in conditions):
                        told = self.of(event.object["metadata"]["labels"]["invoker.dev/run"])
                        if not told.done():
                            told.set_result(at)
            except ApiFailure:
                continue


async def samples_of(client: NatsClient, other: NatsClient, completions: Completions, count: int) -> list[Sample]:
    subscription = await client.subscribe("bench.bare")
    await client.flush()
    found = []
    for _ in range(count):
        reply = await client.request("invoker.call.topic.bench.answer", b"x", timeout=RUN_SECONDS)
        at, returned = time.time_ns(), int(reply.data)
        run_id = (reply.headers or {})[wire.H_RUN_ID]
        await other.publish("bench.bare", str(time.time_ns()).encode())
        message = await subscription.next_msg(timeout=5)
        bare = (time.time_ns() - int(message.data)) / 1e6
        complete = await asyncio.wait_for(completions.of(run_id), RUN_SECONDS)
        found.append(Sample((at - returned) / 1e6, (complete - returned) / 1e6, bare))
    return found


async def measure(cluster: Cluster, namespace: str, folder: Path, count: int) -> list[Sample]:
    build_python_image(cluster)
    kubeconfig = make_account(cluster, namespace, folder).kubeconfig
    settings = {
        "engine": "kubernetes", "kubeconfig": kubeconfig, "in_cluster": False, "http_host": cluster.host_address,
        "run_token_key": "of this benchmark", "runtime_images": f"python={PYTHON_IMAGE}", "image_pull_policy": "Never",
    }  # fmt: skip
    completions = Completions()
    async with (
        rig({"answer": FUNCTION}, settings) as bench,
        Api(ClusterAccess(kubeconfig=kubeconfig, namespace=namespace)) as api,
    ):
        following = asyncio.create_task(completions.follow(api))
        await completions.watching.wait()
        client, other = [await connect(ConnectionOptions(url=bench.nats_url)) for _ in range(2)]
        await samples_of(client, other, completions, 3)  # thrown away
        found = await samples_of(client, other, completions, count)
        following.cancel()
        await client.close()
        await other.close()
    return found


def report(found: list[Sample]) -> None:
    reply, complete, bare = ([getattr(one, name) for one in found] for name in Sample.__slots__)
    print(f"function returns →\n  reply at the caller   {summary(reply)}\n  Job seen Complete     {summary(complete)}")
    print(f"  (publish → subscriber {summary(bare)})")
    p50, times = statistics.median(reply), statistics.median(one.complete_ms / one.reply_ms for one in found)
    print(f"  reply p50 {p50:.2f} ms, goal at most {GOAL_MS:g} ms   {'met' if p50 <= GOAL_MS else 'NOT MET'}")
    print(
        f"  {times:.0f} times faster than Job Complete (median of the runs' own ratios), goal {GOAL_TIMES:g}   "
        f"{'met' if times >= GOAL_TIMES else 'NOT MET'}"
    )


async def main(count: int) -> None:
    try:
        cluster = cluster_for_session()
    except NoClusterError as reason:
        print(f"not measured: {reason}")
        return
    try:
        print(f"{machine()}, load {os.getloadavg()[0]:.1f} before; {count} runs, one at a time, real pods")
        namespace = make_namespace(cluster)
        try:
            with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
                async with asyncio.timeout(BOUND_SECONDS):
                    report(await measure(cluster, namespace, Path(folder), count))
        finally:
            remove_namespace(cluster, namespace)
        print(f"load {os.getloadavg()[0]:.1f} after. Control plane:\n{cluster.flags}")
    finally:
        leave_cluster()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=40)
    asyncio.run(main(parser.parse_args().samples))
