"""Requests and their replies: one per run, whatever repeats, is large, is handed on to a next stage or gets lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from invoker import Client, wire
from invoker.connection import ConnectionOptions, connect
from invoker.errors import NoSubscriptionError, RunFailedError, UnknownIdError, WaitExpiredError
from invoker.request import Content, RequestRecord
from invoker.result import Reason, State
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.custody.mortal_server import mortal_server
from tests.integration.stored_world import StoredWorld, followed, run_id

pytestmark = pytest.mark.integration
NAMES = wire.Names()


class Answering:
    """A stand-in for a controller: hands out what is published, and accepts it under the given functions."""

    def __init__(self, world: StoredWorld) -> None:
        self.world = world
        self.sequence = 0

    async def next_event(self, *functions: str) -> tuple[RequestRecord, str]:
        """The next published event, accepted; and its reply subject."""
        self.sequence += 1

        async def there() -> bool:
            state = (await self.world.client.jetstream().stream_info(NAMES.events_stream)).state
            return state.last_seq >= self.sequence

        await eventually(there, what="an event")
        message = await self.world.client.jetstream().get_msg(NAMES.events_stream, self.sequence)
        headers, data = message.headers or {}, message.data or b""
        reply_to = headers.get(wire.H_REPLY_TO, "")
        topic = NAMES.topic_of(message.subject or "")
        record = await self.world.accept(
            headers[wire.H_MESSAGE_ID], *functions, data=data, topic=topic, reply_to=reply_to
        )
        await self.world.take_event()
        return record, reply_to


@pytest.fixture
def answering(world: StoredWorld) -> Answering:
    return Answering(world)


async def test_a_request_gets_one_reply_per_run(sdk: Client, world: StoredWorld, answering: Answering) -> None:
    asking = asyncio.create_task(sdk.request("orders", {"n": 1}, timeout=60))
    record, reply_to = await answering.next_event("f", "g", "h")
    for function in ("f", "g"):
        result = await world.finish(record.request_id, function)
        for _ in range(3):  # replies may repeat
            await world.reply(reply_to, result, 3, b'{"ok": true}', **{"Content-Type": "application/json"})
    await world.client.flush()
    assert not asking.done()
    failed = await world.finish(record.request_id, "h", reason=Reason.ERROR)
    await world.reply(reply_to, failed, 3, b'{"detail": "it broke"}')
    replies = {reply.function: reply for reply in await asking}
    assert sorted(replies) == ["f", "g", "h"]
    assert await replies["f"].json() == {"ok": True}
    assert (replies["f"].content_type, replies["f"].request_id) == ("application/json", record.request_id)
    assert (replies["h"].state, replies["h"].reason) == (State.FAILED, Reason.ERROR)
    for read in (replies["h"].read, replies["h"].json, replies["h"].text):
        with pytest.raises(RunFailedError, match="it broke"):
            await read()


async def test_a_large_reply_is_read_when_it_is_asked_for(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=60))
    record, reply_to = await answering.next_event("f")
    claim = await world.claims.put(b"grau" * 1_000_000, owner="x")
    result = await world.finish(record.request_id, "f", Content.claimed(claim))
    await world.reply(reply_to, result, 1, claim.to_json(), **{wire.H_CLAIM: claim.to_json().decode()})
    (reply,) = await asking
    assert len(await reply.text()) == 4_000_000
    assert len([chunk async for chunk in reply.open()]) > 1


async def test_without_a_subscription_the_suggestions_come_along(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("ordrs", b"", timeout=60))
    record, reply_to = await answering.next_event()
    problem = NoSubscriptionError(
        "no subscription matches", hint="invoker explain ordrs", suggestions=[{"pattern": "orders"}]
    )
    headers = {wire.H_REQUEST_ID: record.request_id, wire.H_RUNS: "0", wire.H_REASON: "no-subscription"}
    await world.client.publish(reply_to, json_bytes(problem.problem()), headers=headers)
    with pytest.raises(NoSubscriptionError) as caught:
        await asking
    assert caught.value.fields["suggestions"] == [{"pattern": "orders"}]
    assert caught.value.hint == "invoker explain ordrs"


async def test_calling_a_function_that_is_not_there(sdk: Client, world: StoredWorld, answering: Answering) -> None:
    asking = asyncio.create_task(sdk.call("convert", b"", timeout=60))
    record, reply_to = await answering.next_event()
    assert record.topic == "invoker.call.convert"
    headers = {wire.H_REQUEST_ID: record.request_id, wire.H_RUNS: "0", wire.H_REASON: "no-subscription"}
    await world.client.publish(reply_to, json_bytes(NoSubscriptionError("nothing").problem()), headers=headers)
    with pytest.raises(UnknownIdError, match="there is no function 'convert'"):
        await asking


async def forwarded(answering: Answering) -> tuple[RequestRecord, str, str]:
    """The next event, whose run of `f` has handed its reply on: its record, its reply subject, and the request of the
    next stage, which a run of `g` is to answer."""
    record, reply_to = await answering.next_event("f")
    following = wire.chained_id(run_id(record.request_id, "f"), "onSuccess")
    await answering.world.seal(record.request_id, "f", b"first stage")
    await answering.world.accept(following, "g", reply_to=reply_to, root_request_id=record.request_id)
    await answering.world.release(record.request_id, "f")
    return record, reply_to, following


async def test_a_wait_in_vain_tells_the_id_and_the_replies_so_far(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=5))  # in which the one reply has come
    record, reply_to = await answering.next_event("f", "g")
    result = await world.seal(record.request_id, "f")
    await world.reply(reply_to, result, 2)
    with pytest.raises(WaitExpiredError, match="1 of 2 replies") as caught:
        await asking
    assert caught.value.fields["request_id"] == record.request_id
    assert [reply.function for reply in caught.value.partial] == ["f"]


async def test_a_reply_that_was_lost_is_made_up_for_by_the_stored_result(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=5))  # in which the result is stored
    record, _ = await answering.next_event("f")
    await world.finish(record.request_id, "f", b"out")
    (reply,) = await asking
    assert await reply.read() == b"out"
    (result,) = (await sdk.result(record.request_id)).results
    assert reply.headers["Invoker-Finished-At"] == result.finished_at.isoformat()


async def test_a_reply_that_was_lost_with_the_connection_is_made_up_for_at_once(tmp_path: Path) -> None:
    async with mortal_server(tmp_path / "js") as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
        world = StoredWorld.of(client, NAMES)
        sdk = await Client.connect(server.url, names=NAMES)
        asking = asyncio.create_task(sdk.request("orders", b"", timeout=60))
        record, _ = await Answering(world).next_event("f")
        await world.finish(record.request_id, "f", b"out")
        await server.stop()
        await server.start()
        (reply,) = await asyncio.wait_for(asking, 60)
        assert await reply.read() == b"out"
        await sdk.close()
        await client.close()


async def test_a_repeated_request_is_answered_by_what_is_stored(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    first = asyncio.create_task(sdk.request("orders", b"x", request_id="r1", timeout=60))
    record, reply_to = await answering.next_event("f")
    again = asyncio.create_task(sdk.request("orders", b"x", request_id="r1", timeout=60))
    await followed(world)
    result = await world.seal("r1", "f", b"out")
    await world.reply(reply_to, result, 1, b"out")
    await world.release("r1", "f")
    assert [await reply.read() for reply in await first] == [b"out"]
    assert [await reply.read() for reply in await again] == [b"out"]
    assert [await reply.read() for reply in await sdk.request("orders", b"x", request_id="r1")] == [b"out"]
    assert record.request_id == "r1"


async def test_a_forwarded_reply_is_the_last_stages(sdk: Client, world: StoredWorld, answering: Answering) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=60))
    _, reply_to, following = await forwarded(answering)
    result = await world.finish(following, "g", b"last stage")
    await world.reply(reply_to, result, 1, b"last stage")
    assert [await reply.read() for reply in await asking] == [b"last stage"]


async def answered_by_the_last_stage(sdk: Client, world: StoredWorld, request_id: str, following: str) -> None:
    """The same request, sent again when the next stage's run of `g` has ended."""
    await world.finish(following, "g", b"last stage")
    again = await sdk.request("orders", b"", request_id=request_id, timeout=60)
    assert [await reply.read() for reply in again] == [b"last stage"]


async def test_a_lost_forwarded_reply_is_never_taken_for_the_first_stages(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=5))
    record, _, following = await forwarded(answering)
    with pytest.raises(WaitExpiredError):
        await asking
    await answered_by_the_last_stage(sdk, world, record.request_id, following)


async def test_a_next_stage_that_is_not_accepted_yet_is_no_reply_of_the_first(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=3))
    record, reply_to = await answering.next_event("f")
    following = wire.chained_id(run_id(record.request_id, "f"), "onSuccess")
    await world.seal(record.request_id, "f", b"first stage")
    await sdk.publish("converted", b"", request_id=following, reply_to=reply_to)
    await world.release(record.request_id, "f")
    with pytest.raises(WaitExpiredError):
        await asking
    await answering.next_event("g")
    await answered_by_the_last_stage(sdk, world, record.request_id, following)


async def test_a_result_that_is_still_being_finished_is_no_reply_yet(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    """Until the run has left its queue it may hand its reply on to a next stage."""
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=1.0))
    record, _ = await answering.next_event("f")
    await world.seal(record.request_id, "f", b"first stage")
    with pytest.raises(WaitExpiredError):
        await asking


def json_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
