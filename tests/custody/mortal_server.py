"""A nats-server that can be killed and started again: the same store, the same port."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from invoker.nats_server import NatsServer, nats_server
from tests.ports import lasting_port


class MortalServer:
    """Up after `start`, dead after `kill`; made by `mortal_server`."""

    def __init__(self, store: Path, **options: Any) -> None:
        self._store = store
        self._options = options
        self._stack = AsyncExitStack()
        self._port = lasting_port()
        self.running: NatsServer | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self.running = await self._stack.enter_async_context(nats_server(self._store, port=self._port, **self._options))

    async def kill(self) -> None:
        """SIGKILL: what was not written yet is lost."""
        if self.running is not None:
            os.kill(self.running.pid, signal.SIGKILL)
        await self.stop()

    async def stop(self) -> None:
        self.running = None
        await self._stack.aclose()


@asynccontextmanager
async def mortal_server(store: Path, **options: Any) -> AsyncIterator[MortalServer]:
    server = MortalServer(store, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
