"""All that each role of NATS has to do, done once with an identity of its own: tests/gateway/test_nats_roles.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.app import run_gateway
from invoker.gateway.settings import load_gateway_settings
from tests.conftest import eventually
from tests.controllers import fast_settings
from tests.custody.workload import write_catalog
from tests.gateway.stack import ACCEPT_SECONDS, RUN_TOKEN_KEY, session, standard_catalog
from trigger.app import run_controller

LARGE = b"x" * 1_000_000
"""Above the claim threshold, in either direction."""


@asynccontextmanager
async def installation(options: Mapping[str, ConnectionOptions], folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """A controller and a gateway under their own identities; gives the gateway's URL and the folder of gates."""
    gates = folder / "gates"
    gates.mkdir()
    catalog = write_catalog(folder / "catalog", *standard_catalog(gates))
    settings = fast_settings(catalog, folder / "state", run_token_key=RUN_TOKEN_KEY)
    given: dict[str, Any] = {"gateway_port": 0, "gateway_probe_port": 0, "gateway_anonymous": ("admin",)}
    chosen = load_gateway_settings({}, run_token_key=RUN_TOKEN_KEY, gateway_accept_seconds=ACCEPT_SECONDS, **given)
    stopping, up = asyncio.Event(), asyncio.Queue[Any]()
    controller = asyncio.create_task(
        run_controller(settings, options["controller"], ready=up.put_nowait, stopping=stopping)
    )
    try:
        await _first(up, controller)
        gateway = asyncio.create_task(run_gateway(chosen, options["gateway"], ready=up.put_nowait, stopping=stopping))
        try:
            running = await _first(up, gateway)

            async def known() -> bool:
                await running.gateway.catalog.refresh()
                return running.gateway.catalog.function("echo") is not None

            await eventually(known, what="the catalog at the gateway")
            yield running.url, gates
        finally:
            stopping.set()
            await asyncio.wait({gateway}, timeout=60)
    finally:
        stopping.set()
        await asyncio.wait({controller}, timeout=60)


async def _first(up: asyncio.Queue[Any], task: asyncio.Task[None]) -> Any:
    waiting = asyncio.create_task(up.get())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    return await waiting


async def publish(options: ConnectionOptions) -> tuple[str, str]:
    """What a publisher does; returns the ids of a request whose reply it got, and of one with a large body."""
    async with Client.connect(options) as client:
        replies = await client.request("chain.begin", b"hello", timeout=60)
        assert [await reply.read() for reply in replies] == [b"hello"]
        large = await client.request("echo.large", LARGE[:400_000], timeout=60)
        assert await large[0].read() == LARGE[:400_000]
        stored = await client.publish("echo.large", LARGE)
    raw = await connect(options)
    try:
        answer = await raw.request("invoker.call.topic.echo.raw", b"raw", timeout=60)
        assert answer.data == b"raw"
        await raw.jetstream().publish("events.echo.js", b"x", headers={"Invoker-Reply-To": "$JS.ACK.evil"})
    finally:
        await raw.close()
    return replies[0].request_id, stored.request_id


async def look(options: ConnectionOptions, answered: str, large_one: str) -> None:
    """What a viewer does, after `publish`."""
    async with Client.connect(options) as client:
        view = await client.result(answered, wait=60)
        result = view.results[0]
        assert await client.output(result) == b"hello"
        assert await client.input(answered) == b"hello"
        large = (await client.result(large_one, wait=60)).results[0]
        assert await client.output(large) == LARGE
        assert await client.input(large_one) == LARGE
        assert (await client.chain(answered, wait=60)).root.view.request_id == answered
        assert len(await client.runs(limit=100)) >= 3
        assert await client.run(result.run_id)
        assert (await client.functions()).function("echo")
        assert await client.explain("echo.a")
        assert [line async for line in client.logs(large.run_id)] == []
        assert await eventually(client.dead, what="the letter of the event that was published last")
        assert (await client.dead_letter((await client.dead())[0].id)).reason

        feed = asyncio.create_task(client.feed.run())
        await asyncio.wait_for(client.feed.live(), 60)
        feed.cancel()


async def serve(http: aiohttp.ClientSession, gates: Path) -> None:
    """What a gateway does for its callers."""

    async def call(method: str, path: str, data: Any = None, **headers: str) -> Any:
        async with http.request(method, path, data=data, headers=headers) as answer:
            body = await answer.read()
            assert answer.status < 300, (method, path, answer.status, body[:500])
            return json.loads(body) if answer.content_type == "application/json" else body

    await call("POST", "/v1/topics/echo.gateway?wait=60", LARGE)
    accepted = await call("POST", "/v1/topics/chain.begin", b"hello")
    request_id = accepted["request_id"]
    view = await call("GET", f"/v1/requests/{request_id}?wait=60")
    run_id = view["runs"][0]["run_id"]
    assert await call("GET", f"/v1/runs/{run_id}/output") == b"hello"
    assert await call("GET", f"/v1/requests/{request_id}/input") == b"hello"
    await call("GET", f"/v1/requests/{request_id}/chain")
    await call("GET", f"/v1/runs/{run_id}")
    await call("GET", f"/v1/runs/{run_id}/logs")
    await call("GET", "/v1/runs?limit=100")
    await call("GET", "/v1/functions")
    await call("GET", "/v1/functions/echo")
    await call("POST", "/v1/explain", json.dumps({"topic": "echo.a"}), **{"Content-Type": "application/json"})
    await call("POST", "/v1/functions/echo/calls?wait=60", b"direct")
    await call("POST", "/v1/functions/echo/pause")
    await call("POST", "/v1/functions/echo/resume")
    await call("POST", "/v1/reload")
    await call("POST", f"/v1/requests/{request_id}/replay")
    letter = (await call("GET", "/v1/dead-letters"))["items"][0]["id"]
    await call("GET", f"/v1/dead-letters/{letter}")
    await call("GET", f"/v1/dead-letters/{letter}/body")
    await call("POST", f"/v1/dead-letters/{letter}/redrive")
    held = await call("POST", "/v1/topics/gate.x", b"x")
    await call("POST", f"/v1/requests/{held['request_id']}/cancel")
    async with http.get(f"/v1/requests/{request_id}/stream") as stream:
        assert stream.status == 200
        assert await stream.content.readline()


async def quiet(http: aiohttp.ClientSession) -> bool:
    """Whether no run is unfinished any more."""
    async with http.get("/v1/runs?limit=500") as answer:
        states = {item["state"] for item in (await answer.json())["items"]}
    return not states & {"queued", "starting", "running"}


async def everything(options: Mapping[str, ConnectionOptions], folder: Path) -> None:
    """Every role's work, with these identities."""
    async with installation(options, folder) as (url, gates):
        await look(options["viewer"], *await publish(options["publisher"]))
        async with session(url) as http:
            await serve(http, gates)
            await eventually(lambda: quiet(http), what="the end of all runs")
