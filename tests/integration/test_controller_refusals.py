"""What can never succeed ends: with a dead letter or an error, once, and without standing in anybody's way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import NatsServer, nats_server
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.integration.controller import controller, write_functions

NAMES = wire.Names()
ECHO = "subscriptions: [{topic: 'hello.*'}]\ncommand: [echo, hi]\noutput: {from: stdout}"


async def messages(client: NatsClient, stream: str) -> int:
    return (await client.jetstream().stream_info(stream)).state.messages


async def letters(client: NatsClient) -> list[dict[str, Any]]:
    count = await messages(client, NAMES.dead_stream)
    found = [await client.jetstream().get_msg(NAMES.dead_stream, number + 1) for number in range(count)]
    return [json.loads(one.data or b"{}") for one in found]


async def test_headers_that_fit_once_fit_at_every_stage(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """The largest headers an event may have, through three stages: each adds its own lineage to them."""
    write_functions(
        tmp_path / "f",
        {
            "one": ECHO + "\nonSuccess: {publish: stage.two}",
            "two": "subscriptions: [{topic: stage.two}]\ncommand: ['true']\nonSuccess: {publish: stage.three}",
            "three": "subscriptions: [{topic: stage.three}]\ncommand: ['true']",
        },
    )
    replies: list[Msg] = []

    async def take(message: Msg) -> None:
        replies.append(message)

    async with controller(server.url, tmp_path / "f", tmp_path / "state"):
        await client.subscribe("replies.big", cb=take)
        largest = {"X-Big": "x" * (wire.MAX_COPIED_HEADER_BYTES - len("X-Big") - 4)}
        headers = largest | {wire.H_REPLY_TO: "replies.big", wire.H_MESSAGE_ID: "big-headers"}
        await client.jetstream().publish(NAMES.event("hello.x"), b"1", headers=headers)

        async def three_results() -> bool:
            info = await client.jetstream().stream_info(NAMES.results_stream, subjects_filter=NAMES.result("*", "*"))
            return len(info.state.subjects or {}) == 3 and await messages(client, NAMES.runs_stream) == 0

        await eventually(three_results, what="three stages")
        assert await letters(client) == []
        assert len(replies) == 1


async def test_a_next_event_that_is_refused_is_a_dead_letter_and_the_run_ends(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """The stage's own parameters and the caller's headers together are too much: said once, replied once."""
    write_functions(tmp_path / "f", {"one": ECHO + "\nonSuccess: {publish: stage.two}"})
    async with controller(server.url, tmp_path / "f", tmp_path / "state", max_event_bytes=2):
        reply = await client.request(NAMES.call_topic("hello.x"), b"1", timeout=60)
        assert (reply.headers or {})[wire.H_STATE] == "succeeded"

        async def empty() -> bool:
            return await messages(client, NAMES.runs_stream) == 0

        await eventually(empty, what="the end of the run")
        (letter,) = await letters(client)
        assert (letter["reason"], letter["topic"]) == ("payload-too-large", "stage.two")


async def test_a_claim_check_that_is_none_is_a_dead_letter(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    write_functions(tmp_path / "f", {"echo": ECHO})
    async with controller(server.url, tmp_path / "f", tmp_path / "state"):
        claim = await ClaimStore(client.jetstream(), NAMES).put(b"bytes", owner="event")
        for number, wrong in enumerate(["z" * 64, "A" * 64, "", "0" * 63]):
            text = json.dumps({"object": claim.object, "bytes": 5, "sha256": wrong})
            headers = {wire.H_CLAIM: text, wire.H_MESSAGE_ID: f"claim-{number}"}
            await client.jetstream().publish(NAMES.event("hello.x"), text.encode(), headers=headers)

        async def buried() -> bool:
            return len(await letters(client)) == 4

        await eventually(buried, what="four dead letters")
        assert {letter["reason"] for letter in await letters(client)} == {"claim-check"}

        async def none_is_left() -> bool:
            return await messages(client, NAMES.events_stream) == 0

        await eventually(none_is_left, what="the ack of every event")  # it comes after the letter


async def test_a_wrong_sha256_of_a_publisher_does_not_spoil_the_object(server: NatsServer, client: NatsClient) -> None:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
    claims = ClaimStore(client.jetstream(), NAMES)
    claim = await claims.put(b"bytes", owner="event")
    await claims.touch(claim.model_copy(update={"sha256": "0" * 64}))
    stored = await client.jetstream().object_store(NAMES.payloads_bucket)
    assert (await stored.get(claim.object)).data == b"bytes", "the library checks the digest in the object's meta"


async def test_every_size_passes_where_messages_are_small(tmp_path: Path) -> None:
    """A record holds the body as base64: at 512 KiB per message an event of 440 kB needs a claim check there."""
    write_functions(tmp_path / "f", {"size": "subscriptions: [{topic: 'hello.*'}]\ncommand: [wc, -c]\n"
                                             "input: {as: file}\noutput: {from: stdout}"})  # fmt: skip
    async with (
        nats_server(tmp_path / "js", max_payload=512 * 1024) as server,
        controller(server.url, tmp_path / "f", tmp_path / "state"),
    ):
        client = await connect(ConnectionOptions(url=server.url))
        for size in (300_000, 340_000, 440_000, 512 * 1024 - 200):
            reply = await client.request(NAMES.call_topic("hello.x"), b"x" * size, timeout=60)
            assert (reply.headers or {}).get(wire.H_STATE) == "succeeded", (size, reply.data)
        await client.close()


async def test_a_consumer_changed_by_hand_stops_only_its_own_function(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    write_functions(tmp_path / "f", {"aaa": ECHO})
    async with controller(server.url, tmp_path / "f", tmp_path / "state"):
        js = client.jetstream()
        config = (await js.consumer_info(NAMES.runs_stream, NAMES.run_consumer("aaa"))).config
        config.ack_wait = 77
        await js.add_consumer(NAMES.runs_stream, config)
        write_functions(tmp_path / "f", {"later": "subscriptions: [{topic: later}]\ncommand: [echo, hi]"})
        answer = await client.request(NAMES.control("reload"), b"", timeout=60)
        assert json.loads(answer.data)["functions"] == 2
        reply = await client.request(NAMES.call_topic("later"), b"1", timeout=60)
        assert (reply.headers or {})[wire.H_STATE] == "succeeded"


async def test_an_output_is_checked_by_the_version_that_ran(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """The schema changes while the function runs: running work keeps its spec."""
    spec = """
subscriptions: [{topic: slow}]
runtime: python
handler: main.handle
code: |
  import os, time
  def handle(event, context):
      while not os.path.exists(event["data"].decode()):
          time.sleep(0.02)
      return {"text": "done"}
output: {from: api, schema: {type: object, properties: {text: {type: KIND}}}}
"""
    gate = tmp_path / "gate"
    write_functions(tmp_path / "f", {"slow": spec.replace("KIND", "string")})
    async with controller(server.url, tmp_path / "f", tmp_path / "state"):
        asked = asyncio.create_task(client.request(NAMES.call_topic("slow"), str(gate).encode(), timeout=60))

        async def running() -> bool:
            try:
                status = await client.jetstream().get_msg(NAMES.status_stream, subject=NAMES.status("*"))
            except NotFoundError:
                return False
            return b'"state":"running"' in (status.data or b"")

        await eventually(running, what="the run")
        write_functions(tmp_path / "f", {"slow": spec.replace("KIND", "integer")})
        await client.request(NAMES.control("reload"), b"", timeout=60)
        gate.touch()
        reply = await asked
        assert (reply.headers or {})[wire.H_STATE] == "succeeded", reply.data
        again = await client.request(NAMES.call_topic("slow"), str(gate).encode(), timeout=60)
        assert (again.headers or {})[wire.H_REASON] == "invalid-output"
