"""A client, and a stored world for it to read: what a controller would have written, written by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client as NatsClient

from invoker import Client, wire
from invoker.nats_server import NatsServer
from invoker.streams import StreamLimits, ensure_streams
from tests.integration.stored_world import StoredWorld

NAMES = wire.Names()


@pytest.fixture
async def world(client: NatsClient) -> StoredWorld:
    await ensure_streams(client.jetstream(), NAMES, StreamLimits())
    return StoredWorld.of(client, NAMES)


@pytest.fixture
async def sdk(server: NatsServer, world: StoredWorld) -> AsyncIterator[Client]:
    async with Client.connect(server.url, names=NAMES, timeout=20) as connected:
        yield connected
