"""The Kubernetes engine for the suite and for its own tests: a namespace, an engine on it, and all that it reports."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.cluster.account import make_account
from tests.cluster.facts import Cluster
from tests.cluster.image_builder import build_image
from tests.cluster.serving import served
from tests.conformance.local_world import processes_with
from tests.conformance.reports import Reports
from trigger.engine import Phase, RunStatus
from trigger.kubernetes_engine import KubernetesEngine
from trigger.kubernetes_engine.access import ClusterAccess
from trigger.kubernetes_engine.api import Api, CallLimits
from trigger.kubernetes_engine.engine import EngineOptions
from trigger.kubernetes_engine.manifest import ManifestOptions
from trigger.plan import Code, RunPlan

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "localhost/base:1"
PYTHON_IMAGE = "localhost/invoker-python:test"
SECRET = "planted-in-the-controller-91c4"
PATIENCE_SECONDS = 150.0
"""For a moment that must come. Long, since it costs only who fails: with four tests on two cores a pod takes half a
minute."""
INIT = """
trap 'kill -TERM $child' TERM
"$@" & child=$!
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
exit $code
"""
"""What images have as their first process (tini and the like): signals go on to its child. Without one a script would
be process 1, which no signal of its own can kill."""


class Host:
    """What pods of a test ask this machine for: inputs, and how often they asked (their only shared memory)."""

    def __init__(self) -> None:
        self.url = ""
        self.inputs: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def routes(self) -> list[Route]:
        return [
            Route("/count/{name}", self._count),
            Route("/gate/{name}", self._gate),
            Route("/runs/{run_id}/input", self._input),
        ]

    async def _count(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.asked[name] += 1
        return PlainTextResponse(str(self.asked[name]))

    async def _gate(self, request: Request) -> Response:
        """Answered once the test has opened it."""
        await self.gates[request.path_params["name"]].wait()
        return PlainTextResponse("open")

    async def _input(self, request: Request) -> Response:
        return Response(self.inputs[request.path_params["run_id"]])


@asynccontextmanager
async def host(cluster: Cluster) -> AsyncIterator[Host]:
    """A server of this test that pods reach, and nobody else's."""
    found = Host()
    async with served(Starlette(routes=found.routes()), cluster.host_address) as port:
        found.url = f"http://{cluster.host_address}:{port}"
        yield found


class KubernetesWorld:
    """A Kubernetes engine in a namespace, with everything it reports."""

    second = 5.0
    pause = 10.0
    secret = SECRET

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        host: Host,
        kubeconfig: Path,
        options: EngineOptions | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self.host = host
        self.instance = f"i{secrets.token_hex(3)}"
        self.options = options or EngineOptions()
        self.options = replace(
            self.options,
            manifest=ManifestOptions(self.instance, {"python": PYTHON_IMAGE}, "Never"),
        )
        self.limits = limits
        self.requests: Counter[tuple[str, int]] = Counter()
        self.engine = self.another_engine()
        self._reports = Reports(patience_seconds=PATIENCE_SECONDS)
        self._number = 0

    def another_engine(self, **changes: Any) -> KubernetesEngine:
        """An engine of the same instance, as another controller has one."""
        access = ClusterAccess(kubeconfig=self.kubeconfig, namespace=self.namespace)
        api = Api(access, limits=self.limits, on_request=lambda *told: self.requests.update([told]))
        return KubernetesEngine(api, replace(self.options, **changes))

    async def follow(self) -> None:
        await self._reports.follow(self.engine)

    def plan(self, script: str, **fields: Any) -> RunPlan:
        return self.command("sh", "-c", INIT, "init", "sh", "-c", script, **fields)

    def python(self, code: str, **fields: Any) -> RunPlan:
        return self.command("python3", "-c", code, **fields)

    def command(self, *command: str, image: str = BASE_IMAGE, **fields: Any) -> RunPlan:
        return self.code(Code(command=command, image=image), **fields)

    def code(self, code: Code, **fields: Any) -> RunPlan:
        run_id = fields.pop("run_id", None) or base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]
        deadline_in: timedelta | None = fields.pop("deadline_in", None)
        env = {"INVOKER_RUN_ID": run_id, "INVOKER_RUN_URL": f"{self.host.url}/runs/{run_id}", "INVOKER_RUN_TOKEN": "t"}
        limits = fields.get("limits")
        if limits is not None and limits.memory_bytes is not None:
            fields.setdefault("pod", {"resources": {"limits": {"memory": str(limits.memory_bytes)}}})
        return RunPlan(
            run_id=run_id,
            request_id="request",
            function=fields.pop("function", "work"),
            topic="topic",
            spec_hash=fields.pop("spec_hash", secrets.token_hex(8)),
            catalog="catalog",
            code=code,
            env=env | fields.pop("env", {}),
            deadline_at=None if deadline_in is None else datetime.now(UTC) + deadline_in,
            keep_log=fields.pop("keep_log", True),
            **fields,
        )

    def missing_program(self) -> RunPlan:
        return self.command("no-such-program")

    def failing(self, times: int) -> str:
        self._number += 1
        url = f"{self.host.url}/count/{self._number}"
        ask = f"import urllib.request as r; print(r.urlopen('{url}').read().decode())"
        return f'test "$(python3 -c "{ask}")" -gt {times} || exit 1'

    def gate(self, name: str) -> str:
        """A script line that goes on once `host.gates[name]` is set."""
        return f"python3 -c \"import urllib.request as r; r.urlopen('{self.host.url}/gate/{name}').read()\""

    def give_input(self, run_id: str, data: bytes) -> None:
        self.host.inputs[run_id] = data

    async def status(self, run_id: str, fits: Callable[[RunStatus], bool]) -> RunStatus:
        return await self._reports.status(run_id, fits)

    def count(self, run_id: str, phase: Phase) -> int:
        return self._reports.count(run_id, phase)

    async def alive(self, run_id: str) -> bool:
        if processes_with(f"INVOKER_RUN_ID={run_id}"):
            return True
        pods = await self.get("pods", "-l", f"invoker.dev/run={run_id}")
        return any(pod["status"].get("phase") == "Running" for pod in pods)

    # what is in the cluster

    async def get(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """The objects of a kind in the namespace."""
        found = await asyncio.to_thread(self.cluster.get, kind, "-n", self.namespace, *arguments)
        return list(found["items"])

    async def job(self, run_id: str) -> dict[str, Any] | None:
        return next(iter(await self.get("jobs", "-l", f"invoker.dev/run={run_id}")), None)

    async def pods(self, run_id: str) -> list[dict[str, Any]]:
        return await self.get("pods", "-l", f"invoker.dev/run={run_id}")

    async def apply(self, *objects: dict[str, Any]) -> None:
        await asyncio.to_thread(self.cluster.apply, *objects, namespace=self.namespace)

    async def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return await asyncio.to_thread(self.cluster.kubectl, "-n", self.namespace, *arguments, given=given)

    async def patch(self, kind: str, name: str, patch: dict[str, Any], *more: str) -> None:
        await self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch), *more)

    async def until(self, what: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """The first true value that the question gives; it is asked again and again until then."""
        async with asyncio.timeout(seconds):
            while not (found := await what()):
                await asyncio.sleep(0.2)
        return found


@asynccontextmanager
async def kubernetes_world(
    cluster: Cluster,
    namespace: str,
    options: EngineOptions | None = None,
    *,
    kubeconfig: Path | None = None,
    limits: CallLimits | None = None,
) -> AsyncIterator[KubernetesWorld]:
    """A world whose engine runs and is followed: as the service account of `deploy/rbac.yaml`, or as `kubeconfig`
    says."""
    await asyncio.to_thread(build_python_image, cluster)
    with tempfile.TemporaryDirectory() as folder:
        if kubeconfig is None:
            kubeconfig = (await asyncio.to_thread(make_account, cluster, namespace, Path(folder))).kubeconfig
        async with _followed(cluster, namespace, kubeconfig, options, limits) as world:
            yield world


@asynccontextmanager
async def _followed(
    cluster: Cluster, namespace: str, kubeconfig: Path, options: EngineOptions | None, limits: CallLimits | None
) -> AsyncIterator[KubernetesWorld]:
    async with host(cluster) as server:
        world = KubernetesWorld(cluster, namespace, server, kubeconfig, options, limits)
        async with world.engine:
            following = asyncio.create_task(world.follow())
            try:
                yield world
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


def build_python_image(cluster: Cluster) -> None:
    """Afterwards the cluster has the image of the Python runtime, as its Dockerfile says."""
    build_image(cluster, ROOT / "functions/runtimes/python/Dockerfile", ROOT, PYTHON_IMAGE, {"BASE": BASE_IMAGE})


def names_of(objects: Iterable[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in objects]
