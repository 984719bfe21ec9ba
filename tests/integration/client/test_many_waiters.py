"""Many who ask for events that are not accepted yet: together they read what one would."""

from __future__ import annotations

import asyncio

import pytest

from invoker import Client
from invoker.errors import UnknownIdError
from tests.integration.stored_world import StoredWorld, put_letter

ASKING = 40


def asked(sdk: Client) -> int:
    """What the client has sent to its server so far, questions all of them."""
    return int(sdk._client.stats["out_msgs"])


async def test_many_ask_for_queued_events_as_one_would(sdk: Client) -> None:
    receipts = [await sdk.publish("orders", n) for n in range(ASKING)]
    before = asked(sdk)
    views = await asyncio.gather(*(sdk.result(one.request_id) for one in receipts))
    sent = asked(sdk) - before
    assert [(view.request_id, view.topic, view.state) for view in views] == [
        (one.request_id, "orders", "queued") for one in receipts
    ]
    # A few questions each, and every event twice at most: for who asked first, and for all who came meanwhile.
    assert sent < 8 * ASKING, f"{ASKING} who asked for {ASKING} events sent {sent} questions"


async def test_many_ask_for_dead_letters_as_one_would(sdk: Client, world: StoredWorld) -> None:
    for n in range(ASKING):
        await put_letter(
            world, {"id": f"d{n}", "request_id": f"r{n}", "reason": "invalid-topic", "dead_at": "2026-03-01T00:00:00Z"}
        )
    before = asked(sdk)
    found = await asyncio.gather(*(sdk.result(f"r{n}") for n in range(ASKING)), return_exceptions=True)
    for n, error in enumerate(found):
        assert isinstance(error, UnknownIdError)
        assert error.fields["dead_id"] == f"d{n}"
    # Ten each by now, where each who looked through all letters on his own sent fifteen.
    assert asked(sdk) - before < 12 * ASKING


async def test_one_who_asks_and_goes_takes_nothing_from_the_others(sdk: Client) -> None:
    receipt = await sdk.publish("orders", 1)
    asking = [asyncio.create_task(sdk.result(receipt.request_id)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert [view.topic for view in await asyncio.gather(*asking[1:])] == ["orders", "orders"]
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
