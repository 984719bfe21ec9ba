"""Ten thousand runs in flight on simulated nodes: the controller's memory, and its restart. **No containers run.**

    python benchmarks/kubernetes_flight.py [--runs 10000] [--pairs 3] [--by-script]

A control plane of its own with kwok: every Job has its pod, bound to a node on paper and said to be running. The events
go the whole way through a real nats-server and a controller process. With `--by-script` no kwok and no Job controller
runs either, and this script makes the pods and their status with bare calls: a tenth of the work for the machine, and
the same objects for the controller, but for the Jobs' own status, which stays empty.

* memory: resident memory with all runs in flight, less that with the first 200 (code, caches and connections are warm
  then), for each run.
* restart: the controller is killed with SIGKILL and started again; measured is from the start of the process until it
  says at /readyz that it follows all Jobs and pods. Afterwards the resource versions of all Jobs are compared: a run
  that is taken over costs no write, and none was made twice.
* the engine alone, in a fresh process, until it has told the level of every run; the reference is a fresh process that
  lists the same Jobs and pods with bare aiohttp, page by page, both kinds at once, and parses the pages with the same
  parser. Pairs, in alternating order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import aiohttp
from control_plane import NoControlPlaneError, control_plane, new_namespace
from kubernetes_path import EVENT, FUNCTION, INSTANCE, TOPIC, Namespace, bare_session, jobs_there
from pydantic_core import from_json
from rig import Rig, machine, processor_seconds, resident_bytes, rig

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from trigger.engine import Phase
from trigger.kubernetes_engine import KubernetesEngine, names
from trigger.kubernetes_engine.access import ClusterAccess
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.engine import EngineOptions
from trigger.kubernetes_engine.manifest import ManifestOptions

GOAL_RUN_BYTES, GOAL_RESTART_SECONDS, GOAL_RATIO = 2048, 5.0, 1.5
WARM = 200
BOUND_SECONDS = 2400
HOLDING_SECONDS = 20
PAGE = 500
MEBIBYTE = 1024 * 1024


# the whole controller


async def publish(bench: Rig, count: int) -> None:
    client = await connect(ConnectionOptions(url=bench.nats_url))
    js, subject = client.jetstream(), wire.Names().event(TOPIC)
    for start in range(0, count, 100):
        await asyncio.gather(*(js.publish(subject, EVENT) for _ in range(min(100, count - start))))
    await client.close()


async def running(where: Namespace, count: int) -> None:
    """Wait until so many Jobs are there, each with its pod, and no pod waits."""
    async with bare_session(where, 2) as (session, jobs):
        pods = jobs.replace("/apis/batch/v1/", "/api/v1/").replace("/jobs", "/pods")
        while True:
            there = [await jobs_there(session, url) for url in (jobs, pods)]
            async with session.get(f"{pods}?limit=1&fieldSelector=status.phase=Pending") as answer:
                pending = len((await answer.json())["items"])
            if there == [count, count] and not pending:
                return
            await asyncio.sleep(0.5)


async def make_pods(where: Namespace, count: int) -> None:
    """Give every Job its pod, as the Job controller, the scheduler and a kubelet would have left it; until there are so
    many Jobs."""
    admin = replace(where, kubeconfig=where.cluster.kubeconfig)
    done: set[str] = set()
    async with bare_session(admin, 32) as (session, jobs):
        pods = jobs.replace("/apis/batch/v1/", "/api/v1/").replace("/jobs", "/pods")

        async def give(job: dict[str, Any]) -> None:
            pod = pod_of(job)
            async with session.post(pods, data=json.dumps(pod)) as answer:
                if answer.status not in (201, 409):
                    raise SystemExit(f"a pod was refused: {(await answer.text())[:300]}")
            patch = {"Content-Type": "application/merge-patch+json"}
            url = f"{pods}/{pod['metadata']['name']}/status"
            async with session.patch(url, data=json.dumps({"status": running_status(pod)}), headers=patch) as answer:
                if answer.status != 200:
                    raise SystemExit(f"a pod's status was refused: {(await answer.text())[:300]}")

        while len(done) < count:
            if await jobs_there(session, jobs) < count:
                await asyncio.sleep(0.2)
                continue
            async with session.get(jobs) as answer:
                items = from_json(await answer.read())["items"]
            for start in range(0, len(items), 200):
                await asyncio.gather(*(give(job) for job in items[start : start + 200]))
            done |= {job["metadata"]["uid"] for job in items}


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    """The pod that the Job controller would make, bound to a node. Pure."""
    name, template = job["metadata"]["name"], job["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}
    metadata = {"name": f"{name}-paper", "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] | {"nodeName": "paper-0"}}


def running_status(pod: dict[str, Any]) -> dict[str, Any]:
    """What a kubelet tells of a pod whose container runs. Pure."""
    at, zeros = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "0" * 64
    kinds = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    container = {
        "name": "function", "image": pod["spec"]["containers"][0]["image"], "imageID": f"sha256:{zeros}",
        "containerID": f"containerd://{zeros}", "ready": True, "started": True, "restartCount": 0,
        "state": {"running": {"startedAt": at}},
    }  # fmt: skip
    return {
        "phase": "Running", "startTime": at, "hostIP": "10.0.0.1", "podIP": "10.248.0.1",
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": at} for kind in kinds],
        "containerStatuses": [container],
    }  # fmt: skip


async def versions(where: Namespace) -> dict[str, str]:
    """Every Job's uid, with its resource version."""
    async with bare_session(where, 1) as (session, url), session.get(url) as answer:
        items = from_json(await answer.read())["items"]
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in items}


async def settled(where: Namespace) -> dict[str, str]:
    """The same, once nobody writes to them any more: the Job controller counts ready pods a while after they are."""
    before = await versions(where)
    while True:
        await asyncio.sleep(5)
        now = await versions(where)
        if now == before:
            return now
        before = now


async def follows(bench: Rig) -> None:
    """Wait until the controller sees all Jobs and pods."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{bench.http_url}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.02)


async def holds(bench: Rig, count: int) -> None:
    """Wait until the controller holds so many runs."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{bench.http_url}/metrics") as answer:
                found = re.search(r'invoker_runs_active\{function="touch"\} ([0-9.e+]+)', await answer.text())
            if found is not None and float(found[1]) == count:
                return
            await asyncio.sleep(0.1)


async def in_flight(bench: Rig, where: Namespace, runs: int, by_script: bool) -> None:
    """Bring so many runs to running, and tell what they cost the controller."""

    async def until_running(count: int) -> None:
        if by_script:
            await make_pods(where, count)
        await running(where, count)

    await publish(bench, WARM)
    await until_running(WARM)
    await asyncio.sleep(5)  # for the last of what was told to be read
    before, began = resident_bytes(bench.controller_pid), time.perf_counter()
    await publish(bench, runs - WARM)
    await until_running(runs)
    seconds = time.perf_counter() - began
    await asyncio.sleep(5)
    after, cpu = resident_bytes(bench.controller_pid), processor_seconds(bench.controller_pid)
    await asyncio.sleep(HOLDING_SECONDS)
    cpu = processor_seconds(bench.controller_pid) - cpu
    each = (after - before) / (runs - WARM)
    made = "made by this script" if by_script else "running on kwok's nodes"
    print(f"{runs} runs in flight, no containers (made at {(runs - WARM) / seconds:.0f}/s, pods {made})", flush=True)
    print(f"  resident {before / MEBIBYTE:.1f} MiB with {WARM}, {after / MEBIBYTE:.1f} MiB with all")
    print(f"  {each:.0f} bytes a run, goal at most {GOAL_RUN_BYTES}   {_verdict(each <= GOAL_RUN_BYTES)}")
    print(f"  holding them takes {cpu / HOLDING_SECONDS:.1%} of a core")


async def restart(bench: Rig, where: Namespace, runs: int) -> None:
    before = await settled(where)
    await bench.kill()
    began = time.perf_counter()
    await bench.start()
    up = time.perf_counter() - began
    await follows(bench)
    followed = time.perf_counter() - began
    await holds(bench, runs)
    held = time.perf_counter() - began
    after = await versions(where)
    print(f"restart after kill -9 with {runs} in flight: takes events after {up:.2f} s")
    print(
        f"  follows every Job and pod after {followed:.2f} s, goal {GOAL_RESTART_SECONDS:g}   "
        f"{_verdict(followed <= GOAL_RESTART_SECONDS)}"
    )
    resident = resident_bytes(bench.controller_pid) / MEBIBYTE
    print(f"  holds every run again after {held:.2f} s; resident {resident:.1f} MiB")
    changed = sum(after.get(uid) != version for uid, version in before.items())
    print(f"  Jobs lost or written to {changed}, made in addition {len(after.keys() - before.keys())}")


# the engine alone beside a bare list, each in a process of its own


async def engine_half(where: Namespace, runs: int) -> float:
    api = Api(ClusterAccess(kubeconfig=where.kubeconfig, namespace=where.name))
    engine = KubernetesEngine(api, EngineOptions(ManifestOptions(INSTANCE)))
    began = time.perf_counter()
    async with engine:
        told: set[str] = set()
        async for status in engine.watch():
            if status.phase is Phase.RUNNING:
                told.add(status.run_id)
            if len(told) == runs:
                return time.perf_counter() - began
    raise SystemExit("the engine told less than there is")


async def bare_half(where: Namespace, runs: int) -> float:
    began = time.perf_counter()
    async with bare_session(where, 2) as (session, jobs):
        pods = jobs.replace("/apis/batch/v1/", "/api/v1/").replace("/jobs", "/pods")
        counts = await asyncio.gather(*(_listed(session, url) for url in (jobs, pods)))
    if counts != [runs, runs]:
        raise SystemExit(f"there are {counts} Jobs and pods, and not {runs}")
    return time.perf_counter() - began


async def _listed(session: aiohttp.ClientSession, url: str) -> int:
    count, token = 0, ""
    while True:
        query = {"limit": str(PAGE), "labelSelector": names.selector(INSTANCE)} | ({"continue": token} if token else {})
        async with session.get(url, params=query) as answer:
            page = from_json(await answer.read())
        count += len(page["items"])
        token = page["metadata"].get("continue", "")
        if not token:
            return count


HALVES: dict[str, Callable[[Namespace, int], Awaitable[float]]] = {"engine": engine_half, "bare": bare_half}


async def half_of(name: str, where: Namespace, runs: int) -> float:
    """Seconds that a fresh process measures in itself."""
    command = [sys.executable, __file__, "--half", name, "--runs", str(runs), "--namespace", where.name]
    process = await asyncio.create_subprocess_exec(
        *command, "--kubeconfig", str(where.kubeconfig), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"the half {name!r} failed")
    return float(out)


async def listing(where: Namespace, runs: int, pairs: int) -> None:
    found: list[dict[str, float]] = []
    for number in range(-1, pairs):  # the first pair is thrown away
        order = ["engine", "bare"][:: -1 if number % 2 else 1]
        pair = {name: await half_of(name, where, runs) for name in order}
        found += [pair] if number >= 0 else []
    ratios = sorted(one["engine"] / one["bare"] for one in found)
    engine, bare = (statistics.median(one[name] for one in found) for name in HALVES)
    ratio = statistics.median(ratios)
    print(f"engine follows {runs} runs: {engine:.2f} s; bare paged list of the same objects {bare:.2f} s")
    print(
        f"  ratio {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {pairs} pairs), goal at most {GOAL_RATIO}   "
        f"{_verdict(ratio <= GOAL_RATIO)}"
    )


def _verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


async def main(runs: int, pairs: int, by_script: bool) -> None:
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} before", flush=True)
    try:
        with (
            control_plane(simulated_nodes=not by_script) as cluster,
            tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder,
        ):
            where = Namespace("bench", new_namespace(cluster, "bench", Path(folder)), cluster)
            if by_script:
                cluster.kubectl("create", "serviceaccount", "default", "--namespace", where.name)
            async with asyncio.timeout(BOUND_SECONDS), rig({"touch": FUNCTION}, where.settings) as bench:
                await in_flight(bench, where, runs, by_script)
                await restart(bench, where, runs)
                await bench.kill()
                await listing(where, runs, pairs)
            print(f"load {os.getloadavg()[0]:.1f} after. Control plane:\n{cluster.flags}")
    except NoControlPlaneError as reason:
        print(f"not measured: {reason}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--by-script", action="store_true", help="pods are made by this script, without kwok")
    parser.add_argument("--half", choices=HALVES, help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--namespace", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.half:
        place = Namespace(options.namespace, options.kubeconfig, None)  # type: ignore[arg-type]  # calls no kubectl
        print(asyncio.run(HALVES[options.half](place, options.runs)))
    else:
        asyncio.run(main(options.runs, options.pairs, options.by_script))
