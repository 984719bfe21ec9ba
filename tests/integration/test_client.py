"""The client's reading side against stored documents: every moment of a request, ids, lists, replies, chains."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import Client, wire
from invoker.connection import ConnectionOptions, connect
from invoker.errors import (
    AmbiguousIdError,
    ClaimCheckError,
    ExpiredError,
    InputRefusedError,
    NoSubscriptionError,
    RunFailedError,
    ServerUnreachableError,
    UnknownIdError,
    WaitExpiredError,
)
from invoker.nats_server import NatsServer, nats_server
from invoker.request import ClaimCheck, Content, RequestRecord
from invoker.result import Reason, RunStatusDocument, State
from invoker.streams import StreamLimits, ensure_streams
from invoker.views import Chain, RequestState, RequestView
from tests.conftest import eventually
from tests.integration.stored_world import StoredWorld

pytestmark = pytest.mark.integration
NAMES = wire.Names()


@pytest.fixture
async def world(client: NatsClient) -> StoredWorld:
    await ensure_streams(client.jetstream(), NAMES, StreamLimits())
    return StoredWorld.of(client, NAMES)


@pytest.fixture
async def sdk(server: NatsServer, world: StoredWorld) -> AsyncIterator[Client]:
    async with Client.connect(server.url, names=NAMES) as connected:
        yield connected


def run_id(request_id: str, function: str) -> str:
    return wire.run_id_of(request_id, function)


# one request, at every moment


async def test_a_request_is_told_at_every_moment(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("orders", b"x")
    seen = [await sdk.result(receipt.request_id)]
    await world.accept(receipt.request_id, "f", "g", data=b"x")
    await world.take_event()
    seen.append(await sdk.result(receipt.request_id))
    await world.running(receipt.request_id, "f", State.STARTING)
    seen.append(await sdk.result(receipt.request_id))
    await world.running(receipt.request_id, "f")
    seen.append(await sdk.result(receipt.request_id))
    await world.finish(receipt.request_id, "f", b"one")
    seen.append(await sdk.result(receipt.request_id))
    await world.finish(receipt.request_id, "g", b"two")
    seen.append(await sdk.result(receipt.request_id))
    assert [view.state for view in seen] == ["queued", "queued", "starting", "running", "queued", "finished"]
    assert [view.record is None for view in seen] == [True, False, False, False, False, False]
    assert {view.topic for view in seen} == {"orders"}
    assert [result.function for result in seen[4].results] == ["f"]
    assert [await sdk.output(result) for result in seen[5].results] == [b"one", b"two"]


async def test_nothing_matched_expired_and_unknown_are_told_apart(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1")
    assert (await sdk.result("r1")).state is RequestState.NO_MATCH
    old = wire.new_request_id(datetime.now(UTC) - timedelta(seconds=172_801), bytes(10))
    with pytest.raises(ExpiredError, match="results are kept 172800 s"):
        await sdk.result(old)
    recent = wire.new_request_id(datetime.now(UTC) - timedelta(seconds=172_000), bytes(10))
    for unknown in (recent, "never-seen", wire.run_id_of("r9", "f"), "ab", "", "a.b.c", "*", ">"):
        with pytest.raises(UnknownIdError) as caught:
            await sdk.result(unknown)
        assert type(caught.value) is UnknownIdError


async def test_a_dead_letter_says_what_became_of_its_event(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("orders", b"x")
    letter = {
        "id": "dead1", "reason": "invalid-topic", "message": "it has a space", "dead_at": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    await put_letter(world, letter | {"request_id": receipt.request_id})
    await world.take_event()
    with pytest.raises(UnknownIdError, match="it has a space") as caught:
        await sdk.result(receipt.request_id)
    assert caught.value.fields == {"dead_id": "dead1", "reason": "invalid-topic", "topic": ""}
    with pytest.raises(UnknownIdError, match="it has a space"):
        await sdk.result(receipt.request_id, wait=60)


async def test_an_event_that_becomes_a_dead_letter_while_it_is_waited_for(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("orders", b"x")
    waiting = asyncio.create_task(sdk.result(receipt.request_id, wait=1))
    await followed(world)
    letter = {"id": "dead1", "reason": "invalid-topic", "dead_at": "2026-01-01T00:00:00Z", "message": "a space"}
    await put_letter(world, letter | {"request_id": receipt.request_id})
    await world.take_event()
    with pytest.raises(UnknownIdError, match="a space"):
        await waiting


async def test_results_that_outlive_their_record_are_found(sdk: Client, world: StoredWorld) -> None:
    await world.seal("r1", "f", b"out")
    view = await sdk.result("r1")
    assert (view.state, view.record, [await sdk.output(result) for result in view.results]) == (
        "finished",
        None,
        [b"out"],
    )


# waiting


async def test_a_wait_ends_when_the_last_run_finishes(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g")
    await world.finish("r1", "f")
    waiting = asyncio.create_task(sdk.result("r1", wait=60))
    await followed(world)
    assert not waiting.done()
    await world.finish("r1", "g")
    assert (await waiting).succeeded


async def test_a_wait_may_begin_before_the_event_is_accepted_or_even_published(sdk: Client, world: StoredWorld) -> None:
    waiting = asyncio.create_task(sdk.result("later", wait=60))
    await followed(world)
    await world.accept("later", "f")
    await world.finish("later", "f")
    assert (await waiting).succeeded
    assert (await sdk.result("later", wait=60)).succeeded


async def test_a_wait_in_vain_loses_nothing(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g")
    await world.finish("r1", "f", b"out")
    with pytest.raises(WaitExpiredError, match=r"1 of 2 runs finished within 0\.2 s") as caught:
        await sdk.result("r1", wait=0.2)
    assert caught.value.exit_code == 5
    assert caught.value.fields["request_id"] == "r1"
    partial = caught.value.partial
    assert isinstance(partial, RequestView)
    assert [result.function for result in partial.results] == ["f"]
    with pytest.raises(WaitExpiredError, match="not accepted yet"):
        await sdk.result("nobody-knows-it", wait=0.2)
    with pytest.raises(UnknownIdError, match="empty"):
        await sdk.result("", wait=60)


async def test_waiting_for_one_run_does_not_wait_for_the_others(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g")
    waiting = asyncio.create_task(sdk.result(run_id("r1", "g"), wait=60))
    await followed(world)
    await world.finish("r1", "g")
    view = await waiting
    assert [run.function for run in view.runs] == ["g"]
    assert view.succeeded


async def test_a_no_match_ends_a_wait(sdk: Client, world: StoredWorld) -> None:
    waiting = asyncio.create_task(sdk.result("r1", wait=60))
    await followed(world)
    await world.accept("r1")
    assert (await waiting).state is RequestState.NO_MATCH


async def test_results_come_as_runs_finish(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g", "h")
    await world.finish("r1", "g")
    seen: list[str] = []
    async for result in sdk.results("r1", wait=60):
        seen.append(result.function)
        if len(seen) < 3:
            await world.finish("r1", {"g": "h", "h": "f"}[result.function])
    assert seen == ["g", "h", "f"]
    assert [result.function async for result in sdk.results("r1")] == ["g", "h", "f"]


async def test_results_in_vain(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g")
    await world.finish("r1", "f")
    seen: list[str] = []

    async def read() -> None:
        async for result in sdk.results("r1", wait=0.3):
            seen.append(result.function)

    with pytest.raises(WaitExpiredError) as caught:
        await read()
    assert seen == ["f"]
    assert len(caught.value.partial.results) == 1


async def test_a_wait_outlives_a_server_that_restarts(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "js") as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(), NAMES, StreamLimits())
        world = StoredWorld.of(client, NAMES)
        await world.accept("r1", "f", "g")
        await world.finish("r1", "f")
        sdk = await Client.connect(server.url, names=NAMES)
        waiting = asyncio.create_task(sdk.result("r1", wait=60))
        await followed(world)
    async with nats_server(tmp_path / "js", port=server.port):
        await eventually(lambda: _flushed(client), what="the world's own connection")
        await world.finish("r1", "g")
        began = asyncio.get_running_loop().time()
        assert (await waiting).succeeded
        assert asyncio.get_running_loop().time() - began < 4.5, "asked again at once, not after a heartbeat was missed"
        await sdk.close()
        await client.close()


async def _flushed(client: NatsClient) -> bool:
    try:
        await client.flush(timeout=1)
        return client.is_connected
    except Exception:
        return False


# ids


async def test_ids_of_every_kind_find_the_request(sdk: Client, world: StoredWorld) -> None:
    receipt = await sdk.publish("orders", b"")
    request_id = receipt.request_id
    await world.accept(request_id, "f", "g")
    await world.accept("other-request", "f")
    one = run_id(request_id, "g")
    for given in (request_id, request_id[-8:], request_id[:20], "@latest"):
        view = await sdk.result(given)
        assert view.request_id == ("other-request" if given == "@latest" else request_id)
    for given in (one, one[:8], one[-6:]):
        view = await sdk.result(given)
        assert (view.request_id, [run.function for run in view.runs]) == (request_id, ["g"])


@pytest.mark.parametrize("moment", ["queued", "running", "finished", "finished long ago"])
async def test_a_run_is_found_by_its_id_at_every_moment(sdk: Client, world: StoredWorld, moment: str) -> None:
    await world.accept("r1", "f")
    await world.accept("r2", "f")
    if moment == "running":
        await world.running("r2", "f")
    if moment.startswith("finished"):
        await world.finish("r2", "f")
    view = await sdk.result(run_id("r2", "f"))
    assert (view.request_id, view.runs[0].function) == ("r2", "f")


async def test_a_shortened_id_that_fits_several_is_not_guessed(sdk: Client, world: StoredWorld) -> None:
    await world.accept("order-1")
    await world.accept("order-2")
    with pytest.raises(AmbiguousIdError) as caught:
        await sdk.result("order")
    assert caught.value.fields["candidates"] == ["order-1", "order-2"]
    assert caught.value.exit_code == 4
    with pytest.raises(UnknownIdError):
        await sdk.result("r-1")


async def test_an_exact_id_wins_over_longer_ones(sdk: Client, world: StoredWorld) -> None:
    await world.accept("order", "f")
    await world.accept("order-2")
    assert (await sdk.result("order")).request_id == "order"


async def test_one_run_of_a_request(sdk: Client, world: StoredWorld) -> None:
    await world.accept("one", "f")
    await world.accept("two", "f", "g")
    assert (await sdk.run("one")).run_id == run_id("one", "f")
    assert (await sdk.run("two", function="g")).function == "g"
    assert (await sdk.run(run_id("two", "f"))).function == "f"
    with pytest.raises(AmbiguousIdError, match="has 2 runs"):
        await sdk.run("two")
    with pytest.raises(UnknownIdError, match="no run of the function 'h'"):
        await sdk.run("two", function="h")


# bytes


async def test_bytes_in_and_out_are_read_wherever_they_are(sdk: Client, world: StoredWorld) -> None:
    claim = await world.claims.put(b"large" * 100_000, owner="x")
    await world.accept("r1", "f", data=b"", body=Content.claimed(claim, "text/csv"))
    await world.accept("r2", "f", data=b"small")
    result = await world.finish("r1", "f", Content.claimed(claim, "text/csv"))
    assert await sdk.output(result) == await sdk.input("r1") == b"large" * 100_000
    assert await sdk.input("r2") == b"small"
    assert await sdk.input(run_id("r2", "f")) == b"small"
    chunks = [chunk async for chunk in sdk.open_output(result)]
    assert len(chunks) > 1


async def test_bytes_that_are_gone_or_damaged_are_told(sdk: Client, world: StoredWorld) -> None:
    gone = ClaimCheck(object="x/gone", size_bytes=1, sha256="0" * 64)
    claim = await world.claims.put(b"hello", owner="x")
    await world.accept("r1", "f", "g")
    missing = await world.finish("r1", "f", Content.claimed(gone))
    damaged = await world.finish("r1", "g", Content.claimed(claim.model_copy(update={"sha256": "0" * 64})))
    for result in (missing, damaged):
        with pytest.raises(ClaimCheckError):
            await sdk.output(result)


async def test_the_input_of_what_is_not_accepted_is_not_there(sdk: Client) -> None:
    receipt = await sdk.publish("orders", b"x")
    with pytest.raises(UnknownIdError, match="not accepted yet"):
        await sdk.input(receipt.request_id)


# requests and replies


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


async def test_a_wait_in_vain_tells_the_id_and_the_replies_so_far(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=1.5))
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
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=1.5))
    record, _ = await answering.next_event("f")
    await world.finish(record.request_id, "f", b"out")
    (reply,) = await asking
    assert await reply.read() == b"out"


async def test_a_reply_that_was_lost_with_the_connection_is_made_up_for_at_once(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "js") as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(), NAMES, StreamLimits())
        world = StoredWorld.of(client, NAMES)
        sdk = await Client.connect(server.url, names=NAMES)
        asking = asyncio.create_task(sdk.request("orders", b"", timeout=60))
        record, _ = await Answering(world).next_event("f")
        await world.finish(record.request_id, "f", b"out")
    async with nats_server(tmp_path / "js", port=server.port):
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
    record, reply_to = await answering.next_event("f")
    await world.finish(record.request_id, "f", b"first stage")
    following = wire.chained_id(run_id(record.request_id, "f"), "onSuccess")
    await world.accept(following, "g", reply_to=reply_to, root_request_id=record.request_id)
    result = await world.finish(following, "g", b"last stage")
    await world.reply(reply_to, result, 1, b"last stage")
    assert [await reply.read() for reply in await asking] == [b"last stage"]


async def test_a_lost_forwarded_reply_is_never_taken_for_the_first_stages(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=1.0))
    record, reply_to = await answering.next_event("f")
    await world.finish(record.request_id, "f", b"first stage")
    following = wire.chained_id(run_id(record.request_id, "f"), "onSuccess")
    await world.accept(following, "g", reply_to=reply_to, root_request_id=record.request_id)
    with pytest.raises(WaitExpiredError):
        await asking
    await world.finish(following, "g", b"last stage")
    again = await sdk.request("orders", b"", request_id=record.request_id, timeout=60)
    assert [await reply.read() for reply in again] == [b"last stage"]


async def test_a_result_that_is_still_being_finished_is_no_reply_yet(
    sdk: Client, world: StoredWorld, answering: Answering
) -> None:
    """Until the run has left its queue it may hand its reply on to a next stage."""
    asking = asyncio.create_task(sdk.request("orders", b"", timeout=1.0))
    record, _ = await answering.next_event("f")
    await world.seal(record.request_id, "f", b"first stage")
    with pytest.raises(WaitExpiredError):
        await asking


# lists


async def test_runs_are_listed_unfinished_first_and_newest_first(sdk: Client, world: StoredWorld) -> None:
    for number in range(4):
        await world.accept(f"r{number}", "f", "g")
    await world.finish("r1", "f")
    await world.finish("r0", "g", reason=Reason.ERROR)
    await world.running("r2", "g")
    rows = await sdk.runs()
    assert [(row.request_id, row.function, str(row.state)) for row in rows] == [
        ("r3", "g", "queued"), ("r3", "f", "queued"), ("r2", "g", "running"), ("r2", "f", "queued"),
        ("r1", "g", "queued"), ("r0", "f", "queued"), ("r0", "g", "failed"), ("r1", "f", "succeeded"),
    ]  # fmt: skip
    assert {row.topic for row in rows} == {"orders"}
    assert [row.reason for row in rows[-2:]] == [Reason.ERROR, Reason.COMPLETED]
    assert all(row.run_id == run_id(row.request_id, row.function) for row in rows)


async def test_few_unfinished_runs_among_many_places_are_found_without_looking_at_each(
    sdk: Client, world: StoredWorld
) -> None:
    left = ["r0", "r1", "r130", "r298", "r299"]
    for begin in range(0, 300, 50):
        await asyncio.gather(*(world.accept(f"r{n}", "f") for n in range(begin, begin + 50)))
    await asyncio.gather(*(world.finish(f"r{n}", "f") for n in range(300) if f"r{n}" not in left))
    await world.running("r1", "f")
    places = {row.request_id: int(row.cursor[1:]) for row in await sdk.runs(limit=5)}
    assert sorted(places, key=lambda one: -places[one]) == list(places), "newest first"
    assert set(places) == set(left)
    page = await sdk.runs(limit=2)
    rest = await sdk.runs(limit=3, before=page[-1].cursor)
    assert [row.request_id for row in [*page, *rest]] == list(places)
    oldest = await sdk.stored.first_unfinished("f", 3)
    assert [row.request_id for row in oldest] == sorted(places, key=lambda one: places[one])[:3]
    assert {row.request_id for row in oldest if row.state is State.RUNNING} <= {"r1"}
    assert await sdk.stored.first_unfinished("g", 3) == []


async def test_pages_are_the_list_cut_into_pieces(sdk: Client, world: StoredWorld) -> None:
    for number in range(7):
        await world.accept(f"r{number}", "f", "g")
    for number in range(5):
        await world.finish(f"r{number}", "f")
    whole = await sdk.runs()
    pages, cursor = [], None
    while page := await sdk.runs(limit=3, before=cursor):
        pages += page
        cursor = page[-1].cursor
    assert [row.run_id for row in pages] == [row.run_id for row in whole]
    assert len(whole) == 14
    assert await sdk.runs(limit=0) == []


async def test_a_run_that_finishes_between_two_pages_is_not_left_out(sdk: Client, world: StoredWorld) -> None:
    for number in range(6):
        await world.accept(f"r{number}", "f")
    first = await sdk.runs(limit=2)
    await world.finish("r0", "f")
    rest = await sdk.runs(before=first[-1].cursor)
    assert {row.request_id for row in [*first, *rest]} == {f"r{number}" for number in range(6)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"function": "g"}, {"r1/g", "r2/g"}),
        ({"state": "failed"}, {"r1/f"}),
        ({"state": State.QUEUED}, {"r2/g"}),
        ({"state": "running"}, {"r2/f"}),
        ({"reason": "error"}, {"r1/f"}),
        ({"request": "r1"}, {"r1/f", "r1/g"}),
        ({"since": timedelta(hours=1)}, {"r1/f", "r1/g", "r2/f", "r2/g"}),
        ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, set()),
        ({"until": timedelta(hours=1)}, set()),
        ({"until": datetime(2100, 1, 1, tzinfo=UTC)}, {"r1/f", "r1/g", "r2/f", "r2/g"}),
        ({"text": "r2"}, {"r2/f", "r2/g"}),
        ({"text": wire.run_id_of("r1", "g")[3:]}, {"r1/g"}),
        ({"function": "g", "state": "succeeded"}, {"r1/g"}),
    ],
)
async def test_lists_are_filtered(sdk: Client, world: StoredWorld, given: dict[str, Any], expected: set[str]) -> None:
    await world.accept("r1", "f", "g")
    await world.accept("r2", "f", "g")
    await world.finish("r1", "f", reason=Reason.ERROR)
    await world.finish("r1", "g")
    await world.running("r2", "f")
    assert {f"{row.request_id}/{row.function}" for row in await sdk.runs(**given)} == expected


async def test_rare_runs_are_found_far_back(sdk: Client, world: StoredWorld) -> None:
    await world.seal("rare", "needle")
    for start in range(0, 3000, 100):
        await asyncio.gather(*(world.seal(f"r{number}", "hay") for number in range(start, start + 100)))
    assert [row.request_id for row in await sdk.runs(function="needle")] == ["rare"]
    assert (await sdk.runs(limit=1))[0].request_id.startswith("r29")
    assert (await sdk.result(run_id("rare", "needle"))).request_id == "rare"


@pytest.mark.parametrize(
    "given", [{"before": "x"}, {"before": "f-1"}, {"before": ""}, {"state": "asleep"}, {"reason": "?"}]
)
async def test_unusable_questions_are_refused_in_words(sdk: Client, given: dict[str, Any]) -> None:
    with pytest.raises(InputRefusedError):
        await sdk.runs(**given)


async def test_an_empty_instance_has_no_runs(sdk: Client) -> None:
    assert await sdk.runs() == []
    with pytest.raises(UnknownIdError, match="no request has been accepted yet"):
        await sdk.result("@latest")


# dead letters


async def put_letter(world: StoredWorld, letter: dict[str, Any]) -> None:
    headers = {wire.H_REQUEST_ID: letter.get("request_id") or "", wire.H_REASON: letter["reason"]}
    await world.client.jetstream().publish(NAMES.dead(letter["id"]), json_bytes(letter), headers=headers)


async def test_dead_letters_are_listed_and_found(sdk: Client, world: StoredWorld) -> None:
    for number in range(5):
        await put_letter(
            world, {"id": f"letter{number}x", "reason": "invalid-topic", "dead_at": "2026-01-01T00:00:00Z"}
        )
    assert [letter.id for letter in await sdk.dead(limit=2)] == ["letter4x", "letter3x"]
    assert len(await sdk.dead()) == 5
    assert (await sdk.dead_letter("letter1x")).reason == "invalid-topic"
    assert (await sdk.dead_letter("ter1x")).id == "letter1x"
    with pytest.raises(AmbiguousIdError):
        await sdk.dead_letter("letter")
    for unknown in ("absent", "*", "a.b", ""):
        with pytest.raises(UnknownIdError):
            await sdk.dead_letter(unknown)


# chains


async def grown_chain(world: StoredWorld) -> None:
    """collect → two files → each unpacked; the second file's stage is still queued."""
    await world.accept("root", "collect")
    await world.accept("someone-else", "collect")
    await world.finish("root", "collect")
    parent = run_id("root", "collect")
    for child in ("one", "two"):
        await world.accept(child, "unpack", root_request_id="root", parent_run_id=parent, hops=1)
    await world.finish("one", "unpack")


def shape(chain: Chain) -> dict[str, list[str]]:
    return {node.view.request_id: [child.view.request_id for child in node.children] for node in chain}


async def test_a_chain_is_found_from_any_of_its_members(sdk: Client, world: StoredWorld) -> None:
    await grown_chain(world)
    for given in ("root", "one", "two", run_id("two", "unpack")):
        chain = await sdk.chain(given)
        assert shape(chain) == {"root": ["one", "two"], "one": [], "two": []}
        assert not chain.settled
    assert shape(await sdk.chain("someone-else")) == {"someone-else": []}


async def test_a_chain_ends_only_when_nothing_more_can_come(sdk: Client, world: StoredWorld) -> None:
    """Every step is a moment at which a client might wrongly think that all is over."""
    await world.accept("root", "collect")
    waiting = asyncio.create_task(sdk.chain("root", wait=60))
    await followed(world)
    await world.seal("root", "collect")  # the result is there, its next event is not yet published
    await not_yet(waiting)
    next_id = wire.chained_id(run_id("root", "collect"), "onSuccess")
    await sdk.publish("collected", b"", request_id=next_id)
    await world.release("root", "collect")  # published, but not yet accepted
    await not_yet(waiting)
    parent = run_id("root", "collect")
    await world.accept(next_id, "convert", root_request_id="root", parent_run_id=parent, hops=1)
    await world.take_event()
    await not_yet(waiting)
    await world.finish(next_id, "convert")
    chain = await asyncio.wait_for(waiting, 60)
    assert chain.settled
    assert chain.succeeded
    assert shape(chain) == {"root": [next_id], next_id: []}


async def test_a_chain_ends_while_other_events_keep_coming(sdk: Client, world: StoredWorld) -> None:
    """EVENTS is never empty on a busy system: what counts is what was stored before the chain's last run ended."""
    await world.accept("root", "collect")
    await sdk.publish("other", b"1")
    await world.finish("root", "collect")
    waiting = asyncio.create_task(sdk.chain("root", wait=60))
    await followed(world)
    await not_yet(waiting)

    async def settled_while_events_come() -> bool:
        """Another one comes before the oldest is taken."""
        await sdk.publish("other", b"2")
        await world.take_event()
        return waiting.done()

    await eventually(settled_while_events_come, what="the end of the chain")
    assert (await waiting).settled


async def test_the_growth_of_a_chain_can_be_watched(sdk: Client, world: StoredWorld) -> None:
    await world.accept("root", "collect")
    sizes: list[tuple[int, int]] = []
    async for chain in sdk.follow_chain("root"):
        done = sum(run.finished for run in chain.runs)
        if (len(chain.views), done) not in sizes:
            sizes.append((len(chain.views), done))
        if len(sizes) == 1:
            await world.accept("one", "unpack", root_request_id="root", parent_run_id=run_id("root", "collect"))
            await world.finish("root", "collect")
            await world.finish("one", "unpack")
    assert sizes[0] == (1, 0)
    assert sizes[-1] == (2, 2)


async def test_a_chain_in_vain_tells_how_far_it_came(sdk: Client, world: StoredWorld) -> None:
    await grown_chain(world)
    with pytest.raises(WaitExpiredError) as caught:
        await sdk.chain("root", wait=0.3)
    assert isinstance(caught.value.partial, Chain)
    assert len(caught.value.partial.views) == 3
    with pytest.raises(WaitExpiredError):
        await sdk.chain("not-there-yet", wait=0.3)
    with pytest.raises(UnknownIdError):
        await sdk.chain("not-there-yet")


# news


async def test_news_of_runs_and_of_events_that_nothing_matched(sdk: Client, world: StoredWorld) -> None:
    news: list[RunStatusDocument | RequestRecord] = []

    async def listen() -> None:
        async for item in sdk.watch_runs():
            news.append(item)

    listening = asyncio.create_task(listen())

    async def heard() -> bool:
        await world.running("r0", "f")
        return bool(news)

    await eventually(heard, what="the first status")
    await world.accept("r1", "f")
    await world.accept("r2")
    await world.running("r1", "f")

    async def all_heard() -> bool:
        return isinstance(news[-1], RunStatusDocument) and news[-1].request_id == "r1"

    await eventually(all_heard, what="the last status")
    listening.cancel()
    assert [item.request_id for item in news if isinstance(item, RequestRecord)] == ["r2"]


# the connection


async def test_both_ways_to_connect(server: NatsServer) -> None:
    client = await Client.connect(ConnectionOptions(url=server.url), names=wire.Names("blue", "b"))
    assert client.names.instance == "blue"
    await client.close()
    await client.close()
    async with Client.connect(server.url) as entered:
        assert entered.options.url == server.url


async def test_a_closed_client_says_so(sdk: Client) -> None:
    await sdk.close()
    with pytest.raises(ServerUnreachableError):
        await sdk.publish("orders", b"")
    with pytest.raises(ServerUnreachableError):
        await sdk.result("r1")


async def test_without_a_controller_questions_to_it_fail_at_once(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f")
    began = asyncio.get_running_loop().time()
    for ask in (sdk.functions(), sdk.explain("a"), sdk.reload(), sdk.pause("f"), sdk.resume("f"), sdk.cancel("r1")):
        with pytest.raises(ServerUnreachableError, match="no controller"):
            await ask
    assert asyncio.get_running_loop().time() - began < 8


async def test_two_instances_on_one_server_do_not_see_each_other(server: NatsServer, sdk: Client) -> None:
    async with Client.connect(server.url, names=wire.Names("green", "green-events")) as other:
        with pytest.raises(ServerUnreachableError, match="GREEN_"):
            await other.runs()


async def followed(world: StoredWorld) -> None:
    """Wait until somebody follows RESULTS (or STATUS is of no interest): then the wait has really begun."""
    js = world.client.jetstream()

    async def consumers() -> bool:
        return (await js.stream_info(NAMES.results_stream)).state.consumer_count > 0

    await eventually(consumers, what="a follower")


async def not_yet(task: asyncio.Task[Any]) -> None:
    """The task has had time for several looks, and has not ended."""
    done, _ = await asyncio.wait([task], timeout=0.4)
    assert not done


def json_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
