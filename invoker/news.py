"""News of runs as they are sent, for live screens: lossy, never to decide from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import ServerUnreachableError
from invoker.request import RequestRecord
from invoker.result import RunStatusDocument

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.aio.msg import Msg

_KEPT = 10_000
"""News that nobody has taken yet; older ones give way."""


class RunNews:
    """Listens to statuses and records of one instance."""

    def __init__(self, client: NatsClient, names: wire.Names) -> None:
        self._client = client
        self._names = names

    async def watch(self) -> AsyncGenerator[RunStatusDocument | RequestRecord, None]:
        """Statuses of runs, and the records of requests that nothing matched, from now on."""
        queue: asyncio.Queue[Msg] = asyncio.Queue()

        async def arrived(message: Msg) -> None:
            if queue.qsize() >= _KEPT:
                queue.get_nowait()
            queue.put_nowait(message)

        subjects = (self._names.status("*"), self._names.accepted("*"))
        with nats_errors("listening for news"):
            subscriptions = [await self._client.subscribe(subject, cb=arrived) for subject in subjects]
            await self._client.flush()
        try:
            while not self._client.is_closed:
                news = _parsed(await queue.get(), self._names)
                if news is not None:
                    yield news
            raise ServerUnreachableError("the connection to NATS is closed")
        finally:
            for subscription in subscriptions:
                if not self._client.is_closed:
                    await asyncio.shield(subscription.unsubscribe())


def _parsed(message: Msg, names: wire.Names) -> RunStatusDocument | RequestRecord | None:
    try:
        if message.subject.startswith(names.status("")):
            return RunStatusDocument.model_validate_json(message.data)
        if wire.header(message.headers, wire.H_RUNS) == "0":
            return RequestRecord.model_validate_json(message.data)
    except ValueError:
        return None  # of a later version; news may be missed
    return None
