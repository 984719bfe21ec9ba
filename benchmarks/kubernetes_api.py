"""Creating Jobs: the API layer of the Kubernetes engine beside a bare aiohttp loop that posts the same bytes.

    python benchmarks/kubernetes_api.py [--jobs 400] [--pairs 7] [--in-flight 1 8 32]

Both sides create Jobs that no controller looks after (`managedBy`), in namespaces of their own, on the same API server,
with the same URL, certificates and number of connections, and read every answer whole. Pairs alternate in order (AB,
BA, …) after one that is thrown away. Beside creates a second stands the processor time of this process for one create,
which a busy machine disturbs less. The control plane's flags are printed: they decide the absolute figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import aiohttp
from rig import machine

from tests.cluster.facts import Cluster
from tests.cluster.fixtures import make_namespace
from tests.cluster.lookup import NoClusterError, cluster_for_session, leave_cluster
from trigger.kubernetes_engine.api import Api, ClusterAccess
from trigger.kubernetes_engine.credentials import read_credentials

GOAL = 0.95
CONNECTIONS = 64
Create = Callable[[bytes], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Half:
    """One side of a pair: creates a second, and milliseconds of this process's processor time for each."""

    rate: float
    cpu_ms: float


def bodies(count: int) -> list[bytes]:
    """Jobs about as large as the engine's, with names of their own."""
    return [_body(f"bench-{secrets.token_hex(8)}") for _ in range(count)]


def _body(name: str) -> bytes:
    labels = {"app.kubernetes.io/managed-by": "invoker", "invoker.dev/function": "bench", "invoker.dev/run": name}
    env = [{"name": f"INVOKER_VARIABLE_{number}", "value": "v" * 40} for number in range(12)]
    container = {
        "name": "function", "image": "localhost/busybox:1", "command": ["true"], "env": env,
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"backoffLimit": 0, "managedBy": "invoker.dev/nobody", "template": template}
    document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}
    return json.dumps(document).encode()


async def timed(create: Create, count: int, in_flight: int) -> Half:
    """`count` creates, `in_flight` of them at any time."""
    waiting = iter(bodies(count))

    async def worker(mine: Iterator[bytes]) -> None:
        for body in mine:
            await create(body)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(waiting) for _ in range(in_flight)))
    seconds = time.perf_counter() - began
    return Half(count / seconds, (time.process_time() - cpu) / count * 1000)


async def bare_half(cluster: Cluster, namespace: str, count: int, in_flight: int) -> Half:
    """The reference: nothing but aiohttp."""
    found = await read_credentials(ClusterAccess(kubeconfig=cluster.kubeconfig))
    url = f"{found.server}/apis/batch/v1/namespaces/{namespace}/jobs?fieldValidation=Strict"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"Authorization": found.authorization} if found.authorization else {}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=found.tls)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def create(body: bytes) -> None:
            async with session.post(url, data=body) as answer:
                content = await answer.read()
                if answer.status != 201:
                    raise SystemExit(f"the API server answered {answer.status}: {content[:300]!r}")

        return await timed(create, count, in_flight)


async def api_half(cluster: Cluster, namespace: str, count: int, in_flight: int) -> Half:
    access = ClusterAccess(kubeconfig=cluster.kubeconfig, namespace=namespace, connections=CONNECTIONS)
    async with Api(access) as api:
        return await timed(api.create_job, count, in_flight)


async def pair(cluster: Cluster, count: int, in_flight: int, bare_first: bool) -> tuple[Half, Half]:
    """Ours and the bare one, in namespaces of their own, which are emptied outside of the timing."""
    halves: dict[bool, Half] = {}
    for bare in (bare_first, not bare_first):
        namespace = make_namespace(cluster)
        halves[bare] = await (bare_half if bare else api_half)(cluster, namespace, count, in_flight)
        cluster.kubectl("delete", "jobs", "--all", "-n", namespace, "--wait=false", "--cascade=orphan", timeout=300)
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    return halves[False], halves[True]


async def measure(cluster: Cluster, count: int, pairs: int, in_flight: int) -> None:
    await pair(cluster, max(50, count // 4), in_flight, bare_first=True)  # thrown away
    found = [await pair(cluster, count, in_flight, bare_first=number % 2 == 0) for number in range(pairs)]
    ratios = sorted(ours.rate / bare.rate for ours, bare in found)
    ours, bare = (statistics.median(half.rate for half in side) for side in zip(*found, strict=True))
    cpu, bare_cpu = (statistics.median(half.cpu_ms for half in side) for side in zip(*found, strict=True))
    ratio = statistics.median(ratios)
    print(
        f"{in_flight:3d} in flight   invoker {ours:6.0f}/s   bare aiohttp {bare:6.0f}/s   "
        f"ratio {ratio:.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})   "
        f"cpu of a create {cpu:.2f} ms against {bare_cpu:.2f} ms   {'met' if ratio >= GOAL else 'NOT MET'}"
    )


async def main(count: int, pairs: int, in_flight: list[int]) -> None:
    try:
        cluster = cluster_for_session()
    except NoClusterError as reason:
        print(f"not measured: {reason}")
        return
    try:
        print(f"{machine()}, load {os.getloadavg()[0]:.1f}; {count} Jobs of {len(_body('x' * 22))} bytes a half")
        for number in in_flight:
            await measure(cluster, count, pairs, number)
        print(f"ratio: median of {pairs} pairs, with the smallest and the largest; goal {GOAL}\nControl plane:")
        print(cluster.flags)
    finally:
        leave_cluster()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    asyncio.run(main(options.jobs, options.pairs, options.in_flight))
