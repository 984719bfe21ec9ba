"""Whole controllers whose runs are Jobs: their settings, the one address that pods know them by, and what pods note.

A `Desk` is all of that for one test: a namespace, an account with the Role of `deploy/rbac.yaml`, an instance of a
random name.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from invoker import wire
from tests.cluster.account import make_account
from tests.cluster.audit import created_jobs
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.cluster.serving import served
from tests.conftest import eventually
from tests.custody.processes import ControllerProcess

KEY = "the key of all controllers of this test"
SOON_GONE = {"ttlSecondsAfterFinished": 0}


class Service:
    """One address for several controllers, as a Service of Kubernetes is: a connection goes to one that lives."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._backends: list[str] = []
        self._turn = 0
        self._server: asyncio.Server
        self.url = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._address, 0)
        self.url = f"http://{self._address}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def add(self, http_url: str) -> None:
        """A controller that listens there."""
        self._backends.append(http_url.removeprefix("http://"))

    def remove(self, http_url: str) -> None:
        with suppress(ValueError):
            self._backends.remove(http_url.removeprefix("http://"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            backend = await self._living()
            if backend is not None:
                await asyncio.gather(_pipe(reader, backend[1]), _pipe(backend[0], writer))
        finally:
            writer.close()

    async def _living(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        for index in range(len(self._backends)):
            host, _, port = self._backends[(self._turn + index) % len(self._backends)].rpartition(":")
            with suppress(OSError):
                return await asyncio.open_connection(host, int(port))
        return None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


class NoteServer:
    """Writes down what functions in pods say, as those of the local engine do themselves (`tests.custody.workload`).

    The answer is how often this run has said this word: the only memory that the attempts of a run share.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._said: Counter[tuple[str, str]] = Counter()

    async def note(self, request: Request) -> Response:
        what, function, run_id = (request.path_params[name] for name in ("what", "function", "run_id"))
        with self._file.open("a") as file:
            file.write(f"{time.time():.6f} {what} {function} {run_id}\n")
        self._said[what, run_id] += 1
        return PlainTextResponse(str(self._said[what, run_id]))


@dataclass
class Desk:
    """What a test with whole controllers on the cluster works at; made by `desk`."""

    cluster: Cluster
    namespace: str
    kubeconfig: Path
    service: Service
    notes_url: str
    notes: Path
    instance: str = field(default_factory=lambda: f"i{secrets.token_hex(3)}")

    @property
    def names(self) -> wire.Names:
        return wire.Names(self.instance)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its controllers."""
        return {
            "instance": self.instance,
            "engine": "kubernetes",
            "kubeconfig": self.kubeconfig,
            "in_cluster": False,
            "run_api_url": self.service.url,
            "run_token_key": KEY,
            "runtime_images": f"python={PYTHON_IMAGE}",
            "image_pull_policy": "Never",
        }

    async def left(self) -> list[str]:
        """Jobs, pods and claims of this instance that are still there."""
        selector = f"invoker.dev/instance={self.instance}"
        found = await asyncio.to_thread(
            self.cluster.get, "jobs,pods,persistentvolumeclaims", "-n", self.namespace, "-l", selector
        )
        return [f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]]

    async def nothing_left(self, within: float = 150) -> None:
        """Wait until nothing of this instance is in the cluster; its functions must have no TTL to speak of."""

        async def gone() -> bool:
            left[:] = await self.left()
            return not left

        left: list[str] = []
        await eventually(gone, within=within, what=f"an empty namespace (the last things there: {left})")

    async def jobs(self) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(self.cluster.get, "jobs", "-n", self.namespace)
        labelled = [job for job in found["items"] if "labels" in job["metadata"]]
        return [job for job in labelled if job["metadata"]["labels"].get("invoker.dev/instance") == self.instance]

    async def kubectl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.cluster.kubectl, "-n", self.namespace, *arguments)

    def created(self) -> dict[str, list[str]]:
        """The UIDs of all Jobs that were ever made for each run of this instance, from the API server's audit log."""
        found: dict[str, list[str]] = {}
        for made in created_jobs(self.cluster, self.namespace):
            labels = made["metadata"].get("labels", {})
            if labels.get("invoker.dev/instance") == self.instance:
                found.setdefault(labels["invoker.dev/run"], []).append(made["metadata"]["uid"])
        return found


@asynccontextmanager
async def controller_process(
    desk: Desk, folder: Path, nats_url: str, catalog: Path, **given: Any
) -> AsyncIterator[ControllerProcess]:
    """A controller of this desk as a process of its own, reachable for pods; it is dead when this is left, and what it
    had said is shown when that is by an error."""
    settings = desk.settings | given.pop("settings", {})
    process = ControllerProcess(folder, nats_url, catalog, settings, **given)
    try:
        await process.start()
        desk.service.add(process.http_url)
        yield process
    except BaseException:
        print(f"{folder.name}:\n{process.log_file.read_text()[-6000:]}")
        raise
    finally:
        desk.service.remove(process.http_url)
        if process.process is not None:
            process.kill()
            await process.process.wait()


@asynccontextmanager
async def desk(cluster: Cluster, namespace: str, folder: Path) -> AsyncIterator[Desk]:
    """A desk in this namespace, with its servers."""
    await asyncio.to_thread(build_python_image, cluster)
    account = await asyncio.to_thread(make_account, cluster, namespace, folder / "account")
    service = Service(cluster.host_address)
    await service.open()
    notes = folder / "notes"
    app = Starlette(routes=[Route("/{what}/{function}/{run_id}", NoteServer(notes).note)])
    try:
        async with served(app, cluster.host_address) as port:
            notes_url = f"http://{cluster.host_address}:{port}"
            yield Desk(cluster, namespace, account.kubeconfig, service, notes_url, notes)
    finally:
        await service.close()
