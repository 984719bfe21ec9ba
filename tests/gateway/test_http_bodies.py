"""Bodies that come too slowly, or too many at once; and connections of one address."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from io import BytesIO

import pytest

from invoker.errors import SettingsError
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.gateway.settings import load_gateway_settings
from tests.conftest import eventually
from tests.gateway.access_world import Wire, wire_to
from tests.gateway.stack import RUN_TOKEN_KEY, Stack, running_gateway, session

MIB = 1024**2
PAUSE, RATE = 3.0, 200.0
"""How long a body may pause at the gateway of these tests, and what it must bring in a second."""


def head(path: str, size: int, kind: str = "text/plain") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()


async def drip(wire: Wire, piece: bytes, pieces: int) -> None:
    for _ in range(pieces):
        await wire.say(piece)
        await asyncio.sleep(0.1)


async def test_a_body_that_trickles_is_answered_408_and_a_slow_one_is_taken(stack: Stack) -> None:
    async with running_gateway(stack.server.url, gateway_body_seconds=PAUSE, gateway_body_bytes_per_second=RATE) as up:
        async with wire_to(up.url) as wire:
            await wire.say(head("/v1/topics/echo.slow", 100))
            dripping = asyncio.create_task(drip(wire, b"x", 95))
            status, headers, body = await wire.answer()
            assert (status, json.loads(body)["code"], headers["connection"]) == (408, "body-silent", "close")
            assert "bytes in" in json.loads(body)["detail"], "told as too slow, not as silent"
            assert not dripping.done(), "it never paused for long"
            dripping.cancel()
        async with wire_to(up.url) as wire:
            await wire.say(head("/v1/topics/echo.slow", 20_000))
            await drip(wire, b"x" * 500, 40)  # four seconds, at far more than the least
            assert (await wire.answer())[0] == 202
        run = RunAddress(await publish_gated(stack), "gate")
        async with wire_to(up.url) as wire:
            token = f"Authorization: Bearer {run_token(RUN_TOKEN_KEY.encode(), run)}\r\n"
            put = head(f"{run_url('', run)}/output", 40).replace(b"Host:", f"{token}Host:".encode())
            await wire.say(put)
            await drip(wire, b"x", 40)
            assert (await wire.answer())[0] == 201, "a function's output may come as slowly as it is made"


async def publish_gated(stack: Stack) -> str:
    """A request whose run of `gate` nobody lets through."""
    receipt = await stack.client.publish("gate.x", b"x")

    async def there() -> bool:
        return bool((await stack.client.result(receipt.request_id)).runs)

    await eventually(there, what="an unfinished run")
    return receipt.request_id


async def test_what_all_bodies_hold_is_bounded_and_what_streams_counts_little(stack: Stack) -> None:
    structured, size = "application/cloudevents+json", 8 * MIB
    async with running_gateway(stack.server.url, gateway_max_held_bytes=32 * MIB) as up, AsyncExitStack() as opened:
        wires = [await opened.enter_async_context(wire_to(up.url)) for _ in range(3)]
        for wire in wires:
            await wire.say(head("/v1/events", size, structured) + b" " * (size - 1))
        async with session(up.url) as http, http.post("/v1/topics/echo.large", data=BytesIO(bytes(20 * MIB))) as answer:
            assert answer.status == 202, "it is never in memory as a whole"

        async def another() -> None:
            """A fourth is taken, too, once what the large one held is given back: just behind its answer."""
            wire = await opened.enter_async_context(wire_to(up.url))
            with suppress(TimeoutError, ConnectionError):  # it waits for its last byte, or is refused
                await wire.say(head("/v1/events", size, structured) + b" " * (size - 1))
                await wire.answer(1.0)

        async def refused() -> tuple[int, str | None, str]:
            async with session(up.url) as http, http.post("/v1/topics/echo.x", data=b"x" * 10) as answer:
                return answer.status, answer.headers.get("Retry-After"), (await answer.json()).get("code", "")

        async def full() -> bool:
            await another()
            return await refused() == (503, "1", "too-many-bytes")

        await eventually(full, what="a gateway that takes no more")
        async with session(up.url) as http, http.get("/v1/runs") as answer:
            assert answer.status == 200, "who brings nothing is served"
        await wires[0].say(b" ")
        assert (await wires[0].answer())[0] == 400, "blanks are no event"

        async def room() -> bool:
            return (await refused())[0] == 202

        await eventually(room, what="room, since what is over holds nothing")
        wires[1].writer.close()
        wires[2].writer.close()


async def test_connections_of_one_address_above_its_limit_are_answered_503(stack: Stack) -> None:
    async with AsyncExitStack() as opened:
        patient = {"gateway_address_connections": 2, "gateway_header_seconds": 300}
        up = await opened.enter_async_context(running_gateway(stack.server.url, **patient))
        idle = [await opened.enter_async_context(wire_to(up.url)) for _ in range(2)]

        async def status() -> int:
            async with wire_to(up.url) as wire:
                await wire.say(b"GET /v1/functions HTTP/1.1\r\nHost: localhost\r\n\r\n")
                status, _, body = await wire.answer()
            if status == 503:
                assert json.loads(body)["detail"].startswith("this address has as many connections")
            return status

        assert [await status() for _ in range(3)] == [503] * 3
        idle[0].writer.close()

        async def served() -> bool:
            return await status() == 200

        await eventually(served, what="a connection for the one that was closed")
        proxied = await opened.enter_async_context(
            running_gateway(stack.server.url, gateway_address_connections=1, gateway_trusted_proxies=("127.0.0.0/8",))
        )
        wires = [await opened.enter_async_context(wire_to(proxied.url)) for _ in range(3)]
        for wire in wires:
            await wire.say(b"GET /v1/functions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [(await wire.answer())[0] for wire in wires] == [200] * 3, "a proxy's are of many"


def test_less_than_some_bodies_can_hold_is_no_bound() -> None:
    with pytest.raises(SettingsError, match="INVOKER_GATEWAY_MAX_HELD_BYTES"):
        load_gateway_settings({}, gateway_max_held_bytes=1)
