"""A whole installation in the test's event loop: nats-server, controller with the local engine, gateway on a socket.

The functions are bash scripts where it does not matter (a run takes some 20 ms), Python where the event is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.errors import ServerUnreachableError
from invoker.gateway.app import RunningGateway, run_gateway
from invoker.gateway.gateway import Gateway
from invoker.gateway.settings import load_gateway_settings
from invoker.nats_server import NatsServer, nats_server
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import function, write_catalog
from trigger.app import Running

RUN_TOKEN_KEY = "a key that only tests know"
ACCEPT_SECONDS = 20.0
"""How long a publish waits for the list of its runs: a second, as by default, is little on a machine that is busy with
other tests."""
INPUT = 'cat "$INVOKER_INPUT_FILE"'
FILE: dict[str, Any] = {"input": {"as": "file"}, "output": {"from": "stdout"}}
MIRROR = """
import base64
import json


def handle(event, context):
    data = event["data"]
    raw = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
    return {
        "topic": event["topic"],
        "type": event["event-type"],
        "headers": dict(event["headers"]),
        "params": dict(event["params"]),
        "data_base64": base64.b64encode(raw).decode(),
    }
"""
ORDER_SCHEMA = {
    "$defs": {"item": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
    "type": "object",
    "required": ["number", "items"],
    "properties": {
        "number": {"type": "integer", "minimum": 1},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
}


def standard_catalog(gates: Path) -> list[dict[str, Any]]:
    """The functions of a stack. `gate` waits until `Stack.open_gate` lets its request through."""
    python = {"command": None, "runtime": "python", "handler": "main.handle"}
    documents = [
        function("echo", "echo.>", INPUT, **FILE),
        function("mirror", "mirror.>", "", code=MIRROR, description="Tells what it was given", **python),
        function("fail", "fail.>", "echo no good >&2; exit 7"),
        function(
            "gate", "gate.>", f'while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done; {INPUT}',
            env=[{"name": "GATES", "value": str(gates)}], **FILE,
        ),
        function("pair-a", "pair.*", f"printf 'a '; {INPUT}", **FILE),
        function("pair-b", "pair.*", f"printf 'b '; {INPUT}", **FILE),
        function("half-good", "half.*", INPUT, **FILE),
        function("half-bad", "half.*", "exit 3"),
        function(
            "order", "orders.*", INPUT, input={"as": "file", "schema": ORDER_SCHEMA}, output={"from": "stdout"},
            description="Takes an order", labels={"team": "sales"},
            parameters=[
                {"name": "level", "schema": {"type": "integer", "minimum": 1, "maximum": 9}, "default": 6},
                {"name": "note", "schema": {"type": "string"}},
            ],
        ),
        function(
            "bytes", "bytes.*", 'head -c "$SIZE" /dev/zero', output={"from": "stdout"},
            env=[{"name": "SIZE", "value": "{{params.size}}"}],
            parameters=[{"name": "size", "schema": {"type": "integer", "minimum": 0}, "default": 10}],
        ),
        function("first", "chain.begin", INPUT, onSuccess={"publish": "chain.end"}, **FILE),
        function("second", "chain.end", f"printf 'second '; {INPUT}", **FILE),
    ]  # fmt: skip
    for document in documents:
        spec = document["spec"]
        labels = spec.pop("labels", None)
        if labels:
            document["metadata"]["labels"] = labels
        if spec.get("command", "") is None:
            del spec["command"]
    return documents


@dataclass(frozen=True)
class Stack:
    """What runs: the server, the controller, the gateway and where it listens. `catalog` is the functions' folder."""

    server: NatsServer
    controller: Running
    gateway: Gateway
    url: str
    probe_url: str
    catalog: Path
    gates: Path

    @property
    def client(self) -> Client:
        """The gateway's own client; a test may ask with it what HTTP does not tell."""
        return self.gateway.client

    def open_gate(self, request_id: str) -> None:
        """Let the run of `gate` for that request end."""
        (self.gates / request_id).touch()

    async def knows(self, *functions: str) -> None:
        """When this returns the gateway's copy of the catalog has these functions."""

        async def known() -> bool:
            await self.gateway.catalog.refresh()
            return all(self.gateway.catalog.function(name) for name in functions)

        await eventually(known, what=f"{', '.join(functions)} in the gateway's catalog")


@asynccontextmanager
async def running_gateway(nats_url: str, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway that takes calls while this is entered, and follows what is stored where there are streams. Ports are
    free ones; everything is allowed unless set."""
    given = {
        "gateway_port": 0,
        "gateway_probe_port": 0,
        "gateway_accept_seconds": ACCEPT_SECONDS,
        "gateway_anonymous": ("admin",),
        "run_token_key": RUN_TOKEN_KEY,
    }
    stopping = asyncio.Event()
    ready: asyncio.Future[RunningGateway] = asyncio.get_running_loop().create_future()
    chosen = load_gateway_settings({}, **(given | settings))
    task = asyncio.create_task(
        run_gateway(chosen, ConnectionOptions(url=nats_url), ready=ready.set_result, stopping=stopping)
    )
    either: list[asyncio.Future[Any]] = [task, ready]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        await _follows(ready.result().gateway.client)
        yield ready.result()
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)


async def _follows(client: Client) -> None:
    """When this returns that client's feed follows, unless there is nothing to follow: no controller made streams."""
    try:
        await client.feed.kept()
    except ServerUnreachableError:
        return
    await client.feed.live()


@asynccontextmanager
async def running_stack(
    folder: Path,
    *,
    functions: Sequence[Mapping[str, Any]] | None = None,
    server: NatsServer | None = None,
    controller: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Stack]:
    """A whole installation below `folder`; `settings` are the gateway's, `controller` the controller's.

    A `server` that is given is not stopped (a test that stops and starts one brings its own).
    """
    gates = folder / "gates"
    gates.mkdir(parents=True, exist_ok=True)
    catalog = write_catalog(folder / "catalog", *(standard_catalog(gates) if functions is None else functions))
    async with AsyncExitStack() as stack:
        if server is None:
            server = await stack.enter_async_context(nats_server(folder / "jetstream"))
        given = {"run_token_key": RUN_TOKEN_KEY} | dict(controller or {})
        running = await stack.enter_async_context(running_controller(server.url, catalog, folder / "state", **given))
        up = await stack.enter_async_context(running_gateway(server.url, **settings))
        whole = Stack(server, running, up.gateway, up.url, up.probe_url, catalog, gates)
        await whole.knows(*(str(one["metadata"]["name"]) for one in functions or standard_catalog(gates)))
        yield whole


@asynccontextmanager
async def session(url: str, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP to a gateway: paths are relative to its URL, cookies are not kept, 4xx and 5xx are answers like others."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar(), **options) as client:
        yield client
