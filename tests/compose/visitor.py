"""Who uses an installation by its gateway: `python -m tests.compose.visitor URL KEY_FILE NAME COUNT`.

Publishes COUNT events on `slow`, each until it has been acknowledged, and says so line by line; then waits until the
chain of each has settled, and prints what became of all of them. Runs where the published ports are.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from invoker.errors import InvokerError, ServerUnreachableError, WaitExpiredError
from invoker.http.client import HttpClient
from invoker.http.settings import GatewayOptions
from invoker.views import Chain

T = TypeVar("T")
WITHIN_SECONDS = 150.0


async def main(url: str, key_file: str, name: str, count: int) -> None:
    key = Path(key_file).read_text()
    async with asyncio.timeout(WITHIN_SECONDS), HttpClient(GatewayOptions(url, key)) as client:
        ids = []
        for number in range(count):
            ids.append(await published(client, f"{name}-{number}", str(number)))
            print(f"published {number}", flush=True)
        chains = await asyncio.gather(*(settled(client, one) for one in ids))
        stages = [sorted((run.function, str(run.state)) for run in chain.runs) for chain in chains]
        results = [run.result for chain in chains for run in chain.runs if run.result is not None]
        outputs = [await insisted(lambda result=result: client.output(result)) for result in results]
        print(json.dumps({"ids": ids, "stages": stages, "outputs": [one.decode() for one in outputs]}), flush=True)


async def published(client: HttpClient, request_id: str, data: str) -> str:
    """The id of the accepted event; sent again, as the same one, as long as nobody acknowledges it."""
    while True:
        try:
            return (await client.publish("slow", data, request_id=request_id)).request_id
        except ServerUnreachableError:
            await asyncio.sleep(0.1)


async def settled(client: HttpClient, request_id: str) -> Chain:
    """The chain once nothing more can come of it."""
    return await insisted(lambda: client.chain(request_id, wait=WITHIN_SECONDS))


async def insisted(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again as long as nobody gives one."""
    while True:
        try:
            return await ask()
        except WaitExpiredError:
            raise
        except InvokerError:  # whoever is asked has just been killed
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
