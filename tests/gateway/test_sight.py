"""What a caller may not see: it answers exactly as what never was, and is left out of every list and stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from invoker import wire
from invoker.gateway.app import RunningGateway
from tests.conftest import eventually
from tests.gateway.access_world import add_key, bearer
from tests.gateway.reading import Document, events, finished, get, post, publish, world_of
from tests.gateway.stack import Stack, running_gateway, session
from tests.integration.stored_world import StoredWorld


@dataclass
class Guarded:
    """A gateway beside the stack's own that asks for keys, and who calls it."""

    up: RunningGateway
    key: str
    admin: aiohttp.ClientSession
    narrow: aiohttp.ClientSession
    half: aiohttp.ClientSession


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    admin = add_key(file, "admin", "admin")
    narrow = add_key(file, "narrow", "read,publish pair.* pair-a", "operate own.>")
    half = add_key(file, "half", "operate pair.* pair-a")
    async with (
        running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as up,
        session(up.url, headers=bearer(admin)) as all_of_it,
        session(up.url, headers=bearer(narrow)) as little,
        session(up.url, headers=bearer(half)) as one_function,
    ):
        await up.gateway.client.feed.live()
        yield Guarded(up, narrow, all_of_it, little, one_function)


@pytest.fixture
def foreign_paths() -> tuple[str, ...]:
    return ("", "/input", "/chain", "/stream")


async def test_a_foreign_request_answers_like_one_that_never_was(
    guarded: Guarded, foreign_paths: tuple[str, ...], stack: Stack
) -> None:
    foreign = await publish(guarded.admin, "echo.secret")
    await finished(guarded.admin, foreign)
    never = stack.client.new_request_id()
    for path in foreign_paths:
        found = await get(guarded.narrow, f"/v1/requests/{foreign}{path}", 404)
        assert found == _renamed(await get(guarded.narrow, f"/v1/requests/{never}{path}", 404), never, foreign)
    for verb in ("cancel", "replay"):
        found = await post(guarded.narrow, f"/v1/requests/{foreign}/{verb}", 404)
        assert found == _renamed(await post(guarded.narrow, f"/v1/requests/{never}/{verb}", 404), never, foreign)
    run, other = wire.run_id_of(foreign, "echo"), wire.run_id_of(never, "echo")
    for path in ("", "/output", "/logs"):
        found = await get(guarded.narrow, f"/v1/runs/{run}{path}", 404)
        assert found == _renamed(await get(guarded.narrow, f"/v1/runs/{other}{path}", 404), other, run)
    for verb in ("cancel", "replay"):
        found = await post(guarded.narrow, f"/v1/runs/{run}/{verb}", 404)
        assert found == _renamed(await post(guarded.narrow, f"/v1/runs/{other}/{verb}", 404), other, run)
    for path in ("", "?wait=5"):
        assert (await get(guarded.admin, f"/v1/requests/{foreign}{path}"))["state"] == "finished"


def _renamed(document: Document, old: str, new: str) -> Document:
    return {key: value.replace(old, new) if isinstance(value, str) else value for key, value in document.items()}


async def test_of_a_request_only_the_runs_that_may_be_seen(guarded: Guarded) -> None:
    request_id = await publish(guarded.narrow, "pair.x")
    await finished(guarded.admin, request_id)
    seen = await get(guarded.narrow, f"/v1/requests/{request_id}")
    assert [run["function"] for run in seen["runs"]] == ["pair-a"]
    whole = await get(guarded.admin, f"/v1/requests/{request_id}")
    assert [run["function"] for run in whole["runs"]] == ["pair-a", "pair-b"]
    assert (await get(guarded.narrow, f"/v1/runs/{wire.run_id_of(request_id, 'pair-b')}", 404))["code"] == "unknown"
    refused = await post(guarded.narrow, f"/v1/runs/{wire.run_id_of(request_id, 'pair-a')}/cancel", 403)
    assert refused["code"] == "forbidden", "seen, and not to be changed"
    assert (await post(guarded.narrow, f"/v1/requests/{request_id}/cancel", 403))["code"] == "forbidden"
    assert (await post(guarded.narrow, f"/v1/requests/{request_id}/replay", 403))["code"] == "forbidden"
    async with events(guarded.narrow, f"/v1/requests/{request_id}/stream") as stream:
        told = await stream.rest()
    assert [(one.event, one.data.get("function")) for one in told] == [
        ("accepted", None), ("result", "pair-a"), ("end", None),
    ]  # fmt: skip
    assert (told[0].data["runs"], told[0].data["functions"]) == (1, ["pair-a"])


async def test_who_cancels_a_request_cancels_nothing_that_he_does_not_see(guarded: Guarded) -> None:
    for name in ("pair-a", "pair-b"):
        await post(guarded.admin, f"/v1/functions/{name}/pause", 200)
    request_id = await publish(guarded.admin, "pair.x")
    await eventually(lambda: _accepted(guarded.admin, request_id), what="the acceptance")
    assert (await post(guarded.half, f"/v1/requests/{request_id}/cancel", 404, {"function": "pair-b"}))["code"]
    done = await post(guarded.half, f"/v1/requests/{request_id}/cancel", 200)
    assert done == {"cancelled": [wire.run_id_of(request_id, "pair-a")], "already_finished": []}
    left = await get(guarded.admin, f"/v1/requests/{request_id}")
    assert [run["state"] for run in left["runs"]] == ["cancelled", "queued"]
    for name in ("pair-a", "pair-b"):
        await post(guarded.admin, f"/v1/functions/{name}/resume", 200)


async def _accepted(http: aiohttp.ClientSession, request_id: str) -> bool:
    return bool((await get(http, f"/v1/requests/{request_id}"))["accepted_at"])


async def test_a_foreign_function_is_not_there(guarded: Guarded) -> None:
    assert [one["name"] for one in (await get(guarded.half, "/v1/functions"))["items"]] == ["pair-a"]
    foreign = await get(guarded.half, "/v1/functions/pair-b", 404)
    assert foreign == _renamed(await get(guarded.half, "/v1/functions/pair-x", 404), "pair-x", "pair-b")
    assert (await post(guarded.half, "/v1/functions/pair-b/pause", 404))["code"] == "unknown"
    told = await post(guarded.half, "/v1/explain", 200, {"topic": "pair.x"})
    assert (told["matched"], {one["function"] for one in told["subscriptions"]}) == (["pair-a"], {"pair-a"})
    assert (await post(guarded.half, "/v1/explain", 403, {"topic": "echo.x"}))["code"] == "forbidden"
    assert (await post(guarded.half, "/v1/reload", 403))["code"] == "forbidden"


async def test_lists_and_streams_leave_out_what_is_foreign(guarded: Guarded) -> None:
    async with events(guarded.narrow, "/v1/stream") as stream:
        await stream.until("open")
        for topic in ("echo.secret", "pair.seen", "nobody.listens"):
            await finished(guarded.admin, await publish(guarded.admin, topic))
        last = await publish(guarded.narrow, "pair.last")
        told = []
        while not told or told[-1].event != "result" or told[-1].data["request_id"] != last:
            event = await stream.next()
            assert event is not None
            told.append(event)
    assert {one.data["topic"] for one in told} == {"pair.seen", "pair.last"}
    assert {one.data.get("function") for one in told} <= {None, "pair-a"}
    rows = (await get(guarded.narrow, "/v1/runs?limit=500"))["items"]
    assert {(row["topic"].split(".")[0], row["function"]) for row in rows} == {("pair", "pair-a")}
    assert {one["name"] for one in (await get(guarded.narrow, "/v1/functions"))["items"]} == {"pair-a"} | _everywhere()
    assert (await get(guarded.narrow, "/v1/runs?function=echo"))["items"] == []


def _everywhere() -> set[str]:
    """The key's second scope names no function, so it covers all of them: on its own topics."""
    return {
        "echo", "mirror", "fail", "gate", "pair-b", "half-good", "half-bad", "order", "bytes", "first", "second",
    }  # fmt: skip


async def test_a_foreign_dead_letter_is_not_there(guarded: Guarded, stack: Stack) -> None:
    world = world_of(stack.client)
    await _put(world, "foreign1", "echo.secret")
    await _put(world, "own1", "own.topic")
    assert [one["id"] for one in (await get(guarded.narrow, "/v1/dead-letters"))["items"]] == ["own1"]
    for path in ("", "/body"):
        foreign = await get(guarded.narrow, f"/v1/dead-letters/foreign1{path}", 404)
        never = await get(guarded.narrow, f"/v1/dead-letters/never1{path}", 404)
        assert foreign == _renamed(never, "never1", "foreign1")
    await post(guarded.narrow, "/v1/dead-letters/foreign1/redrive", 404)
    # A request id whose event became a dead letter names the letter, but only to who may see it.
    assert "dead_id" in await get(guarded.admin, "/v1/requests/of-foreign1", 404)
    assert "dead_id" not in await get(guarded.narrow, "/v1/requests/of-foreign1", 404)
    assert "dead_id" in await get(guarded.narrow, "/v1/requests/of-own1", 404)


async def test_who_redrives_may_operate_whatever_it_runs(guarded: Guarded, stack: Stack) -> None:
    await _put(world_of(stack.client), "ofpair", "pair.dead")
    refused = await post(guarded.half, "/v1/dead-letters/ofpair/redrive", 403)
    assert refused["code"] == "forbidden", "the event would run pair-b as well"
    await _put(world_of(stack.client), "ownone", "own.dead")
    assert (await post(guarded.narrow, "/v1/dead-letters/ownone/redrive", 403, data=b"mine"))["code"] == "forbidden"


async def _put(world: StoredWorld, dead_id: str, topic: str) -> None:
    letter = {
        "id": dead_id, "reason": "hop-limit", "message": "too far", "topic": topic, "request_id": f"of-{dead_id}",
        "dead_at": "2026-01-01T00:00:00Z", "body": {"bytes": 2, "inline_base64": "aGk="},
    }  # fmt: skip
    headers = {wire.H_REQUEST_ID: f"of-{dead_id}", wire.H_REASON: "hop-limit"}
    subject = wire.Names().dead(dead_id)
    await world.client.jetstream().publish(subject, json.dumps(letter).encode(), headers=headers)


async def test_who_replays_runs_nothing_that_he_may_not_operate(guarded: Guarded) -> None:
    original = await publish(guarded.admin, "pair.x")
    await finished(guarded.admin, original)
    path = f"/v1/requests/{original}/replay"
    refused = await post(guarded.half, path, 403)
    assert refused["code"] == "forbidden"
    assert "pair-b" not in str(refused)
    assert (await post(guarded.half, f"{path}?function=pair-b", 404))["code"] == "unknown"
    made = await post(guarded.half, f"{path}?function=pair-a", 202)
    assert [run["function"] for run in (await finished(guarded.admin, made["request_id"]))["runs"]] == ["pair-a"]


async def test_who_replaces_what_he_replays_must_be_allowed_to_publish(guarded: Guarded) -> None:
    original = await publish(guarded.admin, "pair.x")
    await finished(guarded.admin, original)
    one = f"/v1/requests/{original}/replay?function=pair-a"
    run = f"/v1/runs/{wire.run_id_of(original, 'pair-a')}/replay"
    for path in (one, run):
        assert (await post(guarded.half, path, 403, data=b"mine"))["code"] == "forbidden"
    for path in (f"{one}&level=1", f"{run}?level=1", f"{one}&empty=true"):
        assert (await post(guarded.half, path, 403))["code"] == "forbidden"
    for path in (one, run):
        await post(guarded.admin, path, 202, data=b"mine")


async def test_without_a_key_nothing_is_read(guarded: Guarded) -> None:
    async with session(guarded.up.url) as http:
        for path in ("runs", "stream", "functions", "dead-letters", "requests/x", "runs/x/logs"):
            assert (await get(http, f"/v1/{path}", 401))["code"] == "unauthorized", path
    assert await eventually(lambda: _reads(guarded.narrow), what="the key that is still there")


async def _reads(http: aiohttp.ClientSession) -> bool:
    async with http.get("/v1/runs?limit=1") as answer:
        return answer.status == 200
