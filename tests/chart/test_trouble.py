"""A release whose NATS refuses it, is away, or whose Redis is away: what its pods say, and that it mends itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from invoker.nats_server import nats_server
from tests.chart.helm import Helm
from tests.chart.release import MODEST, Release
from tests.cluster.facts import Cluster, KubectlError
from tests.conftest import eventually
from tests.ports import lasting_port
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PROBES = 8081
PATIENCE = 150.0


class Door:
    """An address that pods reach, and that leads to a server of this machine, or to nobody."""

    def __init__(self) -> None:
        self.address = ""
        self._behind: tuple[str, int] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def hang(self, host: str) -> None:
        self._server = await asyncio.start_server(self._enter, host, 0)
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def take_down(self) -> None:
        self.lead_to(None)
        self._server.close()
        await self._server.wait_closed()

    def lead_to(self, port: int | None) -> None:
        """There from now on; whoever is in is thrown out."""
        self._behind = ("127.0.0.1", port) if port else None
        for writer in self._open:
            writer.transport.abort()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._behind is not None:
                inner_reader, inner_writer = await asyncio.open_connection(*self._behind)
                self._open.add(inner_writer)
                await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
                self._open.discard(inner_writer)
        except OSError:
            pass  # nobody behind it
        finally:
            self._open.discard(writer)
            writer.close()


@dataclass
class Surroundings:
    """What a release needs of others, on this machine."""

    users: Path
    nats: Door
    redis: Door
    redis_server: RedisServer
    nats_port: int = 0
    nats_pid: int = 0

    def let_in(self, password: str) -> None:
        """From now on NATS knows `invoker` by this password."""
        self.users.write_text(f'authorization {{ users: [{{ user: invoker, password: "{password}" }}] }}\n')
        if self.nats_pid:
            os.kill(self.nats_pid, signal.SIGHUP)


@pytest.fixture
async def surroundings(cluster: Cluster, folder: Path) -> AsyncIterator[Surroundings]:
    redis = RedisServer(folder, lasting_port())
    found = Surroundings(folder / "users.conf", Door(), Door(), redis)
    found.let_in("another")
    doors = (found.nats, found.redis)
    for door in doors:
        await door.hang(cluster.host_address)
    # Read relative to the server's own configuration, which lies in a temporary folder, too.
    async with nats_server(folder / "jetstream", extra_config=f'include "../{folder.name}/users.conf"') as server:
        found.nats_port, found.nats_pid = server.port, server.pid
        yield found
        await redis.kill()
        for door in doors:
            await door.take_down()


async def asked(release: Release, component: str) -> tuple[int, list[str]]:
    """What a pod of the component answers at /readyz: the status, and what is missing."""

    def look() -> tuple[int, list[str]]:
        (pod,) = release.pods(component)
        with release.forwarded(f"pod/{pod}", PROBES) as port:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
                    return answer.status, json.load(answer)["missing"]
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)["missing"]

    return await asyncio.to_thread(look)


async def not_ready_because(release: Release, words: str, logged: str | None = None) -> None:
    """Wait until both components say so at /readyz and in their logs, and Kubernetes knows them as not ready."""
    for component in ("controller", "gateway"):
        ask = partial(says, release, component, words, logged or words)
        await eventually(ask, within=PATIENCE, what=f"{words!r} of the {component}")
        await eventually(
            partial(is_in_state, release, component, "False"), within=PATIENCE, what=f"{component} not ready"
        )


async def mended(release: Release) -> None:
    for component in ("controller", "gateway"):
        await eventually(partial(is_in_state, release, component, "True"), within=PATIENCE, what=f"a ready {component}")


async def says(release: Release, component: str, words: str, logged: str) -> bool:
    try:
        status, missing = await asked(release, component)
        log = await asyncio.to_thread(release.log, component)
    except (KubectlError, OSError, ValueError, AssertionError):  # the pod has not begun
        return False
    return status == 503 and words in " ".join(missing) and logged in log


async def is_in_state(release: Release, component: str, state: str) -> bool:
    """Whether its only pod is ready, as Kubernetes sees it: "True" or "False"."""
    pods = await asyncio.to_thread(release.pods, component)
    (pod,) = [await asyncio.to_thread(release.get, "pod", name) for name in pods]
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == state


async def test_what_is_wrong_is_said_in_words_and_mends_itself(
    cluster: Cluster, cluster_helm: Helm, namespace: str, surroundings: Surroundings
) -> None:
    cluster.apply(*secrets(surroundings), namespace=namespace)
    release = Release(cluster_helm, cluster, namespace)
    surroundings.nats.lead_to(surroundings.nats_port)
    await asyncio.to_thread(release.install, MODEST, values(surroundings), wait=False)

    await not_ready_because(release, "refuses us")
    surroundings.let_in("right")
    await mended(release)
    async with release.client() as client:
        (reply,) = await client.request("chart.test", "after the password", timeout=150)
        assert await reply.read() == b"after the password"
        # Redis has not been there so far, and nobody needed it.
        assert await results_from(release, reply.request_id) == "nats"
        assert "redis" in await asyncio.to_thread(release.log, "gateway")

    surroundings.nats.lead_to(None)
    await not_ready_because(release, "nats: not connected", logged='"state": "disconnected"')
    surroundings.nats.lead_to(surroundings.nats_port)
    await mended(release)

    await surroundings.redis_server.start()
    surroundings.redis.lead_to(surroundings.redis_server.port)

    async def copied() -> bool:
        return await results_from(release, reply.request_id) == "redis"

    await eventually(copied, within=PATIENCE, what="an answer from Redis")
    restarts = [
        status["restartCount"] for pod in release.get("pods")["items"] for status in pod["status"]["containerStatuses"]
    ]
    assert set(restarts) == {0}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def results_from(release: Release, request_id: str) -> str:
    """The store that a poll of this request was answered from."""

    def look() -> str:
        key = release.secret("admin-key")["key"]
        with release.forwarded(f"service/{release.fullname}-gateway", 80) as port:
            where = f"http://127.0.0.1:{port}/v1/requests/{request_id}"
            call = urllib.request.Request(where, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(call, timeout=60) as answer:
                return str(answer.headers["Invoker-Results-From"])

    return await asyncio.to_thread(look)


def secrets(surroundings: Surroundings) -> list[dict[str, Any]]:
    given = {
        "nats": {"user": "invoker", "password": "right"},
        "redis": {"url": f"redis://{surroundings.redis.address}/0"},
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        for name, data in given.items()
    ]


def values(surroundings: Surroundings) -> dict[str, Any]:
    who = {"method": "password", "existingSecret": "nats"}
    return {
        "nats": {
            "url": f"nats://{surroundings.nats.address}",
            "evaluation": {"enabled": False},
            "controller": who,
            "gateway": who,
        },
        "redis": {"enabled": True, "existingSecret": "redis"},
    }
