"""What a caller may not do to the gateway's sockets: every case on a raw connection, and a good call after it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from invoker.gateway.http_protocol import ServerLimits
from invoker.gateway.http_server import http_server
from tests.conftest import eventually
from tests.gateway.access_world import Wire, wire_to
from tests.gateway.stack import Stack, running_gateway, session

HEAD = b"POST /v1/topics/echo.raw HTTP/1.1\r\nHost: localhost\r\n"
SHORT = 0.6
"""Seconds that heads and bodies have at the gateway of these tests."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(stack: Stack) -> AsyncIterator[str]:
    """A gateway with little patience."""
    given = {"gateway_header_seconds": SHORT, "gateway_body_seconds": SHORT, "max_event_bytes": 200_000}
    async with running_gateway(stack.server.url, **given) as running:
        yield running.url


async def works(url: str) -> bool:
    async with session(url) as http, http.post("/v1/topics/echo.fine", data=b"fine") as answer:
        return answer.status == 202


def problem_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert document["status"] == status
    return status, document["code"]


REFUSED_HEADS: dict[str, tuple[bytes, int]] = {
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "two lengths in one": (HEAD + b"Content-Length: 3, 4\r\n\r\nabcd", 400),
    "a length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and a length": (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "another encoding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunks with a space in front": (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "a length with a sign": (HEAD + b"Content-Length: +3\r\n\r\nabc", 400),
    "a length in words": (HEAD + b"Content-Length: three\r\n\r\nabc", 400),
    "a header with NUL": (HEAD + b"X-A: a\x00b\r\n\r\n", 400),
    "a header with a lone CR": (HEAD + b"X-A: a\rX-B: b\r\n\r\n", 400),
    "a folded first header": (b"POST / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "a header without a colon": (HEAD + b"just words\r\n\r\n", 400),
    "no host": (b"POST /v1/topics/echo.raw HTTP/1.1\r\n\r\n", 400),
    "two hosts": (HEAD + b"Host: evil.example\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a space in the address": (b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "bytes in the address": (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a long address": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "a long header": (HEAD + b"X-A: " + b"a" * 64_000 + b"\r\n\r\n", 431),
    "a header that never ends": (HEAD + b"X-A: " + b"a" * 64_000, 431),
    "101 headers": (HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(100)) + b"\r\n", 431),
    "10,000 headers": (HEAD + b"A:\r\n" * 10_000 + b"\r\n", 431),
    "a websocket": (HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_HEADS)
async def test_a_head_of_two_minds_or_without_end_is_refused_and_the_connection_closed(url: str, what: str) -> None:
    said, status = REFUSED_HEADS[what]
    async with wire_to(url) as wire:
        await wire.say(said)
        answer = await wire.answer()
        assert problem_of(answer)[0] == status
        assert answer[1]["connection"] == "close"
        assert await wire.rest() == b"", "nothing else is answered on it"
    assert await works(url)


async def test_a_second_call_hidden_in_the_body_of_a_refused_one_is_not_made(url: str, stack: Stack) -> None:
    hidden = b"POST /v1/topics/echo.smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    async with wire_to(url) as wire:
        await wire.say(HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
        assert problem_of(await wire.answer())[0] == 400
        assert await wire.rest() == b""
    assert await works(url)
    assert "echo.smuggled" not in {row.topic for row in await stack.client.runs(limit=500)}


async def test_calls_on_one_connection_one_behind_the_other_are_all_answered(url: str) -> None:
    one = HEAD + b"Content-Length: 1\r\n\r\nx"
    async with wire_to(url) as wire:
        await wire.say(one * 3 + HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx")
        assert [(await wire.answer())[0] for _ in range(4)] == [202] * 4


async def test_a_slow_head_is_answered_408(url: str) -> None:
    began = time.monotonic()
    async with wire_to(url) as wire:
        for _ in range(3):
            await wire.say(b"X" * 10)  # dripping does not help
            await asyncio.sleep(SHORT / 4)
        assert problem_of(await wire.answer()) == (408, "head-slow")
        assert await wire.rest() == b""
    assert SHORT * 0.9 < time.monotonic() - began < 50


async def test_a_connection_that_asks_nothing_is_closed(url: str) -> None:
    async with wire_to(url) as wire:
        assert await wire.rest() == b""


async def test_a_second_head_has_its_own_time(url: str) -> None:
    async with wire_to(url) as wire:
        for _ in range(3):
            await wire.say(HEAD + b"Content-Length: 1\r\n\r\nx")
            assert (await wire.answer())[0] == 202
            await asyncio.sleep(SHORT * 0.6)  # an idle connection is not a slow head
        await wire.say(HEAD)
        assert problem_of(await wire.answer()) == (408, "head-slow")


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n\r\nbegun", b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
     b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"],
    ids=["length", "chunked", "expect"],
)  # fmt: skip
async def test_a_body_that_stops_in_the_middle_is_answered_408(url: str, head: bytes) -> None:
    async with wire_to(url) as wire:
        await wire.say(HEAD + head)
        answer = await wire.answer()
        if answer[0] == 100:
            answer = await wire.answer()
        assert problem_of(answer) == (408, "body-silent")
        assert await wire.rest() == b""
    assert await works(url)


async def test_a_wait_with_a_body_that_never_comes_is_answered_408(url: str) -> None:
    async with session(url) as http, http.post("/v1/topics/gate.silent", data=b"x") as answer:
        path = (await answer.json())["url"]
    async with wire_to(url) as wire:
        await wire.say(f"GET {path}?wait=7 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n".encode())
        assert problem_of(await wire.answer()) == (408, "body-silent")


@pytest.mark.parametrize("body", [b"zz\r\n", b"5;" + b"x" * 70_000, b"5\r\nabcdefgh\r\n"])
async def test_broken_chunks_end_the_call(url: str, body: bytes) -> None:
    async with wire_to(url) as wire:
        await wire.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert (await wire.answer())[0] in (400, 431)
        assert await wire.rest() == b""
    assert await works(url)


async def test_who_sends_too_much_reads_the_refusal_while_still_sending(url: str) -> None:
    async with wire_to(url) as wire:
        await wire.say(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * 1000)
        assert problem_of(await wire.answer())[0] == 413
        await wire.say(b"x" * 2_999_000)
        await wire.say(HEAD + b"Content-Length: 1\r\n\r\nx")
        assert (await wire.answer())[0] == 202, "the rest of the body was left out, and the connection goes on"


async def test_an_encoded_body_is_not_unpacked(url: str) -> None:
    async with wire_to(url) as wire:
        await wire.say(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
        assert problem_of(await wire.answer()) == (415, "unsupported-content")


async def test_connections_above_the_limit_are_answered_503(stack: Stack) -> None:
    async with running_gateway(stack.server.url, gateway_max_connections=3) as running, AsyncExitStack() as exits:
        inside = [await exits.enter_async_context(wire_to(running.url)) for _ in range(3)]
        call = HEAD + b"Content-Length: 1\r\n\r\nx"
        for wire in inside:
            await wire.say(call)
            assert (await wire.answer())[0] == 202
        outside = await exits.enter_async_context(wire_to(running.url))
        await outside.say(call)
        answer = await outside.answer()
        assert problem_of(answer) == (503, "too-many-connections")
        assert answer[1]["retry-after"] == "1"
        assert await outside.rest() == b""
        silent = await exits.enter_async_context(wire_to(running.url))
        assert await silent.rest() == b"", "and who says nothing is not kept"
        await inside[1].say(call)
        assert (await inside[1].answer())[0] == 202, "those inside do not feel it"
        inside[0].writer.close()

        async def room() -> bool:
            async with wire_to(running.url) as wire:
                await wire.say(call)
                return (await wire.answer())[0] == 202

        assert await eventually(room, what="room for another connection")


async def test_200_slow_heads_do_not_keep_anybody_out(url: str, http: aiohttp.ClientSession) -> None:
    async def slow(wires: list[Wire], exits: AsyncExitStack) -> None:
        wire = await exits.enter_async_context(wire_to(url))
        await wire.say(HEAD)
        wires.append(wire)

    async with AsyncExitStack() as exits:
        wires: list[Wire] = []
        await asyncio.gather(*(slow(wires, exits) for _ in range(200)))
        began = time.monotonic()
        assert await works(url)
        assert time.monotonic() - began < 50
        assert {problem_of(await wire.answer())[0] for wire in wires} == {408}


async def test_an_answer_that_nobody_reads_is_broken_off() -> None:
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while (await asyncio.wait_for(receive(), 0.001))["type"] != "http.disconnect":
                pass
        except TimeoutError:
            pass
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    limits = ServerLimits(silent_seconds=0.3)
    async with http_server(endless, "127.0.0.1", 0, "PORT", limits) as url, wire_to(url) as wire:
        await wire.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            await ended.wait()
