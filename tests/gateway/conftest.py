"""What the gateway's tests stand on: one running installation for each test module, and HTTP to it over a socket.

All tests of this folder run in the event loop of their module, as the installation does. A test that stops servers or
needs other settings starts its own with `running_stack` (tests/gateway/stack.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.nats_server import NatsServer, nats_server
from tests.gateway.stack import Stack, running_stack, session

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """nats-server, controller with the local engine and the standard catalog, and a gateway that allows everything."""
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP to the module's gateway: `await http.post("/v1/topics/echo.x", data=b"…")`."""
    async with session(stack.url) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk(stack: Stack) -> AsyncIterator[Client]:
    """A client of the SDK beside the gateway, on a connection of its own."""
    async with Client.connect(ConnectionOptions(url=stack.server.url), timeout=20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server for one test, in the loop of its module."""
    async with nats_server(tmp_path / "jetstream") as running:
        yield running
