"""Publish → Job created: a whole controller beside those who only create Jobs, on an API server of its own.

    python benchmarks/kubernetes_path.py [--jobs 1500] [--rounds 5] [--in-flight 64] [--samples 1000]

Nobody looks after these Jobs: the control plane is etcd and kube-apiserver alone, so no container runs and creating is
all that happens. All sides send the same bytes (but for ids) with the same account, at the same number in flight:

* **invoker**: a real nats-server and a controller process. The events wait on the stream; measured is from the moment
  at which a freshly started controller takes events until the API server counts the last Job. Every event goes the
  whole path: record, run message, hand-out, look-ups, create, status.
* **bare**: one process that posts the finished bytes with aiohttp and reads every answer.
* **models**: `kubernetes.aio`, `create_namespaced_job` with one V1Job whose name and labels change (to its favour).
* **kubectl**: one `kubectl apply` an event, eight at a time.

Then the latency of one event, pair by pair beside a bare POST, both until a watch tells of the Job.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import aiohttp
from control_plane import NoControlPlaneError, control_plane, new_namespace
from rig import Rig, machine, processor_seconds, rig, summary

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.request import Content, RequestRecord
from invoker.streams import StreamLimits, ensure_streams
from tests.cluster.facts import Cluster
from trigger.catalog_source.directory import DirectorySource
from trigger.function import Function
from trigger.kubernetes_engine.credentials import ClusterAccess, Credentials, read_credentials
from trigger.kubernetes_engine.manifest import ManifestOptions, job_body, job_manifest
from trigger.planning import plan_run

GOAL_BARE, GOAL_MODELS, GOAL_KUBECTL, GOAL_LATENCY_MS = 0.9, 1.3, 15.0, 5.0
BOUND_SECONDS = 900
TOPIC, INSTANCE = "bench.touch", "bench"
FUNCTION = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: touch, labels: {team: bench}}
spec:
  subscriptions: [{topic: bench.touch}]
  image: localhost/busybox:1
  command: ["true"]
  resources: {requests: {cpu: 100m}, limits: {memory: 256Mi}}
  timeoutSeconds: 600
  concurrency: 100000
"""
EVENT = b"x" * 200
_REQUEST = re.compile(rb'"invoker\.dev/request":"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Half:
    """One side of a round: Jobs a second, and milliseconds of its client's processor time for each."""

    rate: float
    cpu_ms: float
    nats_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where one half works, and as whom."""

    name: str
    kubeconfig: Path
    cluster: Cluster

    @property
    def settings(self) -> dict[str, Any]:
        """The controller's."""
        return {
            "engine": "kubernetes", "kubeconfig": self.kubeconfig, "in_cluster": False, "kube_instance": INSTANCE,
            "run_api_url": "http://10.245.252.1:7222", "run_token_key": "of this benchmark", "max_running": 100_000,
        }  # fmt: skip


def the_function() -> Function:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "touch").mkdir()
        (Path(folder) / "touch" / "function.yaml").write_text(FUNCTION)
        return DirectorySource(Path(folder)).load().functions["touch"]


def body_of(function: Function, request_id: str) -> bytes:
    """The Job that Invoker would make of an event, made in advance."""
    now = datetime.now(UTC)
    run_id = wire.run_id_of(request_id, function.name)
    record = RequestRecord(
        request_id=request_id, topic=TOPIC, received_at=now, accepted_at=now, sha256="", catalog="0" * 16,
        functions=(function.name,), root_request_id=request_id, body=Content.inline(EVENT),
    )  # fmt: skip
    plan = plan_run(
        function, record, run_id=run_id, body=None, run_url=f"http://10.245.252.1:7222/v1/run/{'a' * 120}",
        run_token="t" * 43, catalog="0" * 16, deadline_at=now + timedelta(days=1), output_limit_bytes=1024**3,
    )  # fmt: skip
    return job_body(plan, job_manifest(plan, ManifestOptions(INSTANCE), None, now))


def bodies(count: int) -> list[bytes]:
    function = the_function()
    return [body_of(function, f"bench-{secrets.token_hex(8)}") for _ in range(count)]


# the API server, without any client library


@asynccontextmanager
async def bare_session(where: Namespace, connections: int) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A session, and the address of the namespace's Jobs."""
    found: Credentials = await read_credentials(ClusterAccess(kubeconfig=where.kubeconfig))
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"Authorization": found.authorization} if found.authorization else {}
    connector = aiohttp.TCPConnector(limit=connections, ssl=found.tls)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield session, f"{found.server}/apis/batch/v1/namespaces/{where.name}/jobs"


async def post(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    async with session.post(f"{url}?fieldValidation=Strict", data=body) as answer:
        content = await answer.read()
        if answer.status != 201:
            raise SystemExit(f"the API server answered {answer.status}: {content[:300]!r}")


async def jobs_there(session: aiohttp.ClientSession, url: str) -> int:
    """How many Jobs the API server has, at the price of one of them."""
    async with session.get(f"{url}?limit=1") as answer:
        page = await answer.json()
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)


async def counted(where: Namespace, count: int) -> None:
    """Wait until so many Jobs are there. Beside every side, so that asking costs all of them the same."""
    async with bare_session(where, 1) as (session, url):
        while await jobs_there(session, url) < count:
            await asyncio.sleep(0.05)


# the four sides


async def in_flight(create: Callable[[bytes], Awaitable[object]], given: list[bytes], number: int) -> None:
    waiting = iter(given)

    async def worker(mine: Iterator[bytes]) -> None:
        for body in mine:
            await create(body)

    await asyncio.gather(*(worker(waiting) for _ in range(number)))


async def invoker_half(where: Namespace, count: int, number: int) -> Half:
    async with rig({"touch": FUNCTION}, where.settings | {"kube_connections": number}, started=False) as bench:
        await publish(bench, count)
        await bench.start()
        async with bare_session(where, 1) as (session, url):
            began, before = time.perf_counter(), await jobs_there(session, url)
            cpu, nats = processor_seconds(bench.controller_pid), processor_seconds(bench.nats_pid)
            await counted(where, count)
            seconds, made = time.perf_counter() - began, count - before
        cpu, nats = processor_seconds(bench.controller_pid) - cpu, processor_seconds(bench.nats_pid) - nats
        return Half(made / seconds, cpu / made * 1000, nats / made * 1000)


async def publish(bench: Rig, count: int) -> None:
    names = wire.Names()
    client = await connect(ConnectionOptions(url=bench.nats_url))
    js = client.jetstream()
    await ensure_streams(js, names, StreamLimits())
    for start in range(0, count, 200):
        size = min(200, count - start)
        await asyncio.gather(*(js.publish(names.event(TOPIC), EVENT) for _ in range(size)))
    await client.close()


async def bare_half(where: Namespace, count: int, number: int) -> Half:
    given = bodies(count)
    async with bare_session(where, number) as (session, url):
        return await _timed(where, given, number, lambda body: post(session, url, body))


async def models_half(where: Namespace, count: int, number: int) -> Half:
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    configuration.connection_pool_maxsize = number
    await config.load_kube_config(config_file=str(where.kubeconfig), client_configuration=configuration)
    given = bodies(count)
    async with client.ApiClient(configuration) as connection:
        api = client.BatchV1Api(connection)
        template = connection.deserialize(given[0].decode(), "V1Job", "application/json")

        async def create(body: bytes) -> None:
            job = copy.copy(template)
            job.metadata = copy.copy(template.metadata)
            job.metadata.name = f"{INSTANCE}-{secrets.token_hex(13)}"
            await api.create_namespaced_job(where.name, job, field_validation="Strict")

        return await _timed(where, given, number, create)


async def kubectl_half(where: Namespace, count: int, number: int) -> Half:
    command = [where.cluster.kubectl_path, "--kubeconfig", where.kubeconfig, "apply", "-n", where.name, "-f", "-"]
    environment = os.environ | {"KUBECACHEDIR": str(where.kubeconfig.parent / "kubectl")}

    async def create(body: bytes) -> None:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        await process.communicate(body)
        if process.returncode:
            raise SystemExit("kubectl apply failed")

    await create(bodies(1)[0])  # it learns what the API server has, once
    return await _timed(where, bodies(count), number, create)


async def _timed(
    where: Namespace, given: list[bytes], number: int, create: Callable[[bytes], Awaitable[object]]
) -> Half:
    counting = asyncio.create_task(counted(where, len(given)))
    began, cpu = time.perf_counter(), time.process_time()
    await in_flight(create, given, number)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    await counting
    return Half(len(given) / seconds, cpu / len(given) * 1000)


SIDES: dict[str, tuple[Callable[[Namespace, int, int], Awaitable[Half]], float]] = {
    "invoker": (invoker_half, 1.0),
    "bare": (bare_half, 1.0),
    "models": (models_half, 0.5),
    "kubectl": (kubectl_half, 0.03),
}
KUBECTLS_AT_ONCE = 8


class Plane:
    """The control plane, and a new namespace for every half."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder

    def namespace(self) -> Namespace:
        name = f"bench-{secrets.token_hex(4)}"
        return Namespace(name, new_namespace(self.cluster, name, self._folder / name), self.cluster)


async def sustained(plane: Plane, jobs: int, rounds: int, number: int) -> None:
    order = list(SIDES)
    found: list[dict[str, Half]] = []
    for turn in range(-1, rounds):  # the first one is thrown away
        order = order[::-1] if turn % 2 else [*order[1:], order[0]]
        one = {}
        for name in order:
            half, share = SIDES[name]
            count = max(number, int(jobs * share * (0.2 if turn < 0 else 1)))
            one[name] = await half(plane.namespace(), count, KUBECTLS_AT_ONCE if name == "kubectl" else number)
        found += [one] if turn >= 0 else []
    print(f"\nsustained creation, {number} in flight, median of {rounds} rounds of {jobs} Jobs")
    for name in SIDES:
        rate, cpu, nats = (statistics.median(getattr(one[name], key) for one in found) for key in Half.__slots__)
        also = f" (its nats-server {nats:.2f} ms)" if nats else ""
        print(f"  {name:8s} {rate:6.0f}/s   processor time of a Job {cpu:6.2f} ms{also}")
    for name, goal in (("bare", GOAL_BARE), ("models", GOAL_MODELS), ("kubectl", GOAL_KUBECTL)):
        ratios = sorted(one["invoker"].rate / one[name].rate for one in found)
        _tell(f"invoker / {name}", statistics.median(ratios), goal, f"{ratios[0]:.2f} to {ratios[-1]:.2f}")


def _tell(what: str, ratio: float, goal: float, spread: str) -> None:
    print(f"  {what:18s} {ratio:6.2f} ({spread})   goal {goal:g}   {'met' if ratio >= goal else 'NOT MET'}")


# latency


class Seen:
    """When a watch told of each request's Job."""

    def __init__(self) -> None:
        self._told: dict[str, asyncio.Future[float]] = {}

    def expect(self, request_id: str) -> asyncio.Future[float]:
        future = self._told[request_id] = asyncio.get_running_loop().create_future()
        return future

    async def follow(self, session: aiohttp.ClientSession, url: str, ready: asyncio.Event) -> None:
        async with session.get(f"{url}?watch=1", timeout=aiohttp.ClientTimeout(total=None)) as answer:
            ready.set()
            async for line in answer.content:
                match = _REQUEST.search(line)
                future = self._told.pop(match[1].decode(), None) if match else None
                if future is not None and not future.done():
                    future.set_result(time.perf_counter())


async def latency(plane: Plane, samples: int, rate: float) -> None:
    where, function, seen, ready = plane.namespace(), the_function(), Seen(), asyncio.Event()
    async with (
        bare_session(where, 32) as (session, url),
        bare_session(where, 1) as (watching, _),
        rig({"touch": FUNCTION}, where.settings) as bench,
    ):
        following = asyncio.create_task(seen.follow(watching, url, ready))
        client = await connect(ConnectionOptions(url=bench.nats_url))
        js, subject = client.jetstream(), wire.Names().event(TOPIC)
        await ready.wait()

        async def ours() -> float:
            request_id = f"ours-{secrets.token_hex(8)}"
            told, began = seen.expect(request_id), time.perf_counter()
            await js.publish(subject, EVENT, headers={"Nats-Msg-Id": request_id})
            return (await told - began) * 1000

        async def bare() -> float:
            request_id = f"bare-{secrets.token_hex(8)}"
            body = body_of(function, request_id)
            told, began = seen.expect(request_id), time.perf_counter()
            await post(session, url, body)
            return (await told - began) * 1000

        await one_at_a_time(ours, bare, samples // 20)
        told = f"\npublish → Job seen in a watch, goal: p50 at most {GOAL_LATENCY_MS:g} ms above a bare POST"
        print(f"{told}\n one at a time, {samples} pairs")
        report(*await one_at_a_time(ours, bare, samples))
        print(f" {rate:g} a second, at equal distances, in turns of 5 s")
        report(*await at_a_rate(ours, bare, samples, rate))
        following.cancel()
        await client.close()


Measure = Callable[[], Awaitable[float]]


async def one_at_a_time(ours: Measure, bare: Measure, samples: int) -> tuple[list[float], list[float]]:
    pairs = [(await ours(), await bare()) for _ in range(samples)]
    return [one for one, _ in pairs], [other for _, other in pairs]


async def at_a_rate(ours: Measure, bare: Measure, samples: int, rate: float) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    turn = max(1, int(rate * 5))
    for _ in range(max(1, samples // turn)):
        for side, measure in zip(found, (ours, bare), strict=True):
            began, tasks = time.perf_counter(), []
            for number in range(turn):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                tasks.append(asyncio.ensure_future(measure()))
            side += await asyncio.gather(*tasks)
    return found


def report(ours: list[float], bare: list[float]) -> None:
    difference = statistics.median(ours) - statistics.median(bare)
    print(f"  invoker   {summary(ours)}\n  bare POST {summary(bare)}")
    print(f"  difference of the p50s {difference:.2f} ms   {'met' if difference <= GOAL_LATENCY_MS else 'NOT MET'}")


async def main(jobs: int, rounds: int, number: int, samples: int, rate: float) -> None:
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} before; a Job is sent as {len(bodies(1)[0])} bytes")
    try:
        with control_plane() as cluster, tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
            plane = Plane(cluster, Path(folder))
            async with asyncio.timeout(BOUND_SECONDS):
                if rounds:
                    await sustained(plane, jobs, rounds, number)
                if samples:
                    await latency(plane, samples, rate)
            print(
                f"\nload {os.getloadavg()[0]:.1f} after. Control plane (nobody looks after the Jobs):\n{cluster.flags}"
            )
    except NoControlPlaneError as reason:
        print(f"not measured: {reason}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0)
    options = parser.parse_args()
    asyncio.run(main(options.jobs, options.rounds, options.in_flight, options.samples, options.rate))
