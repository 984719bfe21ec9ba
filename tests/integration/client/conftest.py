"""A client, and a stored world for it to read: what a controller would have written, written by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import Client, wire
from invoker.nats_server import NatsServer
from invoker.streams import StreamLimits, ensure_streams
from invoker.views import RequestState
from tests.conftest import eventually
from tests.integration.controller import controller, write_functions
from tests.integration.stored_world import StoredWorld

NAMES = wire.Names()

UPPER = """
subscriptions: [{topic: words}]
command: [sh, -c, 'tr a-z A-Z < "$INVOKER_INPUT_FILE"']
input: {as: file}
output: {from: stdout}
"""
SLEEP = "subscriptions: [{topic: sleep}]\ncommand: [sh, -c, 'echo awake; echo still here >&2; sleep 60']"

Started = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def world(client: NatsClient) -> StoredWorld:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
    return StoredWorld.of(client, NAMES)


@pytest.fixture
async def sdk(server: NatsServer, world: StoredWorld) -> AsyncIterator[Client]:
    async with Client.connect(server.url, names=NAMES, timeout=20) as connected:
        yield connected


@pytest.fixture
def started(server: NatsServer, tmp_path: Path) -> Started:
    """A controller with the given functions, and a client of it."""

    @asynccontextmanager
    async def start(**functions: str) -> AsyncIterator[Client]:
        write_functions(tmp_path / "functions", functions)
        async with (
            controller(server.url, tmp_path / "functions", tmp_path / "state"),
            Client.connect(server.url, names=NAMES, timeout=20) as client,
        ):
            yield client

    return start


async def reaches(client: Client, request_id: str, state: RequestState) -> None:
    async def there() -> bool:
        return (await client.result(request_id)).state is state

    await eventually(there, what=f"the state {state}")
