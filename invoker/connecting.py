"""Making a client, in either way: awaited, or entered."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from invoker import settings, wire
from invoker.connection import ConnectionListener, ConnectionOptions, connect

if TYPE_CHECKING:
    from invoker.client import Client


class Connecting:
    """What `Client.connect` gives: await it for a client, or enter it for one that is closed at the end."""

    def __init__(
        self,
        options: ConnectionOptions | str | None,
        names: wire.Names | None,
        timeout: float,
        make: type[Client],
        listener: ConnectionListener | None = None,
    ) -> None:
        self._options = options
        self._names = names
        self._timeout = timeout
        self._make = make
        self._listener = listener
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connected().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._connected()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Client:
        options = self._options if self._options is not None else settings.client_options()
        if isinstance(options, str):
            options = ConnectionOptions(url=options)
        names = self._names or settings.instance_names()
        made: list[Client] = []

        async def listener(event: str) -> None:
            for client in made:
                await client._connection_event(event)
            if self._listener is not None:
                await self._listener(event)

        connection = await connect(options, timeout=self._timeout, listener=listener)
        made.append(self._make(connection, names, options))
        return made[0]
