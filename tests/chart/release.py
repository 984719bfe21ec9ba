"""One release of the chart on a cluster: installed, asked through port-forwards, upgraded, removed."""

from __future__ import annotations

import base64
import json
import re
import select
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client as NatsClient

from invoker.connection import ConnectionOptions, connect
from invoker.http.client import HttpClient
from invoker.http.settings import GatewayOptions
from tests.chart.helm import CHART, Helm
from tests.cluster.account import kubeconfig_of_token
from tests.cluster.facts import Cluster, KubectlError

T = TypeVar("T")
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}
MODEST = {
    "controller": {"replicas": 1, "resources": SMALL},
    "gateway": {"replicas": 1, "resources": SMALL},
    "nats": {"evaluation": {"resources": SMALL, "storage": {"size": "64Mi"}}},
}
"""Values of a release that shares a small node with others."""
READY_SECONDS = 240


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Values laid over each other, the last one on top."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def eventually(look: Callable[[], T | None], what: str, within: float = 150.0) -> T:
    """The first answer that is something; what is not there yet is asked for again."""
    deadline = time.monotonic() + within
    while True:
        try:
            answer = look()
        except (KubectlError, OSError):
            answer = None
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not come within {within:g} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class Release:
    """A release by its name and namespace, whether it is there or not."""

    helm: Helm
    cluster: Cluster
    namespace: str
    name: str = "invoker"
    chart: Path = CHART

    @property
    def fullname(self) -> str:
        """What the names of its objects begin with."""
        return self.name if "invoker" in self.name else f"{self.name}-invoker"

    # What helm does

    def install(self, *values: dict[str, Any], wait: bool = True) -> str:
        """Installed, and ready unless `wait` is False; gives what helm prints, the notes among it."""
        return self._apply("install", *values, wait=wait)

    def upgrade(self, *values: dict[str, Any], wait: bool = True) -> str:
        return self._apply("upgrade", *values, wait=wait)

    def _apply(self, verb: str, *values: dict[str, Any], wait: bool) -> str:
        waiting = ("--wait", f"--timeout={READY_SECONDS}s") if wait else ()
        given = json.dumps(merged(*values))
        try:
            return self.helm(verb, self.name, str(self.chart), *self._where, *waiting, "--values=-", given=given)
        except Exception:
            print(self.state())
            raise

    def rollback(self, revision: int) -> None:
        self.helm("rollback", self.name, str(revision), *self._where, "--wait", f"--timeout={READY_SECONDS}s")

    def uninstall(self) -> None:
        self.helm("uninstall", self.name, *self._where, "--wait", f"--timeout={READY_SECONDS}s")

    def test(self) -> str:
        """`helm test`; raises `HelmError` when it fails."""
        return self.helm("test", self.name, *self._where, "--logs", f"--timeout={READY_SECONDS}s")

    def notes(self) -> str:
        return self.helm("get", "notes", self.name, *self._where)

    @property
    def _where(self) -> tuple[str, str]:
        return ("--namespace", self.namespace)

    # What is in the cluster

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, given=given)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def secret(self, what: str) -> dict[str, str]:
        """The contents of one of its Secrets."""
        data = self.get("secret", f"{self.fullname}-{what}")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def pods(self, component: str) -> list[str]:
        """The names of its pods that are not about to end."""
        found = self.get("pods", "--selector", f"{self._selector},app.kubernetes.io/component={component}")
        return [pod["metadata"]["name"] for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def log(self, component: str) -> str:
        """What all its pods of a component have said."""
        chosen = f"{self._selector},app.kubernetes.io/component={component}"
        return self.kubectl("logs", "--selector", chosen, "--tail=-1")

    def state(self) -> str:
        """What a person would look at when it does not become ready."""
        said = [self.kubectl("get", "pods,jobs,pvc", "--output=wide")]
        said += [self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:]]
        for component in ("controller", "gateway", "nats"):
            try:
                said.append(f"--- {component}\n{self.log(component)[-3000:]}")
            except KubectlError as trouble:
                said.append(f"--- {component}: {trouble}")
        return "\n".join(said)

    @property
    def _selector(self) -> str:
        return f"invoker.dev/installation={self.fullname}"

    # Its programs, asked from here

    @contextmanager
    def forwarded(self, what: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to a Service or a pod until this is left."""
        arguments = ["--namespace", self.namespace, "port-forward", what, f":{port}"]
        command = [str(self.cluster.kubectl_path), "--kubeconfig", str(self.cluster.kubeconfig), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forwarding:
            try:
                yield _port(forwarding)
            finally:
                forwarding.terminate()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[HttpClient]:
        """A client at the gateway's Service, with the administrator's key."""
        with self.forwarded(f"service/{self.fullname}-gateway", 80) as port:
            key = self.secret("admin-key")["key"]
            async with HttpClient.connect(GatewayOptions(f"http://127.0.0.1:{port}", key)) as client:
                yield client

    @asynccontextmanager
    async def nats(self) -> AsyncIterator[NatsClient]:
        """A connection to the evaluation server, as one who looks."""
        with self.forwarded(f"service/{self.fullname}-nats", 4222) as port:
            password = self.secret("nats-users")["viewer-password"]
            where = f"nats://127.0.0.1:{port}"
            connection = await connect(ConnectionOptions(where, "viewer", password, inbox_prefix="_INBOX.viewer"))
            try:
                yield connection
            finally:
                await connection.close()


def _port(forwarding: subprocess.Popen[str]) -> int:
    assert forwarding.stdout is not None
    ready, _, _ = select.select([forwarding.stdout], [], [], 60)
    line = forwarding.stdout.readline() if ready else "nothing"
    found = re.search(r"127\.0\.0\.1:(\d+)", line)
    assert found is not None, f"kubectl port-forward said {line!r}"
    return int(found[1])


def token_kubeconfig(cluster: Cluster, namespace: str, account: str, folder: Path) -> Path:
    """A kubeconfig that stands for a service account."""
    token = cluster.kubectl("create", "token", account, "--namespace", namespace, "--duration=2h").strip()
    file = folder / f"{account}.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(kubeconfig_of_token(cluster, namespace, token)))
    return file
