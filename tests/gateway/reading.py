"""What the tests of reading over HTTP share: publishing, waiting for documents, and reading event streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from invoker import wire
from invoker.client import Client
from tests.integration.stored_world import StoredWorld

Document = dict[str, Any]


async def publish(http: aiohttp.ClientSession, topic: str, data: bytes = b"x", **headers: str) -> str:
    """Publish an event; the id of its request."""
    async with http.post(f"/v1/topics/{topic}", data=data, headers=headers or None) as answer:
        document = await answer.json()
        assert answer.status == 202, document
    return str(document["request_id"])


async def get(http: aiohttp.ClientSession, path: str, status: int = 200, **headers: str) -> Document:
    """The document at that path, which must be answered with that status."""
    async with http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        text = await answer.text()
        assert answer.status == status, (path, answer.status, text[:500])
    document: Document = json.loads(text)
    return document


async def post(http: aiohttp.ClientSession, path: str, status: int, body: Any = None, **options: Any) -> Document:
    """The same for a POST; a `body` is sent as JSON."""
    if body is not None:
        options["data"] = json.dumps(body)
    async with http.post(path, **options) as answer:
        text = await answer.text()
        assert answer.status == status, (path, answer.status, text[:500])
    document: Document = json.loads(text)
    return document


async def finished(http: aiohttp.ClientSession, request_id: str) -> Document:
    """The request once all of its runs have finished."""
    document = await get(http, f"/v1/requests/{request_id}?wait=60")
    assert document["state"] in ("finished", "no-match"), document["state"]
    return document


def world_of(client: Client) -> StoredWorld:
    """Writing into the streams as a controller would, on that client's connection."""
    return StoredWorld.of(client._client, wire.Names())


@dataclass
class Event:
    """One server-sent event."""

    event: str = ""
    id: int | None = None
    data: Document = field(default_factory=dict)


@dataclass
class Events:
    """An open event stream, read event by event; comments are counted."""

    answer: aiohttp.ClientResponse
    comments: int = 0

    async def next(self, within: float = 60) -> Event | None:
        """The next event, None when the stream has ended."""
        async with asyncio.timeout(within):
            return await self._read()

    async def until(self, name: str, within: float = 60) -> list[Event]:
        """The events up to the first of that name, which is the last of the list."""
        found: list[Event] = []
        async with asyncio.timeout(within):
            while True:
                event = await self._read()
                assert event is not None, f"the stream ended before an event {name!r}: {found}"
                found.append(event)
                if event.event == name:
                    return found

    async def rest(self, within: float = 60) -> list[Event]:
        """All events until the stream ends."""
        found: list[Event] = []
        async with asyncio.timeout(within):
            while (event := await self._read()) is not None:
                found.append(event)
        return found

    async def _read(self) -> Event | None:
        event = Event()
        while line := (await self.answer.content.readline()).decode():
            name, _, value = line.rstrip("\n").partition(": ")
            match name:
                case "":
                    if event.event:
                        return event
                case ":":
                    self.comments += 1
                case "id":
                    event.id = int(value)
                case "event":
                    event.event = value
                case "data":
                    event.data = json.loads(value)
        return None


@asynccontextmanager
async def events(
    http: aiohttp.ClientSession, path: str, after: int | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Events]:
    """The event stream at that path, from the event with that id on."""
    given = dict(headers or {}) | ({"Last-Event-ID": str(after)} if after is not None else {})
    async with http.get(path, headers=given, timeout=aiohttp.ClientTimeout(total=None)) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield Events(answer)
