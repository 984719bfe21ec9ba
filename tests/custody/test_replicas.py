"""Three NATS servers with a copy of every stream each: one is killed and lost with its disk, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client as NatsClient

from invoker.connection import ConnectionOptions, connect
from invoker.errors import ServerUnreachableError
from invoker.nats_server import NatsServer, nats_server
from invoker.streams import StreamLimits, ensure_streams
from invoker.wire import Names
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import Workload, kill_catalog
from tests.ports import lasting_port

pytestmark = pytest.mark.integration
NAMES = Names()
EVENTS = 15


@dataclass(frozen=True)
class Three:
    """Three servers of one cluster, by name."""

    servers: dict[str, NatsServer]
    folder: Path

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers.values())

    def lose(self, name: str) -> None:
        """Killed, and its disk with it."""
        os.kill(self.servers[name].pid, signal.SIGKILL)
        shutil.rmtree(self.folder / name, ignore_errors=True)


@asynccontextmanager
async def three_servers(folder: Path) -> AsyncIterator[Three]:
    """A cluster that has chosen who leads it."""
    ports = {name: lasting_port() for name in ("n1", "n2", "n3")}
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports.values())
    async with AsyncExitStack() as stack:
        servers = {}
        for name, port in ports.items():
            config = f"server_name: {name}\ncluster {{ name: three, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
            servers[name] = await stack.enter_async_context(nats_server(folder / name, extra_config=config))
        three = Three(servers, folder)
        client = await connect(ConnectionOptions(url=three.url))

        async def led() -> bool:
            try:
                await client.jetstream().account_info()
                return True
            except (nats.errors.Error, nats.js.errors.Error):
                return False

        await eventually(led, what="a leader of the cluster")
        await client.close()
        yield three


async def publish_patiently(work: Workload, client: NatsClient, number: int) -> None:
    """As a publisher does: the same id again until it is acknowledged."""
    while True:
        try:
            await work.publish(f"patient-{number}")
            return
        except (nats.errors.Error, nats.js.errors.Error):
            await asyncio.sleep(0.1)


async def finished(work: Workload) -> bool:
    """Whether all is done, and every stream that is asked for the proof has a leader; a cluster that chooses one does
    not tell."""
    try:
        await work.client.jetstream().stream_info(NAMES.dead_stream)
        return await work.unfinished() == 0 and await work.has_all()
    except (nats.errors.Error, nats.js.errors.Error):
        return False


async def leader_of(client: NatsClient, stream: str) -> str | None:
    try:
        cluster = (await client.jetstream().stream_info(stream)).cluster
    except (nats.errors.Error, nats.js.errors.Error):
        return None
    return cluster.leader if cluster is not None else None


async def with_streams(client: NatsClient) -> bool:
    """Whether every stream is there and has a leader: a busy cluster may take longer for that than a call lasts."""
    try:
        await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits(replicas=3))
    except ServerUnreachableError:
        return False
    return True


async def test_a_server_is_lost_with_its_disk_and_nothing_else(tmp_path: Path) -> None:
    catalog = kill_catalog(tmp_path / "catalog", tmp_path / "notes")
    async with three_servers(tmp_path / "nats") as three:
        client = await connect(ConnectionOptions(url=three.url))
        work = await Workload(client, tmp_path / "notes").listen()
        await eventually(lambda: with_streams(client), what="a copy of every stream on each server")
        async with running_controller(three.url, catalog, tmp_path / "state", replicas=3):
            info = await client.jetstream().stream_info(NAMES.runs_stream)
            assert info.config.num_replicas == 3
            for number in range(EVENTS):
                await publish_patiently(work, client, number)
                if number == EVENTS // 2:
                    leader = await eventually(lambda: leader_of(client, NAMES.runs_stream), what="a leader of the runs")
                    three.lose(leader)
            await eventually(lambda: finished(work), what="the end of all work, with a leader to say so")
            await work.prove(replies=False)
        await client.close()
