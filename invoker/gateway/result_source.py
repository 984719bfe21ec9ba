"""Which store a gateway's polls are answered from, and telling the caller so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invoker import wire
from invoker.ending import cancelled
from invoker.errors import SettingsError
from invoker.gateway.metrics import GatewayMetrics
from invoker.gateway.settings import GatewaySettings
from invoker.results.store import origin_noted

if TYPE_CHECKING:
    from invoker.client import Client
    from invoker.results.filling import Filler


@asynccontextmanager
async def chosen_results(settings: GatewaySettings, client: Client) -> AsyncIterator[Filler | None]:
    """The client reads from the store that the settings choose, which is filled meanwhile; gives what fills it.

    Raises `SettingsError` for an address that cannot be used; a store that is away is no error.
    """
    if settings.results == "nats":
        yield None
        return
    try:
        from invoker.results.redis import redis_results
    except ImportError as error:
        raise SettingsError(
            "INVOKER_RESULTS: the package redis is missing", hint="pip install '.[redis]' in the checkout of Invoker"
        ) from error
    from invoker.results.filling import Filler
    from invoker.results.redis_address import parse_address

    address = parse_address(settings.results, settings.results_ca)
    prefix = settings.results_prefix or f"{settings.instance}:"
    async with redis_results(address, prefix, client.custody.results) as store:
        filler = Filler(client.custody.reader, client.names, store)
        filling = asyncio.create_task(filler.run(), name="results-copy")
        client.read_results_from(store)
        try:
            yield filler
        finally:
            client.read_results_from(client.custody.results)
            await cancelled(filling)


class ToldSource:
    """Wraps the application: answers that came from a store say which, `Invoker-Results-From`."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with origin_noted() as origin:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start" and origin.name is not None:
                    MutableHeaders(scope=message)[wire.H_RESULTS_FROM] = origin.name
                    self._metrics.results_read.labels(origin.name).inc()
                await send(message)

            await self._app(scope, receive, told)
