"""One request as the client reads it: told at every moment, found by every kind of id, its bytes wherever they are."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from invoker import Client, wire
from invoker.errors import AmbiguousIdError, ClaimCheckError, ExpiredError, UnknownIdError
from invoker.request import ClaimCheck, Content
from invoker.result import State
from invoker.views import RequestState
from tests.integration.stored_world import StoredWorld, followed, put_letter, run_id

pytestmark = pytest.mark.integration


# at every moment


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
    waiting = asyncio.create_task(sdk.result(receipt.request_id, wait=60))
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
