"""The client's connection: both ways to make one, closed, without a controller, and two instances on one server."""

from __future__ import annotations

import asyncio

import pytest

from invoker import Client, wire
from invoker.connection import ConnectionOptions
from invoker.errors import ServerUnreachableError
from invoker.nats_server import NatsServer
from tests.integration.stored_world import StoredWorld

pytestmark = pytest.mark.integration


async def test_both_ways_to_connect(server: NatsServer) -> None:
    client = await Client.connect(ConnectionOptions(url=server.url), names=wire.Names("blue", "b"))
    assert client.names.instance == "blue"
    await client.close()
    await client.close()
    async with Client.connect(server.url) as entered:
        assert entered.options.url == server.url


async def test_a_closed_client_says_so(sdk: Client) -> None:
    await sdk.close()
    with pytest.raises(ServerUnreachableError):
        await sdk.publish("orders", b"")
    with pytest.raises(ServerUnreachableError):
        await sdk.result("r1")


async def test_without_a_controller_questions_to_it_fail_at_once(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f")
    began = asyncio.get_running_loop().time()
    for ask in (sdk.functions(), sdk.explain("a"), sdk.reload(), sdk.pause("f"), sdk.resume("f"), sdk.cancel("r1")):
        with pytest.raises(ServerUnreachableError, match="no controller"):
            await ask
    assert asyncio.get_running_loop().time() - began < 30, "half of what six waits in vain would take"


async def test_two_instances_on_one_server_do_not_see_each_other(server: NatsServer, sdk: Client) -> None:
    async with Client.connect(server.url, names=wire.Names("green", "green-events")) as other:
        with pytest.raises(ServerUnreachableError, match="GREEN_"):
            await other.runs()
