"""Bytes that no well-behaved client sends: they must not keep anybody's events from being read."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nats.aio.client import Client as NatsClient
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from invoker import wire
from invoker.nats_server import NatsServer
from tests.conftest import eventually
from tests.integration.controller import controller, write_functions

NAMES = wire.Names()


async def _send_raw(port: int, commands: bytes) -> None:
    """What a client of the wire protocol may send without any library in between."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + commands + b"PING\r\n")
    while await reader.readline() != b"PONG\r\n":
        pass
    writer.close()


async def _first_dead_letter(client: NatsClient) -> RawStreamMsg | None:
    try:
        return await client.jetstream().get_msg(NAMES.dead_stream, 1)
    except NotFoundError:
        return None


def _hpub(subject: bytes, headers: bytes, data: bytes) -> bytes:
    block = b"NATS/1.0\r\n" + headers + b"\r\n\r\n"
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(block), len(block) + len(data), block, data)


async def test_a_subject_that_is_no_utf8_becomes_a_dead_letter_and_stops_nobody(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    write_functions(tmp_path / "functions", {"echo": "subscriptions: [{topic: 'hello.*'}]\ncommand: [echo, hi]"})
    async with controller(server.url, tmp_path / "functions", tmp_path / "state"):
        await _send_raw(server.port, b"PUB events.hello.\xff\xfe 1\r\n1\r\n")
        reply = await client.request(NAMES.call_topic("hello.after"), b"2", timeout=60)
        assert reply.headers is not None
        assert reply.headers[wire.H_STATE] == "succeeded"

        letter = await eventually(lambda: _first_dead_letter(client), what="the dead letter")
        assert b'"reason":"invalid-topic"' in (letter.data or b"")
        assert rb"hello.\\xff\\xfe" in (letter.data or b"")


async def test_headers_that_are_no_utf8_or_no_headers_still_become_runs(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    write_functions(tmp_path / "functions", {"echo": "subscriptions: [{topic: 'hello.*'}]\ncommand: [echo, hi]"})
    async with controller(server.url, tmp_path / "functions", tmp_path / "state"):
        strange = [b"X-Bad: \xff\xfe", b"no colon here", b"X-Twice: 1\r\nX-Twice: 2", "X-Accent: é".encode()]
        await _send_raw(server.port, b"".join(_hpub(b"events.hello.x", header, b"1") for header in strange))

        async def results() -> bool:
            info = await client.jetstream().stream_info(NAMES.results_stream, subjects_filter=NAMES.result("*", "*"))
            return len(info.state.subjects or {}) == len(strange)

        async def none_is_left() -> bool:
            return (await client.jetstream().stream_info(NAMES.events_stream)).state.messages == 0

        await eventually(results, what="one result per event")
        await eventually(none_is_left, what="the ack of every event")  # it may come after the result of its run


async def test_a_message_in_runs_that_is_no_run_is_dropped(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    write_functions(tmp_path / "functions", {"echo": "subscriptions: [{topic: 'hello.*'}]\ncommand: [echo, hi]"})
    async with controller(server.url, tmp_path / "functions", tmp_path / "state"):
        js = client.jetstream()
        forged = b'{"run_id":"abc","request_id":"r","function":"echo"}'
        for number, body in enumerate([b"garbage", b"{}", forged]):
            await js.publish(NAMES.run("echo", f"forged{number}"), body)

        async def empty() -> bool:
            return (await js.stream_info(NAMES.runs_stream)).state.messages == 0

        await eventually(empty, what="an empty queue")
        reply = await client.request(NAMES.call_topic("hello.after"), b"2", timeout=60)
        assert (reply.headers or {})[wire.H_STATE] == "succeeded"
