"""Accepting an event that is too large for its record: its bytes are stored once, and none that no record points at."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.claimcheck import CHUNK_BYTES
from invoker.errors import BackPressureError
from invoker.publish import EventPublisher
from invoker.request import Content, Event
from invoker.streams import StreamLimits, ensure_streams
from tests.integration.stored_world import StoredWorld
from trigger.accept import Acceptor
from trigger.moments import Moments
from trigger.room import ResultsRoom

pytestmark = pytest.mark.integration

NAMES = wire.Names()
LARGE = b"x" * 700_000
"""Fits into a message of the server, and not into the record beside its headers."""
PER_OBJECT = -(-len(LARGE) // CHUNK_BYTES) + 1


@pytest.fixture
async def world(client: NatsClient) -> StoredWorld:
    await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
    return StoredWorld.of(client, NAMES)


def acceptor(world: StoredWorld) -> Acceptor:
    js = world.client.jetstream()
    publisher = EventPublisher(world.client, js, world.claims, NAMES)
    return Acceptor(world.results, world.claims, publisher, ResultsRoom(js, NAMES, -1), Moments())


def event(content: Content) -> Event:
    return Event("orders", "r", content, wire.sha256_hex(LARGE), {}, datetime.now(UTC))


async def stored(world: StoredWorld) -> int:
    return (await world.client.jetstream().stream_info(f"OBJ_{NAMES.payloads_bucket}")).state.messages


@pytest.mark.parametrize("sent_as_claim_check", [False, True])
async def test_two_that_accept_the_same_event_keep_its_bytes_once(
    world: StoredWorld, sent_as_claim_check: bool
) -> None:
    """One controller stood still for longer than the ack wait, and both are at it at once."""
    content = Content.inline(LARGE)
    if sent_as_claim_check:
        content = Content.claimed(await world.claims.put(LARGE, owner="event"), None)
    both = [acceptor(world).accept(event(content), ("f",), "c", now=datetime.now(UTC), repeated=False) for _ in "ab"]
    accepted = await asyncio.gather(*both)
    assert sorted(one.new for one in accepted) == [False, True]
    assert accepted[0].record == accepted[1].record
    claim = accepted[0].record.body.claim
    assert claim is not None
    assert await world.claims.read(claim) == LARGE
    assert await stored(world) == PER_OBJECT


async def test_an_event_that_finds_no_room_for_its_record_leaves_no_bytes(world: StoredWorld) -> None:
    js = world.client.jetstream()
    config = (await js.stream_info(NAMES.results_stream)).config
    await js.update_stream(replace(config, max_bytes=1))
    with pytest.raises(BackPressureError):
        await acceptor(world).accept(event(Content.inline(LARGE)), ("f",), "c", now=datetime.now(UTC), repeated=False)
    assert await stored(world) == 0
