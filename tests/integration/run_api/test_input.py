"""The input that the run API gives, and everything about its event."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from invoker import wire
from invoker.request import ClaimCheck, Content
from invoker.runtime.headers import decode_headers
from tests.integration.run_world import RunWorld

pytestmark = pytest.mark.integration


async def test_the_input_comes_with_everything_about_its_event(world: RunWorld) -> None:
    run = await world.accept(
        "größe".encode(),
        content_type="text/plain; charset=utf-8",
        topic="bestellung.größe",
        headers={"x-note": "ä b", "traceparent": "00-1-2-01"},
        params={"level": "9"},
        root_request_id="root-1",
        parent_run_id="parent-1",
        hops=3,
    )
    given = await run.call("GET", "input")
    assert given.status == 200
    assert given.body.decode() == "größe"
    headers = given.headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == str(len(given.body))
    assert headers["invoker-topic"] == "bestellung.gr%C3%B6%C3%9Fe"
    assert headers["invoker-request-id"] == run.record.request_id
    assert json.loads(headers["invoker-params"]) == {"level": "9"}
    assert decode_headers(headers["invoker-headers"]) == run.record.headers
    assert datetime.fromisoformat(headers["invoker-event-time"]) == run.record.received_at
    assert headers["invoker-root-request-id"] == "root-1"
    assert headers["invoker-parent-run-id"] == "parent-1"
    assert headers["invoker-hops"] == "3"
    assert headers["invoker-sha256"] == wire.sha256_hex(given.body)
    assert headers["invoker-attempt"] == "1"


async def test_head_gives_the_headers_only(world: RunWorld) -> None:
    run = await world.accept(b"12345")
    given = await run.call("HEAD", "input")
    assert (given.status, given.body, given.headers["content-length"]) == (200, b"", "5")


async def test_a_direct_call_keeps_the_topic_it_was_made_for(world: RunWorld) -> None:
    topic = world.names.direct_topic("convert")
    run = await world.accept(b"", topic=topic, headers={wire.H_TOPIC: "orders.created"})
    assert (await run.call("GET", "input")).headers["invoker-topic"] == "orders.created"
    plain = await world.accept(b"", topic="other", headers={wire.H_TOPIC: "orders.created"})
    assert (await plain.call("GET", "input")).headers["invoker-topic"] == "other"


async def test_an_input_behind_a_claim_check_is_streamed(world: RunWorld) -> None:
    data = bytes(range(256)) * 4096
    claim = await world.claims.put(data, owner="event")
    run = await world.accept(Content.claimed(claim, "application/octet-stream"))
    given = await run.call("GET", "input")
    assert (given.status, given.body) == (200, data)
    assert given.headers["invoker-sha256"] == claim.sha256


async def test_an_input_whose_bytes_are_gone_is_said_to_be_gone(world: RunWorld) -> None:
    claim = ClaimCheck(object="event/none", size_bytes=10, sha256="0" * 64)
    run = await world.accept(Content.claimed(claim))
    given = await run.call("GET", "input")
    assert given.status == 410
    assert given.json()["code"] == "claim-check"


async def test_an_input_that_is_not_what_was_promised_never_arrives_whole(world: RunWorld) -> None:
    claim = await world.claims.put(b"x" * 400_000, owner="event")
    run = await world.accept(Content.claimed(claim.model_copy(update={"sha256": "0" * 64})))
    with pytest.raises(Exception, match=r"IncompleteRead|more expected"):
        await run.call("GET", "input")
