"""Events that a run publishes through the run API: whose they are, which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.request import ClaimCheck
from invoker.runtime.headers import encode_headers
from invoker.streams import StreamLimits
from tests.integration.run_world import Run, RunWorld, run_world

pytestmark = pytest.mark.integration


async def publish(run: Run, topic: str, body: Any = b"x", position: int = 0, **headers: str) -> Any:
    return await run.call("POST", "events", body, Invoker_Topic=topic, Invoker_Position=str(position), **headers)


async def test_a_published_event_belongs_to_its_run(world: RunWorld) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    run = await world.accept(b"x", root_request_id="root-1", hops=1, headers=trace)
    answer = await publish(
        run, "next.one", b"hello", 3, Content_Type="text/plain", Invoker_Headers=encode_headers({"x-y": "ä"})
    )
    assert answer.status == 201
    wanted = wire.chained_id(run.run_id, "published", 3)
    assert answer.json() == {"request_id": wanted, "topic": "next.one", "duplicate": False}
    # Delivered, not read back: nats-py gives headers beyond ASCII as text only then.
    consumer = await world.client.jetstream().pull_subscribe("events.>", durable="test")
    [event] = await consumer.fetch(1, timeout=60)
    assert (event.subject, event.data) == ("events.next.one", b"hello")
    assert event.headers is not None
    assert event.headers[wire.H_MESSAGE_ID] == wanted
    assert event.headers[wire.H_ROOT_REQUEST_ID] == "root-1"
    assert event.headers[wire.H_PARENT_RUN_ID] == run.run_id
    assert event.headers[wire.H_HOPS] == "2"
    assert event.headers["x-y"] == "ä"
    assert event.headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert event.headers[wire.H_CONTENT_TYPE] == "text/plain"


async def test_the_same_position_is_the_same_event(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await publish(run, "next", b"1", 0)).json()["duplicate"] is False
    assert (await publish(run, "next", b"1", 0)).json()["duplicate"] is True
    assert (await publish(run, "next", b"1", 1)).json()["duplicate"] is False
    assert len(await world.events()) == 2


async def test_a_large_event_goes_behind_a_claim_check(world: RunWorld) -> None:
    run = await world.accept(b"x")
    data = b"e" * 900_000
    assert (await publish(run, "big", iter([data[:500_000], data[500_000:]]))).status == 201
    [event] = await world.events()
    claim = ClaimCheck.model_validate_json(event.headers[wire.H_CLAIM])
    assert await world.claims.read(claim) == data


async def test_a_topic_may_have_letters_of_every_kind(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await publish(run, "gr%C3%B6%C3%9Fe.100%25")).status == 201
    [event] = await world.events()
    assert event.subject == "events.größe.100%"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a b",
        "a..b",
        "a.*",
        ">",
        ".a",
        "a%0D%0Ab",
        "a" * 300,
        ".".join("a" * 40),
        "$JS.x",
        "%FF",
        "invoker.call.hello",
        "invoker",
    ],
)
async def test_a_bad_topic_is_refused(world: RunWorld, topic: str) -> None:
    run = await world.accept(b"x")
    refused = await publish(run, topic)
    assert (refused.status, refused.json()["code"]) == (422, "invalid-topic"), refused.body
    assert refused.json()["status"] == 422
    assert await world.events() == []


async def test_a_chain_that_loops_ends(world: RunWorld) -> None:
    run = await world.accept(b"x", hops=wire.MAX_HOPS)
    refused = await publish(run, "again")
    assert (refused.status, refused.json()["code"]) == (422, "hop-limit")
    assert str(wire.MAX_HOPS) in refused.json()["detail"]
    last = await world.accept(b"x", hops=wire.MAX_HOPS - 1)
    assert (await publish(last, "again")).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Invoker_Position": "-1"},
        {"Invoker_Position": "x"},
        {"Invoker_Position": ""},
        {"Invoker_Headers": "%%%"},
        {"Invoker_Headers": encode_headers({"a": "b"})[:-3]},
        {"Invoker_Headers": "WzFd"},
        {"Invoker_Headers": encode_headers({"a": "b\r\nNats-Msg-Id: x"})},
        {"Invoker_Headers": encode_headers({"a\r\nb": "c"})},
        {"Invoker_Headers": encode_headers({"": "c"})},
        {"Invoker_Headers": encode_headers({"a:b": "c"})},
    ],
)
async def test_bad_headers_of_an_event_are_refused(world: RunWorld, headers: dict[str, str]) -> None:
    run = await world.accept(b"x")
    refused = await run.call("POST", "events", b"x", **({"Invoker_Topic": "next", "Invoker_Position": "0"} | headers))
    assert refused.status == 400, refused.body
    assert await world.events() == []


@pytest.mark.parametrize(
    "name",
    ["Invoker-Reply-To", "invoker-reply-to", "Invoker-Replay-Of", "Invoker-Claim", "Invoker-Params", "Nats-Msg-Id"],
)
async def test_a_function_does_not_speak_for_invoker(world: RunWorld, name: str) -> None:
    run = await world.accept(b"x")
    refused = await publish(run, "next", Invoker_Headers=encode_headers({"x-y": "z", name: "mine"}))
    assert (refused.status, refused.json()["code"]) == (422, "reserved-header"), refused.body
    assert await world.events() == []
    given = {"Invoker-Param-level": "9"}
    assert (await publish(run, "next", Invoker_Headers=encode_headers(given))).status == 201
    [event] = await world.events()
    assert event.headers["Invoker-Param-level"] == "9"


async def test_a_full_stream_is_a_matter_of_time(client: NatsClient) -> None:
    async with run_world(client, limits=StreamLimits(events_bytes=2_000)) as world:
        run = await world.accept(b"x")
        assert (await publish(run, "next", b"x" * 1000, 0)).status == 201
        refused = await publish(run, "next", b"x" * 1000, 1)
        assert (refused.status, refused.json()["code"]) == (503, "stream-full")
        assert int(refused.headers["retry-after"]) >= 1
        await client.jetstream().purge_stream(world.names.events_stream)
        assert (await publish(run, "next", b"x" * 1000, 1)).status == 201
