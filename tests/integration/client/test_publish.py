"""Publishing: every kind of data, every limit, ids that come twice, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient
from nats.js.api import RawStreamMsg
from pydantic import BaseModel

from invoker import Client, wire
from invoker.claimcheck import claim_of
from invoker.connection import ConnectionOptions, connect
from invoker.errors import (
    BackPressureError,
    IdempotencyMismatchError,
    InputRefusedError,
    PayloadTooLargeError,
    ReplySubjectError,
    RequestIdError,
    ServerUnreachableError,
    TopicError,
)
from invoker.nats_server import NatsServer, nats_server
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.streams import StreamLimits, ensure_streams
from tests.integration.stored_world import StoredWorld

pytestmark = pytest.mark.integration
NAMES = wire.Names()
MIB = 1024 * 1024


class Order(BaseModel):
    number: int
    at: datetime


@dataclasses.dataclass
class Line:
    article: str


async def stored(world: StoredWorld, sequence: int) -> RawStreamMsg:
    return await world.client.jetstream().get_msg(NAMES.events_stream, sequence)


async def count(world: StoredWorld) -> int:
    return (await world.client.jetstream().stream_info(NAMES.events_stream)).state.messages


# what is sent


async def parts(*given: bytes) -> AsyncIterator[bytes]:
    for part in given:
        yield part


AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("data", "expected", "content_type"),
    [
        (b"\0\xff", b"\0\xff", None),
        (b"", b"", None),
        (bytearray(b"abc"), b"abc", None),
        (memoryview(b"abc"), b"abc", None),
        ("grüß", "grüß".encode(), "text/plain; charset=utf-8"),
        ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        ([1, "x"], b'[1,"x"]', "application/json"),
        (Order(number=7, at=AT), b'{"number":7,"at":"2026-01-02T00:00:00Z"}', "application/json"),
        (Line("x"), b'{"article":"x"}', "application/json"),
        (7, b"7", "application/json"),
        (True, b"true", "application/json"),
        (None, b"null", "application/json"),
    ],
)
async def test_data_of_every_kind(
    sdk: Client, world: StoredWorld, data: Any, expected: bytes, content_type: str | None
) -> None:
    receipt = await sdk.publish("orders.created", data)
    message = await stored(world, receipt.sequence)
    assert message.subject == "events.orders.created"
    assert (message.data or b"") == expected
    assert (message.headers or {}).get(wire.H_CONTENT_TYPE) == content_type
    assert (message.headers or {}).get(wire.H_MESSAGE_ID) == receipt.request_id


async def test_a_given_content_type_wins(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("a", {"x": 1}, content_type="application/cloudevents+json")
    assert (await stored(world, receipt.sequence)).headers[wire.H_CONTENT_TYPE] == "application/cloudevents+json"  # type: ignore[index]  # there are headers


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
async def test_a_content_type_among_the_headers_is_one(sdk: Client, world: StoredWorld, name: str) -> None:
    receipt = await sdk.publish("a", "a;b", headers={name: "text/csv"})
    headers = (await stored(world, receipt.sequence)).headers or {}
    assert [value for key, value in headers.items() if key.lower() == "content-type"] == ["text/csv"]
    receipt = await sdk.publish("a", "a;b", content_type="text/plain", headers={name: "text/csv"})
    headers = (await stored(world, receipt.sequence)).headers or {}
    assert [value for key, value in headers.items() if key.lower() == "content-type"] == ["text/plain"]


async def test_a_file_and_a_stream_travel_inside_while_they_are_small(
    sdk: Client, world: StoredWorld, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes(b"a,b\n")
    for data, content_type in ((file, "text/csv"), (parts(b"a,", b"b\n"), None), (parts(), None)):
        message = await stored(world, (await sdk.publish("a", data)).sequence)
        assert wire.H_CLAIM not in (message.headers or {})
        assert (message.headers or {}).get(wire.H_CONTENT_TYPE) == content_type


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_border_between_message_and_claim_check(
    sdk: Client, world: StoredWorld, extra: int, streamed: bool
) -> None:
    data = bytes(range(256)) * (wire.CLAIM_THRESHOLD_BYTES // 256) + b"x"
    data = data[: wire.CLAIM_THRESHOLD_BYTES + extra]
    given = parts(data[:100_000], data[100_000:]) if streamed else data
    message = await stored(world, (await sdk.publish("a", given)).sequence)
    claim = claim_of(message.headers)
    assert (claim is not None) == (extra > 0)
    if claim is None:
        assert message.data == data
    else:
        assert json.loads(message.data or b"") == json.loads(claim.to_json()), "the body says it too"
        assert await world.claims.read(claim) == data


async def test_a_large_file_goes_by_claim_check(sdk: Client, world: StoredWorld, tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(b"0123456789abcdef" * (8 * MIB // 16))
    message = await stored(world, (await sdk.publish("a", file)).sequence)
    claim = claim_of(message.headers)
    assert claim is not None
    assert claim.size_bytes == 8 * MIB
    assert claim.sha256 == wire.sha256_hex(file.read_bytes())


async def test_headers_and_parameters_travel(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish(
        "a",
        b"",
        headers={"traceparent": "00-1", "Nats-Msg-Id": "forged"},
        params={"level": 6, "mode": "fast", "dry": True},
    )
    headers = (await stored(world, receipt.sequence)).headers or {}
    assert headers["traceparent"] == "00-1"
    assert headers[wire.H_MESSAGE_ID] == receipt.request_id
    params = {name: value for name, value in headers.items() if name.startswith(wire.H_PARAM_PREFIX)}
    assert params == {"Invoker-Param-level": "6", "Invoker-Param-mode": "fast", "Invoker-Param-dry": "true"}


async def test_a_reply_subject_travels(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("a", b"", reply_to="replies.mine")
    assert (await stored(world, receipt.sequence)).headers[wire.H_REPLY_TO] == "replies.mine"  # type: ignore[index]  # there are headers


async def test_ids_sort_by_time_and_are_never_used_twice(sdk: Client) -> None:
    receipts = [await sdk.publish("a", b"") for _ in range(20)]
    assert len({receipt.request_id for receipt in receipts}) == 20
    assert not any(receipt.duplicate for receipt in receipts)
    assert [receipt.sequence for receipt in receipts] == list(range(1, 21))


# what is refused


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a b",
        "a.*",
        "a.>",
        "a\r\nPUB b 1\r\nx",
        "a..b",
        "a.",
        ".".join(["a"] * 300),
        "$JS.API.INFO",
        "invoker.ctl.reload",
        "invoker",
    ],
)
async def test_an_illegal_topic_is_refused_before_anything_is_sent(sdk: Client, world: StoredWorld, topic: str) -> None:
    with pytest.raises(TopicError):
        await sdk.publish(topic, b"x" * MIB)
    assert await count(world) == 0
    assert (await world.client.jetstream().stream_info(f"OBJ_{NAMES.payloads_bucket}")).state.messages == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nNats-Msg-Id: forged"},
        {"X\r\nY": "a"},
        {"X: Y": "a"},
        {"": "a"},
        {"X Y": "a"},
        {"X": "a\0"},
        {"Ü": "a"},
    ],
)
async def test_a_header_cannot_smuggle_another_one_in(sdk: Client, world: StoredWorld, headers: dict[str, str]) -> None:
    with pytest.raises(InputRefusedError):
        await sdk.publish("a", b"", headers=headers)
    assert await count(world) == 0


async def test_parameters_and_content_types_cannot_either(sdk: Client, world: StoredWorld) -> None:
    for given in ({"params": {"a b": "1"}}, {"params": {"a": "1\r\nX: y"}}, {"content_type": "text/plain\r\nX: y"}):
        with pytest.raises(InputRefusedError):
            await sdk.publish("a", b"", **given)
    assert await count(world) == 0


@pytest.mark.parametrize(
    "subject",
    ["_INBOX.*", "_INBOX.>", "$JS.ACK.a", "$SYS.a", "events.a", "invoker.ctl.reload", "a b", "a\r\nb", "a..b"],
)
async def test_a_reply_subject_that_nobody_may_allow_is_refused(sdk: Client, world: StoredWorld, subject: str) -> None:
    with pytest.raises(ReplySubjectError):
        await sdk.publish("a", b"", reply_to=subject)
    assert await count(world) == 0


@pytest.mark.parametrize("request_id", ["", "a\r\nb", "a\0", " a", "a ", "\x7f"])
async def test_an_id_that_would_change_on_its_way_is_refused(sdk: Client, request_id: str) -> None:
    with pytest.raises(RequestIdError):
        await sdk.publish("a", b"", request_id=request_id)


@pytest.mark.parametrize("data", [object(), {"a": object()}, {1, 2}.__iter__, "\ud800", {"a": "\ud800"}])
async def test_data_without_bytes_is_refused(sdk: Client, world: StoredWorld, data: Any) -> None:
    with pytest.raises(InputRefusedError):
        await sdk.publish("a", data)
    assert await count(world) == 0


async def test_a_file_that_cannot_be_read_is_named(sdk: Client, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputRefusedError, match=path.name):
            await sdk.publish("a", path)


async def test_headers_above_their_limit_are_refused_with_the_limit(sdk: Client) -> None:
    with pytest.raises(PayloadTooLargeError, match=f"at most {wire.MAX_COPIED_HEADER_BYTES}"):
        await sdk.publish("a", b"", headers={"X": "x" * wire.MAX_COPIED_HEADER_BYTES})


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_event_above_the_limit_is_refused_with_size_and_limit(world: StoredWorld, streamed: bool) -> None:
    js = world.client.jetstream()
    publisher = EventPublisher(world.client, js, world.claims, NAMES, max_event_bytes=1000)
    await publisher.publish(OutgoingEvent("a", b"x" * 1000))
    with pytest.raises(PayloadTooLargeError, match="1000") as caught:
        await publisher.publish(OutgoingEvent("a", parts(b"x" * 600, b"x" * 600) if streamed else b"x" * 1001))
    assert caught.value.fields["limit_bytes"] == 1000
    assert caught.value.exit_code == 6
    assert await count(world) == 1


# ids that come twice


async def test_the_same_event_twice_gives_the_same_receipt(sdk: Client, world: StoredWorld) -> None:
    first = await sdk.publish("a", b"x", request_id="order-4711")
    again = await sdk.publish("a", b"x", request_id="order-4711")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (first.request_id, first.sequence) == (again.request_id, again.sequence) == ("order-4711", 1)
    assert await count(world) == 1


@pytest.mark.parametrize(("topic", "data", "other"), [("a", b"y", "body"), ("b", b"x", "topic")])
@pytest.mark.parametrize("moment", ["waiting", "accepted", "finished"])
async def test_another_event_under_the_same_id_is_refused(
    sdk: Client, world: StoredWorld, topic: str, data: bytes, other: str, moment: str
) -> None:
    await sdk.publish("a", b"x", request_id="r1")
    if moment != "waiting":
        await world.accept("r1", "f", data=b"x", topic="a")
        await world.take_event()
    if moment == "finished":
        await world.finish("r1", "f")
    with pytest.raises(IdempotencyMismatchError, match=f"another {other}") as caught:
        await sdk.publish(topic, data, request_id="r1")
    assert caught.value.fields["request_id"] == "r1"
    again = await sdk.publish("a", b"x", request_id="r1")
    assert again.duplicate


async def test_large_events_are_compared_too(sdk: Client, world: StoredWorld) -> None:
    data = b"x" * (2 * MIB)
    await sdk.publish("a", data, request_id="r1")
    assert (await sdk.publish("a", parts(data[:MIB], data[MIB:]), request_id="r1")).duplicate
    with pytest.raises(IdempotencyMismatchError):
        await sdk.publish("a", data[1:], request_id="r1")


async def test_an_id_that_is_no_token_is_hashed_and_found_by_its_own_name(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("a", b"x", request_id="Bestellung 4711/ä")
    assert receipt.request_id == wire.digest_id("message-id", "Bestellung 4711/ä")
    assert (await sdk.publish("a", b"x", request_id="Bestellung 4711/ä")).request_id == receipt.request_id
    assert await count(world) == 1
    await world.accept(receipt.request_id, "f", data=b"x", topic="a")
    assert (await sdk.result("Bestellung 4711/ä")).request_id == receipt.request_id


async def test_many_at_once_with_one_id_store_one_event(sdk: Client, world: StoredWorld) -> None:
    receipts = await asyncio.gather(*(sdk.publish("a", b"x", request_id="r1") for _ in range(30)))
    assert {receipt.sequence for receipt in receipts} == {1}
    assert [receipt.duplicate for receipt in receipts].count(False) == 1


# a server with its own mind


async def test_a_full_stream_says_so_and_stores_nothing(server: NatsServer, client: NatsClient) -> None:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits(events_bytes=2000))
    async with Client.connect(server.url, names=NAMES) as sdk:
        await sdk.publish("a", b"x" * 1000)
        with pytest.raises(BackPressureError) as caught:
            await sdk.publish("a", b"x" * 1000)
    assert caught.value.exit_code == 7
    assert "full" in caught.value.message
    assert "nothing was stored" in (caught.value.hint or "")


async def test_without_streams_no_controller_was_here(server: NatsServer) -> None:
    async with Client.connect(server.url, names=NAMES) as sdk:
        with pytest.raises(ServerUnreachableError) as caught:
            await sdk.publish("a", b"x")
        assert caught.value.hint


async def test_a_server_with_small_messages_gets_claim_checks_earlier(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "js", max_payload=256 * 1024) as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
        world = StoredWorld.of(client, NAMES)
        async with Client.connect(server.url, names=NAMES) as sdk:
            message = await stored(world, (await sdk.publish("a", b"x" * (250 * 1024))).sequence)
        claim = claim_of(message.headers)
        assert claim is not None
        assert len(await world.claims.read(claim)) == 250 * 1024
        await client.close()
