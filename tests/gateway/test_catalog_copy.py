"""The gateway's copy of the catalog: of two answers the one that was asked for later holds, whichever comes first."""

from __future__ import annotations

import asyncio
import json

from nats.aio.msg import Msg

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.nats_server import NatsServer
from tests.conftest import eventually


async def test_an_answer_that_comes_late_takes_the_place_of_no_newer_one(server: NatsServer) -> None:
    """As of two controllers, one of which has much to do: a function that was just paused is not shown as running."""
    asked: list[Msg] = []

    async def hear(message: Msg) -> None:
        asked.append(message)

    async def refreshing(copy: CatalogCopy, number: int) -> asyncio.Task[None]:
        """A question that waits for its answer."""
        task = asyncio.create_task(copy.refresh())

        async def heard() -> bool:
            return len(asked) == number

        await eventually(heard, what="the question")
        return task

    controller = await connect(ConnectionOptions(url=server.url), timeout=20)
    try:
        await controller.subscribe(wire.Names().control("functions"), cb=hear)
        await controller.flush()
        async with Client.connect(ConnectionOptions(url=server.url), timeout=20) as client:
            copy = CatalogCopy(client)
            earlier, later = [await refreshing(copy, number) for number in (1, 2)]
            await asked[1].respond(_catalog("new"))
            await later
            assert (copy.present.catalog, copy.problem) == ("new", None)
            await asked[0].respond(_catalog("old"))
            await earlier
            assert (copy.present.catalog, copy.problem) == ("new", None)
            last = await refreshing(copy, 3)
            await asked[2].respond(_catalog("newest"))
            await last
            assert copy.present.catalog == "newest"
    finally:
        await controller.close()


def _catalog(version: str) -> bytes:
    return json.dumps({"catalog": version, "engine": "local", "functions": []}).encode()
