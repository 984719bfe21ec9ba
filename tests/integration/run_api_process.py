"""A run API in a process of its own, so that its memory can be measured: `python -m … NATS_URL`, prints its address."""

from __future__ import annotations

import asyncio
import sys

from invoker.connection import ConnectionOptions, connect
from tests.integration.run_world import run_world


async def main(url: str) -> None:
    client = await connect(ConnectionOptions(url=url))
    async with run_world(client) as world:
        print(world.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
