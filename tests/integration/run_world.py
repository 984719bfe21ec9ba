"""A run API with everything real behind and before it: nats-server, streams, uvicorn on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from nats.aio.client import Client as NatsClient
from starlette.applications import Starlette

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.gateway.run_api import RunApi
from invoker.publish import EventPublisher
from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Result
from invoker.results.nats import ResultStream
from invoker.streams import StreamLimits, ensure_streams
from tests.custody.mortal_server import MortalServer, mortal_server

KEY = b"the key of this test"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Run:
    """One accepted run, as a controller would have made it."""

    world: RunWorld
    address: RunAddress
    record: RequestRecord

    @property
    def run_id(self) -> str:
        return self.address.run_id

    @property
    def url(self) -> str:
        return run_url(self.world.base_url, self.address)

    @property
    def token(self) -> str:
        return run_token(KEY, self.address)

    async def call(
        self, method: str, what: str, body: Any = None, *, pod: str = "pod-1", token: str | None = None, **headers: str
    ) -> Answer:
        """One call of the run API through the standard library's client, in a thread of its own."""
        sent = {"Authorization": f"Bearer {token or self.token}", wire.H_POD_UID: pod}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await asyncio.to_thread(ask, method, f"{self.url}/{what}", body, sent)

    async def result(self) -> Result | None:
        return await self.world.results.result(self.address.request_id, self.address.function)

    async def finish(self, result: Result) -> bool:
        return await self.world.results.put_result(result)


@dataclass
class RunWorld:
    """Custody on a real server, and the run API in front of it."""

    client: NatsClient
    names: wire.Names
    results: ResultStream
    claims: ClaimStore
    publisher: EventPublisher
    api: RunApi
    base_url: str = ""
    _count: int = field(default=0)

    async def accept(
        self,
        body: bytes | Content = b"",
        *,
        function: str = "convert",
        request_id: str | None = None,
        topic: str = "orders.created",
        content_type: str | None = None,
        ticket: bool = True,
        **record: Any,
    ) -> Run:
        """A run as accept leaves it: its request's record, and its message in the queue."""
        self._count += 1
        request_id = request_id or f"request-{self._count}"
        content = body if isinstance(body, Content) else Content.inline(body, content_type)
        now = datetime.now(UTC)
        document = RequestRecord(
            **{
                "request_id": request_id,
                "topic": topic,
                "received_at": now,
                "accepted_at": now,
                "sha256": wire.sha256_hex(content.inline_bytes() or b"") if not content.claim else content.claim.sha256,
                "catalog": "c1",
                "functions": (function,),
                "root_request_id": request_id,
                "body": content,
            }
            | record
        )
        await self.results.put_record(document)
        address = RunAddress(request_id, function, "spec-1", "c1", "local", None)
        if ticket:
            await self.results.put_ticket(RunTicket(run_id=address.run_id, request_id=request_id, function=function))
        return Run(self, address, document)

    async def events(self) -> list[Any]:
        """Everything in the events stream, in order."""
        jetstream = self.client.jetstream()
        info = await jetstream.stream_info(self.names.events_stream)
        found = []
        for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
            found.append(await jetstream.get_msg(self.names.events_stream, sequence))
        return found


async def stored_objects(world: RunWorld) -> int:
    """How many messages the payloads take: chunks, and what tells of them."""
    info = await world.client.jetstream().stream_info(f"OBJ_{world.names.payloads_bucket}")
    return int(info.state.messages)


@asynccontextmanager
async def run_world(
    client: NatsClient,
    *,
    limits: StreamLimits | None = None,
    max_output_bytes: int = 256 * 1024 * 1024,
    host: str = "127.0.0.1",
    **api: Any,
) -> AsyncIterator[RunWorld]:
    """A run API served by uvicorn on loopback, or on the address that pods reach, over that connection.

    `timeout` is how long the run API waits for an answer of NATS; the world that makes its runs has more patience.
    """
    names, jetstream, patient = wire.Names(), client.jetstream(timeout=api.pop("timeout", 5)), client.jetstream()
    await ensure_streams(patient, names, limits or StreamLimits())
    claims = ClaimStore(jetstream, names)
    publisher = EventPublisher(client, jetstream, claims, names)
    run_api = RunApi(
        ResultStream(client, jetstream, names), claims, publisher, key=KEY, max_output_bytes=max_output_bytes, **api
    )
    world = RunWorld(
        client, names, ResultStream(client, patient, names), ClaimStore(patient, names), publisher, run_api
    )
    async with served(run_api, host=host) as base_url:
        world.base_url = base_url
        yield world


@asynccontextmanager
async def mortal_run_world(folder: Path) -> AsyncIterator[tuple[MortalServer, RunWorld]]:
    """A run API that soon says when NATS does not answer, and a server of its own that may be stopped and started."""
    async with mortal_server(folder) as server:
        client = await connect(ConnectionOptions(url=server.url), keep_trying=True)
        try:
            async with run_world(client, timeout=0.3) as world:
                yield server, world
        finally:
            await client.close()


@asynccontextmanager
async def served(run_api: RunApi, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The run API on that address, ready when this is entered."""
    # The protocol must be said: asyncio turns Nagle's algorithm off for sockets that name TCP only, and an answer of
    # two writes takes 40 ms with it.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    config = uvicorn.Config(
        Starlette(routes=run_api.routes()),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


def ask(
    method: str, url: str, body: bytes | Iterable[bytes] | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """One HTTP request through the standard library's client: nothing of ours on this side."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, parts.path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()


Check = Callable[[str, str, bytes, str | None], list[dict[str, Any]]]
