"""Publishing over HTTP: what becomes an event, what is answered, and what is refused before anything is stored."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from invoker.client import Client
from invoker.errors import IdempotencyMismatchError, PayloadTooLargeError, UnknownIdError
from invoker.nats_server import nats_server
from invoker.publish import DEFAULT_MAX_EVENT_BYTES
from tests.conftest import eventually
from tests.gateway.stack import Stack, running_gateway, running_stack, session
from tests.ports import lasting_port

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def post(
    http: aiohttp.ClientSession, path: str, data: Any = b"", **headers: str
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.post(path, data=data, headers=given) as answer:
        return answer.status, await answer.json(content_type=None), answer


async def stored_events(stack: Stack) -> int:
    """How many events there have ever been."""
    reader = stack.client._reader
    return (await reader.state(stack.client.names.events_stream)).state.last_seq


async def is_accepted(stack: Stack, request_id: str) -> bool:
    try:
        await stack.client.stored.request(request_id)
    except UnknownIdError:
        return False
    return True


async def test_a_publish_is_answered_with_its_runs(http: aiohttp.ClientSession, stack: Stack) -> None:
    status, document, answer = await post(http, "/v1/topics/pair.x", b"hello")
    assert status == 202, document
    assert answer.headers["Location"] == document["url"] == f"/v1/requests/{document['request_id']}"
    assert [(run["function"], run["state"]) for run in document["runs"]] == [
        ("pair-a", "queued"), ("pair-b", "queued")
    ]  # fmt: skip
    view = await stack.client.result(document["request_id"], wait=60)
    assert [await stack.client.output(result) for result in view.results] == [b"a hello", b"b hello"]
    assert [run["run_id"] for run in document["runs"]] == [run.run_id for run in view.runs]


async def test_what_nothing_matches_is_said_and_is_an_error_only_for_who_waits(http: aiohttp.ClientSession) -> None:
    status, document, _ = await post(http, "/v1/topics/nobody.listens", b"x")
    assert (status, document["state"], document["runs"]) == (202, "no-match", [])
    assert "no subscription matches" in document["message"]
    status, problem, _ = await post(http, "/v1/topics/nobody.listens?wait=10", b"x")
    assert (status, problem["code"]) == (404, "no-subscription")


async def test_bytes_headers_parameters_and_trace_reach_the_function_as_they_are(http: aiohttp.ClientSession) -> None:
    data = bytes(range(256)) + "quotes \" ' \n ü".encode()
    async with http.post(
        "/v1/topics/mirror.x?wait=60",
        data=data,
        headers={
            "Content-Type": "Application/X-Odd;  a=B",
            "Invoker-Header-X-Team": "blue ü",
            "X-Not-Passed": "1",
            "X-Request-Id": "call-1",
            "traceparent": TRACE,
            "tracestate": "a=b",
        },
    ) as answer:
        seen = await answer.json()
    assert answer.status == 200
    assert base64.b64decode(seen["data_base64"]) == data
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert headers["content-type"] == "Application/X-Odd;  a=B"
    assert headers["x-team"] == "blue ü"
    assert (headers["x-request-id"], headers["traceparent"], headers["tracestate"]) == ("call-1", TRACE, "a=b")
    assert "x-not-passed" not in headers
    assert answer.headers["X-Request-Id"] == "call-1"


async def test_parameters_come_from_the_query_and_from_headers(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/topics/bytes.x?wait=60&size=7") as answer:
        assert (answer.status, await answer.read()) == (200, b"\0" * 7)
    async with http.post("/v1/topics/bytes.x?wait=60", headers={"Invoker-Param-Size": "9"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"\0" * 9)
    status, problem, _ = await post(http, "/v1/topics/bytes.x?wait=60&size=7&colour=red")
    assert (status, problem["code"]) == (422, "invalid-input")
    assert problem["errors"][0]["pointer"] == "/params/colour"


# waiting


async def test_one_run_is_answered_with_its_output(http: aiohttp.ClientSession) -> None:
    async with http.post(
        "/v1/topics/echo.x?wait=60", data=b"<script>", headers={"Content-Type": "text/html"}
    ) as answer:
        assert (answer.status, await answer.read()) == (200, b"<script>")
    assert answer.headers["Invoker-Function"] == "echo"
    assert (answer.headers["Invoker-State"], answer.headers["Invoker-Reason"]) == ("succeeded", "completed")
    times = [datetime.fromisoformat(answer.headers[f"Invoker-{name}-At"]) for name in ("Queued", "Started", "Finished")]
    assert times == sorted(times)
    assert answer.headers["Location"] == f"/v1/requests/{answer.headers['Invoker-Request-Id']}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_a_failed_run_is_answered_with_its_problem(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/topics/fail.x", headers={"Prefer": "wait=60"}) as answer:
        problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, problem["code"], problem["status"]) == (502, "error", 502)
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.headers["Invoker-Reason"] == "error"


async def test_several_runs_are_answered_with_a_document_of_each(http: aiohttp.ClientSession) -> None:
    status, document, _ = await post(http, "/v1/topics/pair.x?wait=60", b"!")
    assert (status, document["succeeded"], document["state"]) == (200, True, "finished")
    outputs = {run["function"]: base64.b64decode(run["output"]["inline_base64"]) for run in document["runs"]}
    assert outputs == {"pair-a": b"a !", "pair-b": b"b !"}
    status, document, _ = await post(http, "/v1/topics/half.x?wait=60", b"!")
    assert (status, document["succeeded"]) == (207, False)
    bad, good = document["runs"]
    assert (bad["function"], bad["problem"]["code"], bad["output"]) == ("half-bad", "error", None)
    assert (good["function"], good["output"]["bytes"]) == ("half-good", 1)


async def test_a_wait_in_vain_is_answered_as_if_nobody_had_waited(http: aiohttp.ClientSession, stack: Stack) -> None:
    for wait in (0.2, 2, 20):
        status, document, answer = await post(http, f"/v1/topics/gate.x?wait={wait}", b"at last")
        if document["runs"]:  # else it had not even been accepted by then
            break
        stack.open_gate(document["request_id"])
    assert (status, [run["function"] for run in document["runs"]]) == (202, ["gate"])
    assert document["state"] in ("queued", "starting", "running")
    assert answer.headers["Location"] == document["url"]
    stack.open_gate(document["request_id"])
    view = await stack.client.result(document["request_id"], wait=60)
    assert await stack.client.output(view.results[0]) == b"at last"


async def test_a_large_output_streams_through(http: aiohttp.ClientSession) -> None:
    size = 3 * 1024 * 1024 + 1
    async with http.post(f"/v1/topics/bytes.x?wait=60&size={size}") as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(size))
        assert await answer.read() == b"\0" * size


async def test_an_answer_that_need_not_wait_comes_before_any_controller(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        first = stack.server
        async with (
            running_gateway(first.url, instance="elsewhere", topic_prefix="other") as alone,
            session(alone.url) as http,
        ):
            # An instance without streams: nothing takes the event, so the publish itself is refused.
            status, problem, answer = await post(http, "/v1/topics/echo.x", b"x", Prefer="respond-async")
            assert (status, problem["code"]) == (503, "server-unreachable")
            assert answer.headers["Retry-After"] == "1"
        async with session(stack.url) as http:
            status, document, answer = await post(http, "/v1/topics/echo.x", b"x", Prefer="respond-async, foo=bar")
            assert (status, document["runs"], document["state"]) == (202, None, "queued")
            assert answer.headers["Preference-Applied"] == "respond-async"
            assert (await stack.client.result(document["request_id"], wait=60)).succeeded


# the same event twice


async def test_the_same_key_is_the_same_request(http: aiohttp.ClientSession) -> None:
    first = await post(http, "/v1/topics/echo.x", b"one", Idempotency_Key='"an order, number 1"')
    again = await post(http, "/v1/topics/echo.x", b"one", Idempotency_Key="an order, number 1")
    assert (first[0], first[1]["duplicate"]) == (202, False)
    assert (again[0], again[1]["duplicate"]) == (202, True)
    assert again[1]["request_id"] == first[1]["request_id"]
    for path, body in (("/v1/topics/echo.x", b"two"), ("/v1/topics/pair.x", b"one")):
        status, problem, _ = await post(http, path, body, Idempotency_Key="an order, number 1")
        assert (status, problem["code"]) == (422, "idempotency-mismatch")


async def test_the_same_key_with_other_parameters_or_another_type_is_another_event(
    http: aiohttp.ClientSession, sdk: Client
) -> None:
    key, path = "resize-1", "/v1/topics/echo.sized"
    kind = {"Idempotency_Key": key, "Content_Type": "text/plain"}
    assert (await post(http, f"{path}?width=100", b"image", **kind))[0] == 202
    again = await post(http, path, b"image", Invoker_Param_Width="100", **kind)
    assert (again[0], again[1]["duplicate"]) == (202, True), "the same, written in another way"
    for query, changed, what in (
        ("?width=200", {}, "parameters"),
        ("", {}, "parameters"),
        ("?width=100", {"Content_Type": "application/json"}, "content type"),
    ):
        status, problem, _ = await post(http, path + query, b"image", **(kind | changed))
        assert (status, problem["code"]) == (422, "idempotency-mismatch"), query
        assert what in problem["detail"]
    same: dict[str, Any] = {"content_type": "text/plain", "params": {"width": 100}, "request_id": key}
    assert (await sdk.publish("echo.sized", b"image", **same)).duplicate
    for other in ({"params": {"width": 200}}, {"content_type": "image/png"}):
        with pytest.raises(IdempotencyMismatchError):
            await sdk.publish("echo.sized", b"image", **(same | other))


async def test_the_same_key_a_hundred_times_at_once_is_one_request(http: aiohttp.ClientSession, sdk: Client) -> None:
    answers = await asyncio.gather(
        *(post(http, "/v1/topics/echo.x", b"same", Idempotency_Key="rush-1") for _ in range(100))
    )
    assert {(status, document["request_id"]) for status, document, _ in answers} == {(202, "rush-1")}
    assert (await sdk.result("rush-1", wait=60)).complete
    assert len(await sdk.runs(request="rush-1")) == 1


@pytest.mark.parametrize("key", ["", '""', " ", "a" * 256, "ü", "tab\tin", '" a"'])
async def test_a_key_that_would_change_on_its_way_is_refused(http: aiohttp.ClientSession, key: str) -> None:
    status, problem, _ = await post(http, "/v1/topics/echo.x", b"x", Idempotency_Key=key)
    assert (status, problem["code"]) == (400, "invalid-request-id")


# what is refused


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/topics/a..b", "invalid-topic"),
        ("/v1/topics/.a", "invalid-topic"),
        ("/v1/topics/a.*", "invalid-topic"),
        ("/v1/topics/a.%3E", "invalid-topic"),
        ("/v1/topics/%24JS.API.INFO", "invalid-topic"),
        ("/v1/topics/a%20b", "invalid-topic"),
        ("/v1/topics/a%0D%0APUB%20x", "invalid-topic"),
        ("/v1/topics/a%00b", "invalid-topic"),
        ("/v1/topics/%FF%FE", "invalid-topic"),
        ("/v1/topics/" + "a" * 256, "invalid-topic"),
        ("/v1/topics/" + ".".join("a" * 33), "invalid-topic"),
        ("/v1/topics/invoker.call.echo", "invalid-topic"),
        ("/v1/topics/echo.x?wait=soon", "invalid-request"),
        ("/v1/topics/echo.x?wait=-1", "invalid-request"),
        ("/v1/topics/echo.x?wait=nan", "invalid-request"),
        ("/v1/topics/echo.x?wait=1e999", "invalid-request"),
        ("/v1/topics/echo.x?wait=1&wait=2", "invalid-request"),
        ("/v1/topics/echo.x?a=1&A=2", "invalid-request"),
        ("/v1/topics/echo.x?a%20b=1", "invalid-request"),
        ("/v1/topics/echo.x?a=%FF", "invalid-request"),
        ("/v1/topics/echo.x?a=1%0D%0AX:%20y", "invalid-request"),
        ("/v1/topics/echo.x?" + "&".join(f"p{n}=1" for n in range(101)), "invalid-request"),
    ],
)  # fmt: skip
async def test_bad_paths_and_queries_are_refused_and_nothing_is_stored(
    http: aiohttp.ClientSession, stack: Stack, path: str, code: str
) -> None:
    before = await stored_events(stack)
    async with http.post(URL(path, encoded=True), data=b"x") as answer:
        problem = await answer.json(content_type="application/problem+json")
    assert answer.status == 400
    assert problem["code"] == code
    assert len(problem["detail"]) < 400
    assert await stored_events(stack) == before


@pytest.mark.parametrize(
    "header",
    ["Invoker-Header-Nats-Msg-Id", "Invoker-Header-Invoker-Hops", "Invoker-Header-Content-Type", "Invoker-Header-",
     "Invoker-Header-Traceparent", "Invoker-Param-a!b"],
)  # fmt: skip
async def test_headers_that_are_not_the_callers_are_refused(http: aiohttp.ClientSession, header: str) -> None:
    status, problem, _ = await post(http, "/v1/topics/echo.x", b"x", **{header: "1"})
    assert (status, problem["code"]) == (400, "invalid-request")


async def test_headers_of_an_event_have_a_limit(http: aiohttp.ClientSession) -> None:
    more = {f"Invoker-Header-H{number}": "x" * 4_500 for number in range(4)}
    status, problem, _ = await post(http, "/v1/topics/echo.x", b"x", **more)
    assert (status, problem["code"], problem["limit_bytes"]) == (413, "payload-too-large", 16 * 1024)


async def test_a_packed_body_is_refused(http: aiohttp.ClientSession) -> None:
    status, problem, _ = await post(http, "/v1/topics/echo.x", b"\x1f\x8b", Content_Encoding="gzip")
    assert (status, problem["code"]) == (415, "unsupported-content")


# sizes, and connections that end early


async def pieces(count: int, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


async def test_large_events_stream_in_and_above_the_limit_both_numbers_are_named(tmp_path: Path) -> None:
    limit = 4 * 1024 * 1024
    async with running_stack(tmp_path, max_event_bytes=limit) as stack, session(stack.url) as http:
        status, problem, _ = await post(http, "/v1/topics/echo.x", io.BytesIO(b"x" * (limit + 1)))
        assert (status, problem["code"]) == (413, "payload-too-large")
        assert str(limit) in problem["detail"]
        assert str(limit + 1) in problem["detail"]
        status, problem, _ = await post(http, "/v1/topics/echo.x", pieces(65))
        assert (status, problem["limit_bytes"]) == (413, limit)
        assert await stored_events(stack) == 0
        hashed = hashlib.sha256(b"".join([piece async for piece in pieces(64)])).hexdigest()
        async with http.post("/v1/topics/echo.x?wait=60", data=pieces(64)) as answer:
            assert answer.status == 200
            assert hashlib.sha256(await answer.read()).hexdigest() == hashed
        bucket = f"OBJ_{stack.client.names.payloads_bucket}"

        async def only_whole_objects() -> bool:
            # The input and the output of the one event. Of what was begun and refused one empty message is left, for a
            # gateway may purge nothing: a sweep removes it.
            state = (await stack.client._reader.state(bucket)).state
            whole = 2 * (limit // (128 * 1024) + 1)
            return whole <= state.messages <= whole + 1 and state.bytes < 2 * limit + 64 * 1024

        await eventually(only_whole_objects, what="an object store without remains")


async def test_the_largest_event_is_the_settings_also_above_the_default(stack: Stack) -> None:
    limit = 3 * DEFAULT_MAX_EVENT_BYTES
    async with running_gateway(stack.server.url, max_event_bytes=limit) as running:
        client = running.gateway.client
        assert client.custody.publisher.max_event_bytes == limit
        client.allow_events_of(100_000)  # the same bound, where it is quick to reach
        for data in (pieces(20), bytes(100_001)):  # a stream that is longer than what is held, and bytes
            with pytest.raises(PayloadTooLargeError) as caught:
                await client.publish("echo.large", data)
            assert caught.value.fields["limit_bytes"] == 100_000


@pytest.mark.parametrize("sent", [10, 700 * 1024])
async def test_a_body_that_is_cut_in_the_middle_becomes_no_event(stack: Stack, sent: int) -> None:
    before = await stored_events(stack)
    reader, writer = await asyncio.open_connection(*stack.url.removeprefix("http://").split(":"))
    writer.write(b"POST /v1/topics/echo.x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n" + b"x" * sent)
    await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()
    assert await stored_events(stack) == before


async def test_a_slow_body_is_told_and_the_next_call_works(tmp_path: Path) -> None:
    async with running_stack(tmp_path, gateway_body_seconds=0.2) as stack, session(stack.url) as http:
        reader, writer = await asyncio.open_connection(*stack.url.removeprefix("http://").split(":"))
        writer.write(b"POST /v1/topics/echo.x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nonly this")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        assert await stored_events(stack) == 0
        assert (await post(http, "/v1/topics/pair.x", b"x"))[0] == 202


async def test_a_caller_who_goes_while_waiting_is_not_waited_for(stack: Stack) -> None:
    feed = stack.client.feed
    _, writer = await asyncio.open_connection(*stack.url.removeprefix("http://").split(":"))
    writer.write(
        b"POST /v1/topics/gate.x?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Length: 1\r\nIdempotency-Key: goner\r\n\r\nx"
    )
    requester = stack.client._requester

    async def waits(count: int) -> bool:
        return len(requester._inboxes) == count

    await eventually(lambda: waits(1), what="a wait")
    await eventually(lambda: is_accepted(stack, "goner"), what="its request")  # it waits from before it publishes
    writer.close()
    await eventually(lambda: waits(0), what="the end of the wait")
    stack.open_gate("goner")
    assert (await stack.client.result("goner", wait=60)).succeeded
    assert not feed._by_request


async def test_ten_thousand_topics_leave_nothing_behind(tmp_path: Path) -> None:
    async def batch(http: aiohttp.ClientSession, part: int, count: int) -> None:
        events = [
            {"specversion": "1.0", "id": f"{part}-{number}", "source": "/many", "type": f"topic.{part}.{number}"}
            for number in range(count)
        ]
        headers = {"Content-Type": "application/cloudevents-batch+json", "Prefer": "respond-async"}
        async with http.post("/v1/events", data=json.dumps(events), headers=headers) as answer:
            assert answer.status == 202, await answer.text()

    async with nats_server(tmp_path / "nats") as server:
        async with running_stack(tmp_path, server=server):
            pass  # a controller made the streams; while there is none the events just queue
        async with running_gateway(server.url) as running, session(running.url) as http:
            await batch(http, 0, 10)
            before = len(running.gateway.metrics.exposition().splitlines())
            for part in range(1, 11):
                await batch(http, part, 1_000)
            assert len(running.gateway.metrics.exposition().splitlines()) == before
            assert not running.gateway.client.feed._by_request
            reader, names = running.gateway.client._reader, running.gateway.client.names
            assert (await reader.state(names.events_stream)).state.messages == 10_010


async def test_nats_away_in_the_middle_is_told_and_ends_by_itself(tmp_path: Path) -> None:
    port = lasting_port()
    async with (
        nats_server(tmp_path / "nats", port=port) as first,
        running_stack(tmp_path, server=first) as stack,
        session(stack.url) as http,
    ):
        assert (await post(http, "/v1/topics/pair.x", b"x"))[0] == 202
        os.kill(first.pid, signal.SIGKILL)

        async def refused() -> bool:
            status, problem, answer = await post(http, "/v1/topics/pair.x", b"x")
            if status != 503:
                return False
            assert problem["code"] == "server-unreachable"
            assert "127.0.0.1" not in json.dumps(problem)
            assert answer.headers["Retry-After"] == "1"
            keys.append(problem["request_id"])
            return True

        keys: list[str] = []
        await eventually(refused, what="a refusal")
        async with nats_server(tmp_path / "nats", port=port):

            async def works() -> bool:
                status, document, _ = await post(http, "/v1/topics/echo.x?wait=5", b'"x"')
                return status == 200 and document == "x"

            await eventually(works, within=60, what="an event after the outage")
            status, document, _ = await post(http, "/v1/topics/pair.x", b"x", Idempotency_Key=keys[0])
            assert (status, document["request_id"]) == (202, keys[0])


async def test_a_stored_event_is_answered_202_though_nats_goes_while_it_is_waited_for(tmp_path: Path) -> None:
    port = lasting_port()
    async with (
        nats_server(tmp_path / "nats", port=port) as first,
        running_stack(tmp_path, server=first) as stack,
        session(stack.url) as http,
    ):
        asking = asyncio.create_task(post(http, "/v1/topics/gate.x?wait=2", b"x"))

        async def accepted() -> str | None:
            rows = await stack.client.runs(function="gate", limit=1)
            return rows[0].request_id if rows else None

        request_id = await eventually(accepted, what="the run")
        os.kill(first.pid, signal.SIGKILL)
        status, document, answer = await asyncio.wait_for(asking, 60)
        assert (status, document["request_id"]) == (202, request_id), document
        assert answer.headers["Location"] == f"/v1/requests/{request_id}"
        stack.open_gate(request_id)
        async with nats_server(tmp_path / "nats", port=port):

            async def done() -> bool:
                async with http.get(f"/v1/requests/{request_id}") as found:
                    document = await found.json()
                    return found.status == 200 and [run["state"] for run in document["runs"]] == ["succeeded"]

            await eventually(done, within=60, what="the end of the request after the outage")
