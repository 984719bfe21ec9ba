"""Streams in which nothing moves but what a test stores: no controller, and where one is wanted a gateway over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.gateway.app import RunningGateway
from invoker.nats_server import nats_server
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.gateway.reading import world_of
from tests.gateway.stack import running_gateway
from tests.integration.stored_world import StoredWorld


@asynccontextmanager
async def still_world(folder: Path) -> AsyncIterator[tuple[Client, StoredWorld]]:
    """A server with the streams, a client of it, and writing into them as a controller would."""
    async with nats_server(folder / "jetstream") as server, Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        yield client, world_of(client)


@asynccontextmanager
async def gateway_over(client: Client, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway that has read what is stored there."""
    async with running_gateway(client.options.url, **settings) as up:

        async def read() -> bool:
            return up.gateway.runs.loaded and up.gateway.topics.loaded

        await eventually(read, what="the gateway's tables")
        yield up


async def heard(client: Client) -> None:
    """When this returns the feed of that client has told everything that is stored."""
    await client.feed.live()
    await client.feed.passed((await client.feed.kept())[1])
