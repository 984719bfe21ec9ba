"""Functions and dead letters over HTTP: what there is, why something would run, pause, resume, reload, redrive."""

from __future__ import annotations

import base64
import io

import aiohttp
import pytest

from invoker import wire
from tests.conftest import eventually
from tests.custody.workload import function, put_function
from tests.gateway.reading import Document, finished, get, post, publish, world_of
from tests.gateway.stack import FILE, INPUT, Stack


async def test_functions_as_the_controllers_have_them(http: aiohttp.ClientSession) -> None:
    listed = await get(http, "/v1/functions")
    assert (listed["engine"], listed["next"], listed["problem"]) == ("local", None, None)
    order = next(one for one in listed["items"] if one["name"] == "order")
    assert order == await get(http, "/v1/functions/order")
    assert (order["status"], order["labels"], order["parameters"][0]["name"]) == ("ready", {"team": "sales"}, "level")
    assert order["input_schema"]["required"] == ["number", "items"]
    assert (await get(http, "/v1/functions/nobody", 404))["code"] == "unknown"
    async with http.get("/v1/functions/order") as answer:
        tag = answer.headers["ETag"]
    async with http.get("/v1/functions/order", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304


async def test_a_paused_function_keeps_its_runs(http: aiohttp.ClientSession) -> None:
    assert await post(http, "/v1/functions/echo/pause", 200) == {"function": "echo", "paused": True}
    assert await post(http, "/v1/functions/echo/pause", 200) == {"function": "echo", "paused": True}
    request_id = await publish(http, "echo.kept")
    assert (await get(http, "/v1/functions/echo"))["paused"] is True
    assert (await get(http, f"/v1/requests/{request_id}?wait=0.2"))["state"] == "queued"
    assert await post(http, "/v1/functions/echo/resume", 200) == {"function": "echo", "paused": False}
    assert (await finished(http, request_id))["runs"][0]["state"] == "succeeded"
    assert (await post(http, "/v1/functions/nobody/pause", 404))["code"] == "unknown"


async def test_explain_says_which_clause_decided(http: aiohttp.ClientSession) -> None:
    told = await post(http, "/v1/explain", 200, {"topic": "pair.x", "data": {"any": 1}, "headers": {"A": "b"}})
    assert told["matched"] == ["pair-a", "pair-b"]
    assert {one["function"] for one in told["subscriptions"] if one["matched"]} == {"pair-a", "pair-b"}
    near = await post(http, "/v1/explain", 200, {"topic": "orderz.x", "data_base64": "aGk="})
    assert near["nearest"][0] == {"pattern": "orders.*", "function": "order"}
    for wrong in (
        {}, {"topic": ""}, {"topic": "a b"}, {"topic": 3}, {"topic": "a", "data": 1, "data_base64": "aGk="},
        {"topic": "a", "data_base64": "?"}, {"topic": "a", "headers": {"a": "b\r\nc"}}, {"topic": "a", "headers": []},
    ):  # fmt: skip
        assert (await post(http, "/v1/explain", 400, wrong))["status"] == 400, wrong
    for body in (b"", b"{", b"[" * 10_000, b'{"topic": "\xff"}', b'{"topic": NaN}', b'{"topic":"' + b"a" * 2_000_000):
        async with http.post("/v1/explain", data=io.BytesIO(body)) as answer:
            assert answer.status == 400, body[:20]


async def test_a_reload_reads_the_folder_now(http: aiohttp.ClientSession, stack: Stack) -> None:
    put_function(stack.catalog, function("fresh", "fresh.*", INPUT, **FILE))
    loaded = await post(http, "/v1/reload", 200)
    assert loaded["broken"] == 0
    assert (await get(http, "/v1/functions/fresh"))["subscriptions"][0]["topic"] == "fresh.*"
    assert (await finished(http, await publish(http, "fresh.x")))["runs"][0]["state"] == "succeeded"


async def test_dead_letters_are_listed_read_and_sent_again(http: aiohttp.ClientSession, stack: Stack) -> None:
    letters = [await _dead(stack, number) for number in range(3)]
    page = await get(http, "/v1/dead-letters?limit=2")
    assert [one["id"] for one in page["items"]] == [letters[2]["id"], letters[1]["id"]]
    assert all(one["body"]["inline_base64"] is None for one in page["items"]), "no payload in a list"
    rest = await get(http, f"/v1/dead-letters?limit=2&cursor={page['next']}")
    assert ([one["id"] for one in rest["items"]], rest["next"]) == ([letters[0]["id"]], None)
    one = letters[0]
    path = f"/v1/dead-letters/{one['id']}"
    whole = await get(http, path)
    assert (whole["reason"], base64.b64decode(whole["body"]["inline_base64"])) == ("hop-limit", b"letter 0")
    async with http.get(f"{path}/body", headers={"Range": "bytes=-1"}) as answer:
        assert (answer.status, await answer.read()) == (206, b"0")
        assert answer.headers["Content-Disposition"].startswith("attachment")
    sent = await post(http, f"{path}/redrive", 202)
    assert (await post(http, f"{path}/redrive", 202))["request_id"] == sent["request_id"], "pressed twice, sent once"
    document = await finished(http, sent["request_id"])
    assert base64.b64decode(document["runs"][0]["output"]["inline_base64"]) == b"letter 0"
    async with http.post(f"{path}/redrive", data=b"edited", headers={"Content-Type": "text/plain"}) as answer:
        edited = await answer.json()
        assert (answer.status, answer.headers["Location"]) == (202, f"/v1/requests/{edited['request_id']}")
    document = await finished(http, edited["request_id"])
    assert base64.b64decode(document["runs"][0]["output"]["inline_base64"]) == b"edited"
    assert (document["replay_of"], document["topic"]) == (whole["request_id"], "echo.dead")
    for _ in range(2):
        async with http.post(f"{path}/redrive", data=b"once", headers={"Idempotency-Key": "redriven-1"}) as answer:
            assert (answer.status, (await answer.json())["request_id"]) == (202, "redriven-1")
    for _ in range(2):
        async with http.post(f"{path}/redrive", headers={"Idempotency-Key": "as-it-was"}) as answer:
            assert (answer.status, (await answer.json())["request_id"]) == (202, "as-it-was")
    document = await finished(http, "as-it-was")
    assert base64.b64decode(document["runs"][0]["output"]["inline_base64"]) == b"letter 0"
    assert document["replay_of"] == whole["request_id"]
    for wrong in ("x", "-1", "9" * 30):
        assert (await get(http, f"/v1/dead-letters?cursor={wrong}", 400))["code"] == "invalid-request"
    assert (await get(http, f"/v1/dead-letters/{one['id'][:8]}", 404))["code"] == "unknown"


async def _dead(stack: Stack, number: int) -> Document:
    """An event that has gone too far, so that no controller makes runs of it."""
    world = world_of(stack.client)
    request_id = f"too-far-{number}"
    headers = {wire.H_MESSAGE_ID: request_id, wire.H_HOPS: "33", wire.H_ROOT_REQUEST_ID: "root"}
    await world.client.jetstream().publish("events.echo.dead", f"letter {number}".encode(), headers=headers)

    async def there() -> Document | None:
        newest = await stack.client.dead(limit=1)
        return newest[0].model_dump() if newest and newest[0].request_id == request_id else None

    return await eventually(there, what="the dead letter")


async def test_one_key_replays_one_function(http: aiohttp.ClientSession) -> None:
    """A call of one function is another event than one of another, also of the same original."""
    original = await publish(http, "pair.x")
    await finished(http, original)
    path, key = f"/v1/requests/{original}/replay", {"Idempotency-Key": "replayed-a"}
    for _ in range(2):
        made = await post(http, f"{path}?function=pair-a", 202, headers=key)
        assert made["request_id"] == "replayed-a"
    for when in ("before its acceptance or after", "after"):
        for other in ("?function=pair-b", "?function=pair-a&level=3"):
            refused = await post(http, path + other, 422, headers=key)
            assert refused["code"] == "idempotency-mismatch", when
        assert [run["function"] for run in (await finished(http, "replayed-a"))["runs"]] == ["pair-a"]
    assert "another function" in (await post(http, f"{path}?function=pair-b", 422, headers=key))["detail"]
    called = {"Idempotency-Key": "called-once"}
    await post(http, "/v1/functions/echo/calls", 202, headers=called)
    assert (await post(http, "/v1/functions/mirror/calls", 422, headers=called))["code"] == "idempotency-mismatch"


EVENT = '{"specversion": "1.0", "source": "/a", "type": "echo.x", "id": "1"'


@pytest.mark.parametrize(
    ("path", "body", "kind", "name"),
    [
        ("/v1/requests/twice/cancel", '{"function": "a", "function": "echo"}', "json", "function"),
        ("/v1/explain", '{"topic": "echo.x", "topic": "pair.x"}', "json", "topic"),
        ("/v1/explain", '{"topic": "echo.x", "headers": {"a": "1", "a": "2"}}', "json", "a"),
        ("/v1/events", EVENT + ', "id": "2"}', "cloudevents+json", "id"),
        ("/v1/events", EVENT + ', "type": "pair.x"}', "cloudevents+json", "type"),
        ("/v1/topics/echo.x", EVENT + ', "source": "/b"}', "cloudevents+json", "source"),
    ],
)
async def test_a_member_that_stands_twice_is_refused_by_its_name(
    http: aiohttp.ClientSession, path: str, body: str, kind: str, name: str
) -> None:
    if "twice" in path:
        await finished(http, await publish(http, "echo.x", **{"Idempotency-Key": "twice"}))  # type: ignore[arg-type] # a header
    refused = await post(http, path, 400, data=body, headers={"Content-Type": f"application/{kind}"})
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("invalid-request", f"/{name}")
    assert "twice" in refused["detail"]
