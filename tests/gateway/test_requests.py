"""Requests over HTTP: every state told apart, polling with tags and with patience, input, chain, cancel, replay."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.errors import RangeRefusedError
from invoker.gateway.content import wanted_part
from invoker.nats_server import NatsServer
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import function as function_document
from tests.custody.workload import write_catalog
from tests.gateway.reading import finished, get, post, publish, world_of
from tests.gateway.stack import FILE, INPUT, Stack, running_gateway, session
from tests.integration.stored_world import put_letter

POLLS = 1_000
NASTY = (
    "..%2f..%2fetc%2fpasswd", "%2e%2e", "'%20OR%20'1'='1", "1;DROP%20TABLE%20runs", "%00", "a%00b", "%0d%0aX-Evil:%201",
    "*", ">", "invoker.accepted.*", "$JS.API.STREAM.DELETE.X", "%F0%9F%92%A9", "a" * 3_000, "@latest", "%25", "{}",
    "%ff%fe", "01", "🦄",
)  # fmt: skip


async def test_every_state_is_told_apart(http: aiohttp.ClientSession, stack: Stack) -> None:
    unknown = await get(http, f"/v1/requests/{stack.client.new_request_id()}", 404)
    assert (unknown["code"], unknown["status"]) == ("unknown", 404)
    old = wire.new_request_id(datetime.now(UTC) - timedelta(days=3), bytes(10))
    assert (await get(http, f"/v1/requests/{old}", 410))["code"] == "expired"

    nothing = await get(http, f"/v1/requests/{await publish(http, 'nobody.listens')}?wait=60")
    assert (nothing["state"], nothing["runs"]) == ("no-match", [])

    await post(http, "/v1/functions/gate/pause", 200)
    waiting = await publish(http, "gate.x")
    queued = await get(http, f"/v1/requests/{waiting}")
    assert (queued["state"], [run["state"] for run in queued["runs"]]) == ("queued", ["queued"])
    assert queued["runs"][0]["reason"] is None
    assert queued["runs"][0]["finished_at"] is None
    await post(http, "/v1/functions/gate/resume", 200)

    async def running() -> Any:
        document = await get(http, f"/v1/requests/{waiting}")
        return document if document["state"] == "running" else None

    started = await eventually(running, what="the run's start")
    assert started["runs"][0]["started_at"] is not None
    assert started["runs"][0]["attempts"][0]["number"] == 1
    stack.open_gate(waiting)
    done = await finished(http, waiting)
    assert (done["state"], done["runs"][0]["state"], done["runs"][0]["reason"]) == (
        "finished",
        "succeeded",
        "completed",
    )

    mixed = await finished(http, await publish(http, "half.x"))
    assert {run["function"]: (run["state"], run["class"]) for run in mixed["runs"]} == {
        "half-good": ("succeeded", "success"), "half-bad": ("failed", "function"),
    }  # fmt: skip
    assert mixed["runs"][1]["attempts"][0]["exit_code"] == 3 or mixed["runs"][0]["attempts"][0]["exit_code"] == 3


async def test_an_event_that_no_controller_took_yet_is_queued_and_not_unknown(
    server: NatsServer, tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "catalog", function_document("echo", "echo.>", INPUT, **FILE))
    async with running_controller(server.url, catalog, tmp_path / "state"):
        pass  # made the streams, and went
    async with running_gateway(server.url, gateway_accept_seconds=0) as up, session(up.url) as http:
        request_id = await publish(http, "echo.x", b"early")
        document = await get(http, f"/v1/requests/{request_id}?wait=0.2")
        assert (document["state"], document["accepted_at"], document["runs"]) == ("queued", None, [])
        assert (await get(http, f"/v1/requests/{request_id}/input", 409))["code"] == "not-ready"
        for verb in ("cancel", "replay"):
            assert (await post(http, f"/v1/requests/{request_id}/{verb}", 409))["code"] == "not-ready"
        functions = await get(http, "/v1/functions", 503)
        assert functions["code"] == "server-unreachable"
        waiting = asyncio.create_task(finished(http, request_id))
        async with running_controller(server.url, catalog, tmp_path / "state"):
            assert (await waiting)["runs"][0]["output"]["inline_base64"] == "ZWFybHk="


async def test_a_wait_for_an_event_that_becomes_a_dead_letter_ends_with_that(server: NatsServer) -> None:
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        world = world_of(client)
        async with running_gateway(server.url, gateway_accept_seconds=0) as up, session(up.url) as http:
            request_id = await publish(http, "echo.x", b"early")
            # Nobody waits that out.
            waiting = asyncio.create_task(get(http, f"/v1/requests/{request_id}?wait=250", 404))
            await eventually(lambda: _awaited(up.gateway.client, request_id), what="one who waits")
            letter = {
                "id": "d1", "request_id": request_id, "topic": "echo.x", "reason": "invalid-topic",
                "message": "no good", "dead_at": "2026-03-01T00:00:00Z",
            }  # fmt: skip
            await put_letter(world, letter)
            await world.take_event()
            async with asyncio.timeout(60):
                problem = await waiting
            assert (problem["code"], problem["dead_id"]) == ("unknown", "d1")
            assert "no good" in problem["detail"]


async def _awaited(client: Client, request_id: str) -> bool:
    """Whether somebody waits for news of the request: he has read how it stands."""
    return any(watch._queue._getters for watch in client.feed._by_request.get(request_id, ()))  # type: ignore[attr-defined]  # asyncio's own, untyped


async def test_a_poller_that_knows_the_newest_is_answered_304(http: aiohttp.ClientSession, stack: Stack) -> None:
    request_id = await publish(http, "gate.x")
    await eventually(lambda: _is(http, request_id, "running"), what="the run's start")

    async def unchanged() -> str | None:
        """The tag of the newest; None when there were other news of the run in between."""
        async with http.get(f"/v1/requests/{request_id}") as answer:
            tag = answer.headers["ETag"]
        async with http.get(f"/v1/requests/{request_id}", headers={"If-None-Match": f'"other", {tag}'}) as answer:
            if answer.status == 200:
                return None
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag)
        return tag

    tag = await eventually(unchanged, what="a request that stays as it is")
    newer = asyncio.create_task(_get_newer(http, request_id, tag))
    stack.open_gate(request_id)
    status, other, state = await newer
    assert (status, state) == (200, "finished")
    assert other != tag
    headers = {"If-None-Match": other}
    async with http.get(f"/v1/requests/{request_id}?wait=60", headers=headers) as answer:
        assert answer.status == 304, "a finished request is not waited for"


async def _is(http: aiohttp.ClientSession, request_id: str, state: str) -> bool:
    return bool((await get(http, f"/v1/requests/{request_id}"))["state"] == state)


async def _get_newer(http: aiohttp.ClientSession, request_id: str, tag: str) -> tuple[int, str, str]:
    async with http.get(f"/v1/requests/{request_id}?wait=60", headers={"If-None-Match": tag}) as answer:
        return answer.status, answer.headers["ETag"], (await answer.json())["state"]


async def test_waiting_ends_with_the_request_or_with_its_time(http: aiohttp.ClientSession, stack: Stack) -> None:
    request_id = await publish(http, "gate.x")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await get(http, f"/v1/requests/{request_id}?wait=0.3"))["state"] != "finished"
    assert 0.25 < loop.time() - began < 50
    preferring = asyncio.create_task(get(http, f"/v1/requests/{request_id}", Prefer="respond-async, wait=60"))
    run_id = wire.run_id_of(request_id, "gate")
    await eventually(lambda: _is_found(http, run_id), what="the run by its id, behind the record that names it")
    run = asyncio.create_task(get(http, f"/v1/runs/{run_id}?wait=60"))
    output = asyncio.create_task(_bytes(http, f"/v1/runs/{run_id}/output?wait=60"))
    await eventually(lambda: _waiting(stack, request_id, 3), what="three who wait")
    stack.open_gate(request_id)
    assert (await preferring)["state"] == "finished"
    assert (await run)["state"] == "succeeded"
    assert await output == b"x"
    assert loop.time() - began < 55
    for wait in ("-1", "nan", "inf", "abc", "1e9"):
        assert (await get(http, f"/v1/requests/{request_id}?wait={wait}", 400))["code"] == "invalid-request"


async def _is_found(http: aiohttp.ClientSession, run_id: str) -> bool:
    async with http.get(f"/v1/runs/{run_id}") as answer:
        return answer.status == 200


async def _waiting(stack: Stack, request_id: str, count: int) -> bool:
    return len(stack.client.feed._by_request.get(request_id, ())) >= count


async def _bytes(http: aiohttp.ClientSession, path: str) -> bytes:
    async with http.get(path) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def test_a_thousand_wait_without_a_consumer_each_and_who_hangs_up_is_forgotten(stack: Stack) -> None:
    async with session(stack.url, connector=aiohttp.TCPConnector(limit=0)) as http:
        ids = [await publish(http, "gate.x") for _ in range(10)]
        state = await stack.client._reader.state(stack.client.names.results_stream)
        consumers = state.state.consumer_count
        polls = [asyncio.create_task(get(http, f"/v1/requests/{ids[n % 10]}?wait=250")) for n in range(POLLS)]
        for request_id in ids:
            await eventually(lambda one=request_id: _waiting(stack, one, POLLS // 10), within=60, what="all who wait")
        state = await stack.client._reader.state(stack.client.names.results_stream)
        assert state.state.consumer_count <= consumers + 2
        for poll in polls[::10]:  # all that wait for the first request hang up
            poll.cancel()

        async def forgotten() -> bool:
            return ids[0] not in stack.client.feed._by_request

        await eventually(forgotten, what="the forgetting of who hung up")
        for request_id in ids:
            stack.open_gate(request_id)
        answers = await asyncio.gather(*polls, return_exceptions=True)
    states = [one["state"] for one in answers if isinstance(one, dict)]
    assert states == ["finished"] * (POLLS * 9 // 10)


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        ("bytes=0-0", 10, (0, 0)), ("bytes=0-", 10, (0, 9)), ("bytes=9-", 10, (9, 9)),
        ("bytes=2-5", 10, (2, 5)), ("bytes=2-500", 10, (2, 9)), ("bytes=-3", 10, (7, 9)), ("bytes=-300", 10, (0, 9)),
        ("bytes= 1 - 2 ", 10, (1, 2)),
        (None, 10, None), ("bytes=", 10, None), ("bytes=-", 10, None), ("bytes=5-2", 10, None), ("lines=0-1", 10, None),
        ("bytes=0-1,3-4", 10, None), ("bytes=a-b", 10, None), ("bytes=--1", 10, None), ("bytes=0x1-2", 10, None),
        ("bytes=10-", 10, 416), ("bytes=10-12", 10, 416), ("bytes=-0", 10, 416), ("bytes=0-0", 0, 416),
        ("bytes=-5", 0, 416), ("bytes=9999999999999999999-", 10, 416), ("bytes=" + "0-0," * 500, 10, None),
    ],
)  # fmt: skip
def test_the_part_that_a_range_asks_for(header: str | None, size: int, part: Any) -> None:
    if part == 416:
        with pytest.raises(RangeRefusedError):
            wanted_part(header, size)
        return
    found = wanted_part(header, size)
    assert (None if found is None else (found.first, found.last)) == part


async def test_the_input_comes_whole_and_in_parts_and_no_browser_runs_it(http: aiohttp.ClientSession) -> None:
    page = b"<script>alert(1)</script>"
    request_id = await publish(http, "echo.x", page, **{"Content-Type": "text/html"})
    await finished(http, request_id)
    path = f"/v1/requests/{request_id}/input"
    async with http.get(path) as answer:
        assert (answer.status, await answer.read(), answer.headers["Content-Type"]) == (200, page, "text/html")
        headers = answer.headers
    assert headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"] == f'"{wire.sha256_hex(page)}"'
    async with http.head(path) as answer:
        assert (answer.status, answer.headers["Content-Length"], answer.headers["ETag"]) == (200, "25", headers["ETag"])
    cases = {
        "bytes=0-0": (206, page[:1], "bytes 0-0/25"), "bytes=-6": (206, page[-6:], "bytes 19-24/25"),
        "bytes=8-": (206, page[8:], "bytes 8-24/25"), "bytes=1-2,4-5": (200, page, None),
    }  # fmt: skip
    for asked, (status, data, content_range) in cases.items():
        async with http.get(path, headers={"Range": asked}) as answer:
            assert (answer.status, await answer.read()) == (status, data), asked
            assert answer.headers.get("Content-Range") == content_range
    async with http.get(path, headers={"Range": "bytes=25-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */25")
        assert (await answer.json())["code"] == "range-not-satisfiable"
    async with http.get(path, headers={"Range": "bytes=0-0", "If-Range": '"another"'}) as answer:
        assert (answer.status, await answer.read()) == (200, page)
    async with http.get(path, headers={"If-None-Match": headers["ETag"]}) as answer:
        assert answer.status == 304


async def test_a_chain_is_a_tree(http: aiohttp.ClientSession) -> None:
    request_id = await publish(http, "chain.begin", b"data")
    chain = await get(http, f"/v1/requests/{request_id}/chain?wait=60")
    assert chain["settled"] is True
    assert [run["function"] for run in chain["runs"]] == ["first"]
    (child,) = chain["children"]
    assert [run["function"] for run in child["runs"]] == ["second"]
    assert child["hops"] == 1
    assert child["parent_run_id"] == chain["runs"][0]["run_id"]
    again = await get(http, f"/v1/requests/{child['request_id']}/chain")
    assert again["request_id"] == request_id, "the chain is told from its root, whichever of its requests is named"


async def test_cancel_ends_what_runs_and_leaves_what_is_done(http: aiohttp.ClientSession) -> None:
    request_id = await publish(http, "gate.x")
    await eventually(lambda: _is(http, request_id, "running"), what="the run's start")
    run_id = wire.run_id_of(request_id, "gate")
    assert (await post(http, f"/v1/requests/{request_id}/cancel", 404, {"function": "other"}))["code"] == "unknown"
    for wrong in ([], {"function": 1}, {"message": "x" * 501}, "text"):
        refused = await post(http, f"/v1/requests/{request_id}/cancel", 400, wrong)
        assert refused["errors"][0]["pointer"].startswith("/")
    async with http.post(f"/v1/requests/{request_id}/cancel", data=b"x" * 20_000) as answer:
        assert answer.status == 400
    done = await post(http, f"/v1/requests/{request_id}/cancel", 200, {"message": "not needed any more"})
    assert done == {"cancelled": [run_id], "already_finished": []}
    run = await get(http, f"/v1/runs/{run_id}")
    assert (run["state"], run["message"]) == ("cancelled", "not needed any more")
    assert await post(http, f"/v1/runs/{run_id}/cancel", 200) == {"cancelled": [], "already_finished": [run_id]}


async def test_replay_makes_a_new_request_with_what_it_replaces(http: aiohttp.ClientSession) -> None:
    kind = {"Content-Type": "application/json"}
    one, two = b'{"number": 1, "items": []}', b'{"number": 2, "items": []}'
    original = await publish(http, "orders.x?level=1&note=keep", one, **kind)
    await finished(http, original)
    again = await post(http, f"/v1/requests/{original}/replay", 202)
    assert again["request_id"] != original
    document = await finished(http, again["request_id"])
    assert (document["replay_of"], document["topic"]) == (original, "orders.x")
    assert (document["params"], _output(document)) == ({"level": "1", "note": "keep"}, one)
    run_id = wire.run_id_of(original, "order")
    async with http.post(f"/v1/runs/{run_id}/replay?level=2", data=two, headers=kind) as answer:
        made = (await answer.json())["request_id"]
        assert (answer.status, answer.headers["Location"]) == (202, f"/v1/requests/{made}")
    changed = await finished(http, made)
    assert (changed["params"], _output(changed)) == ({"level": "2", "note": "keep"}, two)
    assert (changed["topic"], changed["replay_of"]) == ("orders.x", original)
    assert (await post(http, f"/v1/requests/{original}/replay?function=echo", 404))["code"] == "unknown"
    assert (await post(http, f"/v1/requests/{original}/replay?level=1&LEVEL=2", 400))["code"] == "invalid-request"


async def test_a_replay_with_a_key_is_one_request_however_often_it_is_sent(http: aiohttp.ClientSession) -> None:
    trace = "00-{}-b7ad6b7169203331-01".format
    old = {"X-Request-Id": "first-call", "traceparent": trace("1" * 32), "tracestate": "a=b"}
    original = await publish(http, "mirror.again", b"x", **old)
    await finished(http, original)
    headers = {"Idempotency-Key": "again-1", "X-Request-Id": "second-call", "traceparent": trace("2" * 32)}
    path, duplicates = f"/v1/requests/{original}/replay", []
    for _ in range(2):
        async with http.post(path, headers=headers) as answer:
            document = await answer.json()
            assert (answer.status, document["request_id"]) == (202, "again-1")
            duplicates.append(document["duplicate"])
    assert duplicates == [False, True]
    seen = json.loads(_output(await finished(http, "again-1")))["headers"]
    found = {name.lower(): value for name, value in seen.items()}
    assert (found["x-request-id"], found["traceparent"]) == ("second-call", headers["traceparent"])
    assert "tracestate" not in found, "the state of another trace"
    async with http.post(path, data=b"other", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (422, "idempotency-mismatch")


async def test_a_replay_may_be_of_nothing_at_all(http: aiohttp.ClientSession) -> None:
    original = await publish(http, "pair.x", b"something")
    await finished(http, original)
    made = await post(http, f"/v1/requests/{original}/replay?function=pair-b&empty=true", 202)
    emptied = await finished(http, made["request_id"])
    assert [run["function"] for run in emptied["runs"]] == ["pair-b"]
    assert _output(emptied) == b"b "
    assert (await post(http, f"/v1/requests/{original}/replay?empty=true", 400, data=b"x"))["code"] == "invalid-request"


def _output(document: dict[str, Any]) -> bytes:
    (run,) = document["runs"]
    assert run["state"] == "succeeded", (run["message"], run["errors"])
    return base64.b64decode(run["output"]["inline_base64"])


async def test_ids_that_mean_harm_are_unknown_and_nothing_more(http: aiohttp.ClientSession) -> None:
    paths = [
        f"/v1/{what}/{given}{more}"
        for given in NASTY
        for what, more in (
            ("requests", ""), ("requests", "/input"), ("requests", "/chain"), ("requests", "/stream"), ("runs", ""),
            ("runs", "/output"), ("runs", "/logs"), ("functions", ""), ("dead-letters", ""), ("dead-letters", "/body"),
        )
    ]  # fmt: skip
    for path in paths:
        async with http.get(URL(str(http._base_url).rstrip("/") + path, encoded=True)) as answer:
            text = await answer.text()
            assert answer.status in (400, 404), (path[:120], answer.status, text[:300])
            document = json.loads(text)
            assert len(document["detail"]) < 400
            assert "X-Evil" not in answer.headers
    for verb in ("cancel", "replay"):
        for what in ("requests", "runs"):
            await post(http, f"/v1/{what}/nothing-of-that-id/{verb}", 404)
    assert (await get(http, "/v1/runs?request='%20OR%201=1"))["items"] == []
