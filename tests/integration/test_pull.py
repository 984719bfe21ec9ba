"""Pulling from a consumer: as many as there is room for, and nothing kept that nobody got to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api

from tests.conftest import eventually
from trigger.jetstream import Acks, Pull

pytestmark = pytest.mark.integration


async def queue(client: NatsClient, messages: int) -> None:
    """A work queue with so many messages, and a consumer that hands them out again only after a minute."""
    js = client.jetstream()
    await js.add_stream(name="QUEUE", subjects=["queue.>"], retention=api.RetentionPolicy.WORK_QUEUE)
    await js.add_consumer("QUEUE", durable_name="all", ack_policy=api.AckPolicy.EXPLICIT, ack_wait=60)
    for number in range(messages):
        await js.publish(f"queue.{number}", b"")


async def handed_out(client: NatsClient, count: int, what: str) -> None:
    async def reached() -> bool:
        return (await client.jetstream().consumer_info("QUEUE", "all")).num_ack_pending == count

    await eventually(reached, what=what)


@pytest.mark.parametrize(("room", "asked"), [(None, 5), (lambda: 3, 3), (lambda: 0, 1), (lambda: 100, 5)])
async def test_as_many_as_there_is_room_for_and_the_rest_given_back(
    client: NatsClient, room: Callable[[], int] | None, asked: int
) -> None:
    await queue(client, 9)
    messages = Pull(client, "QUEUE", "all", batch=5).messages(room)
    first = await anext(messages)
    await handed_out(client, asked, "one request for messages")
    await messages.aclose()  # type: ignore[attr-defined]  # it is a generator
    await Acks(client).done(first.reply)
    again = Pull(client, "QUEUE", "all", batch=8).messages()
    async with asyncio.timeout(45):  # and not the ack wait's minute
        subjects = {(await anext(again)).subject for _ in range(8)}
    assert subjects == {f"queue.{number}" for number in range(1, 9)}
    await again.aclose()  # type: ignore[attr-defined]


async def test_more_is_asked_for_when_the_last_ones_were_had(client: NatsClient) -> None:
    await queue(client, 4)
    messages = Pull(client, "QUEUE", "all", batch=2).messages()
    assert [(await anext(messages)).subject for _ in range(2)] == ["queue.0", "queue.1"]
    await handed_out(client, 2, "no more than was asked for")
    assert (await anext(messages)).subject == "queue.2"
    await messages.aclose()  # type: ignore[attr-defined]
