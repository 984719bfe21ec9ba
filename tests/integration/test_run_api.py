"""The run API on a real server: what is given, what is taken, what is refused, and by which words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import nats_server
from invoker.request import ClaimCheck, Content
from invoker.result import Attempt, Reason, Result, RunStatusDocument, State
from invoker.runtime.headers import decode_headers, encode_headers
from invoker.streams import StreamLimits
from tests.conftest import eventually
from tests.integration.run_world import Run, RunWorld, ask, run_world

pytestmark = pytest.mark.integration

LIMIT = 2_000_000


@pytest.fixture
async def world(client: NatsClient) -> AsyncIterator[RunWorld]:
    async with run_world(client, max_output_bytes=LIMIT) as running:
        yield running


def cancelled(run: Run) -> Result:
    """The verdict of somebody who cancelled the run."""
    return Result(
        request_id=run.address.request_id,
        run_id=run.run_id,
        function=run.address.function,
        topic=run.record.topic,
        state=State.CANCELLED,
        reason=Reason.CANCELLED,
        finished_at=datetime.now(UTC),
        root_request_id=run.record.root_request_id,
    )


async def stored_objects(world: RunWorld) -> int:
    info = await world.client.jetstream().stream_info(f"OBJ_{world.names.payloads_bucket}")
    return int(info.state.messages)


# the input


async def test_the_input_comes_with_everything_about_its_event(world: RunWorld) -> None:
    run = await world.accept(
        "größe".encode(),
        content_type="text/plain; charset=utf-8",
        topic="bestellung.größe",
        headers={"x-note": "ä b", "traceparent": "00-1-2-01"},
        params={"level": "9"},
        root_request_id="root-1",
        parent_run_id="parent-1",
        hops=3,
    )
    given = await run.call("GET", "input")
    assert given.status == 200
    assert given.body.decode() == "größe"
    headers = given.headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == str(len(given.body))
    assert headers["invoker-topic"] == "bestellung.gr%C3%B6%C3%9Fe"
    assert headers["invoker-request-id"] == run.record.request_id
    assert json.loads(headers["invoker-params"]) == {"level": "9"}
    assert decode_headers(headers["invoker-headers"]) == run.record.headers
    assert datetime.fromisoformat(headers["invoker-event-time"]) == run.record.received_at
    assert headers["invoker-root-request-id"] == "root-1"
    assert headers["invoker-parent-run-id"] == "parent-1"
    assert headers["invoker-hops"] == "3"
    assert headers["invoker-sha256"] == wire.sha256_hex(given.body)
    assert headers["invoker-attempt"] == "1"


async def test_head_gives_the_headers_only(world: RunWorld) -> None:
    run = await world.accept(b"12345")
    given = await run.call("HEAD", "input")
    assert (given.status, given.body, given.headers["content-length"]) == (200, b"", "5")


async def test_a_direct_call_keeps_the_topic_it_was_made_for(world: RunWorld) -> None:
    topic = world.names.direct_topic("convert")
    run = await world.accept(b"", topic=topic, headers={wire.H_TOPIC: "orders.created"})
    assert (await run.call("GET", "input")).headers["invoker-topic"] == "orders.created"
    plain = await world.accept(b"", topic="other", headers={wire.H_TOPIC: "orders.created"})
    assert (await plain.call("GET", "input")).headers["invoker-topic"] == "other"


async def test_an_input_behind_a_claim_check_is_streamed(world: RunWorld) -> None:
    data = bytes(range(256)) * 4096
    claim = await world.claims.put(data, owner="event")
    run = await world.accept(Content.claimed(claim, "application/octet-stream"))
    given = await run.call("GET", "input")
    assert (given.status, given.body) == (200, data)
    assert given.headers["invoker-sha256"] == claim.sha256


async def test_an_input_whose_bytes_are_gone_is_said_to_be_gone(world: RunWorld) -> None:
    claim = ClaimCheck(object="event/none", size_bytes=10, sha256="0" * 64)
    run = await world.accept(Content.claimed(claim))
    given = await run.call("GET", "input")
    assert given.status == 410
    assert given.json()["code"] == "claim-check"


async def test_an_input_that_is_not_what_was_promised_never_arrives_whole(world: RunWorld) -> None:
    claim = await world.claims.put(b"x" * 400_000, owner="event")
    run = await world.accept(Content.claimed(claim.model_copy(update={"sha256": "0" * 64})))
    with pytest.raises(Exception, match=r"IncompleteRead|more expected"):
        await run.call("GET", "input")


# the fence


async def test_a_finished_run_gives_no_input_and_takes_nothing(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert await run.finish(cancelled(run))
    for method, what, body in (
        ("GET", "input", None),
        ("HEAD", "input", None),
        ("PUT", "output", b"late"),
        ("POST", "events", b"late"),
        ("POST", "progress", b'{"percent": 3}'),
        ("POST", "error", b"{}"),
    ):
        refused = await run.call(method, what, body, Invoker_Topic="t", Invoker_Position="0")
        assert refused.status == 410, (method, what, refused.body)
        if method != "HEAD":
            assert refused.json()["code"] == "run-finished"
            assert refused.headers["content-type"] == "application/problem+json"
    result = await run.result()
    assert result is not None
    assert result.state is State.CANCELLED
    assert await world.events() == []


async def test_a_run_that_left_the_queue_gives_no_input(world: RunWorld) -> None:
    run = await world.accept(b"x", ticket=False)
    assert (await run.call("GET", "input")).json()["code"] == "run-finished"
    assert (await run.call("PUT", "output", b"late")).json()["code"] == "run-finished"
    assert await run.result() is None


async def test_a_run_nobody_knows(world: RunWorld) -> None:
    run = await world.accept(b"x")
    run.address = type(run.address)("never-was", "convert")
    assert (await run.call("GET", "input")).status == 404
    assert (await run.call("PUT", "output", b"x")).status == 404


async def test_a_verdict_that_comes_while_the_output_is_uploaded_stands(world: RunWorld) -> None:
    run = await world.accept(b"x")
    loop = asyncio.get_running_loop()

    async def verdict() -> None:
        async def upload_has_begun() -> bool:
            return await stored_objects(world) > 0

        await eventually(upload_has_begun, what="the first chunk")
        assert await run.finish(cancelled(run))

    def body() -> Any:
        yield b"x" * 400_000
        asyncio.run_coroutine_threadsafe(verdict(), loop).result(20)
        yield b"y" * 100_000

    refused = await run.call("PUT", "output", body())
    assert refused.status == 410
    result = await run.result()
    assert result is not None
    assert result.state is State.CANCELLED
    assert await stored_objects(world) == 0, "an output that is no result takes no room"


async def test_the_same_output_twice_at_once_is_stored_once(world: RunWorld) -> None:
    """A pod whose connection broke sends again while the first upload is still being stored."""
    run = await world.accept(b"x")
    both = asyncio.Barrier(2)
    loop = asyncio.get_running_loop()

    def body() -> Any:
        yield b"x" * 400_000
        asyncio.run_coroutine_threadsafe(both.wait(), loop).result(60)
        yield b"y" * 100_000

    answers = await asyncio.gather(*(run.call("PUT", "output", body()) for _ in range(2)))
    assert [answer.status for answer in answers] == [answers[0].status] * 2
    result = await run.result()
    assert result is not None
    assert result.output.claim is not None
    assert len(await world.claims.read(result.output.claim)) == 500_000
    assert await stored_objects(world) == 5, "four chunks and what tells of them"


# who may ask


async def test_a_token_is_needed_and_must_be_the_runs(world: RunWorld) -> None:
    run, other = await world.accept(b"secret"), await world.accept(b"other")
    nothing = await run.call("GET", "input", Authorization="")
    assert (nothing.status, nothing.headers["www-authenticate"]) == (401, "Bearer")
    assert nothing.json()["code"] == "token-missing"
    for token in ("forged", other.token, other.token.upper(), run.token[:-1], run.token + "a", "é"):
        refused = await run.call("GET", "input", token=token)
        assert (refused.status, refused.json()["code"]) == (403, "token-refused")
        assert b"secret" not in refused.body
    assert (await other.call("PUT", "output", b"mine", token=run.token)).status == 403
    assert await other.result() is None


@pytest.mark.parametrize("path", ["x", "e30", "W10", "WyJhIiwyXQ", "A" * 5000, "%2e%2e", "WzEsMiwzLDQsNSw2XQ"])
async def test_an_address_that_is_none_is_unknown(world: RunWorld, path: str) -> None:
    run = await world.accept(b"x")
    answer = await asyncio.to_thread(
        ask, "GET", f"{world.base_url}/v1/run/{path}/input", None, {"Authorization": f"Bearer {run.token}"}
    )
    assert answer.status == 404
    assert answer.json()["code"] == "unknown"


# the output


async def test_an_output_becomes_the_result(world: RunWorld) -> None:
    run = await world.accept(b"x", root_request_id="root-1", parent_run_id="parent-1", hops=2)
    await run.call("GET", "input")
    taken = await run.call("PUT", "output", b"done", Content_Type="text/csv")
    assert taken.status == 201
    assert taken.json() == {"run_id": run.run_id, "request_id": run.record.request_id}
    result = await run.result()
    assert result is not None
    assert (result.state, result.reason, result.class_) == (State.SUCCEEDED, Reason.COMPLETED, "success")
    assert result.output.inline_bytes() == b"done"
    assert result.output.content_type == "text/csv"
    assert (result.spec_hash, result.catalog, result.engine) == ("spec-1", "c1", "local")
    assert (result.root_request_id, result.parent_run_id, result.hops) == ("root-1", "parent-1", 2)
    assert result.queued_at == run.record.received_at
    [attempt] = result.attempts
    assert (attempt.number, attempt.reason) == (1, Reason.COMPLETED)
    assert attempt.started_at is not None
    assert attempt.started_at == result.started_at
    assert attempt.finished_at == result.finished_at


@pytest.mark.parametrize("size", [0, 1, wire.INLINE_OUTPUT_BYTES, wire.INLINE_OUTPUT_BYTES + 1, 700_000, LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
async def test_outputs_of_every_size(world: RunWorld, size: int, chunked: bool) -> None:
    run = await world.accept(b"x")
    data = b"z" * size
    pieces = (data[start : start + 50_000] for start in range(0, size, 50_000))
    taken = await run.call("PUT", "output", pieces if chunked else data)
    assert taken.status == 201, taken.body
    result = await run.result()
    assert result is not None
    assert result.output.size_bytes == size
    assert (result.output.claim is None) == (size <= wire.INLINE_OUTPUT_BYTES)
    stored = (
        result.output.inline_bytes() if result.output.claim is None else await world.claims.read(result.output.claim)
    )
    assert stored == data


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_output_above_the_limit_leaves_nothing(world: RunWorld, chunked: bool) -> None:
    run = await world.accept(b"x")
    data = b"z" * (LIMIT + 1)
    pieces = (data[start : start + 50_000] for start in range(0, len(data), 50_000))
    refused = await run.call("PUT", "output", pieces if chunked else data)
    assert refused.status == 413
    problem = refused.json()
    assert problem["code"] == "output-too-large"
    assert str(LIMIT) in problem["detail"]
    assert str(problem["size_bytes"]) in problem["detail"]
    assert await run.result() is None
    assert await stored_objects(world) == 0
    # The run is still open: the function may say something shorter.
    assert (await run.call("PUT", "output", b"short")).status == 201


async def test_a_lost_answer_may_be_asked_for_again(world: RunWorld) -> None:
    for data in (b"", b"small", b"l" * 300_000):
        run = await world.accept(b"x")
        assert (await run.call("PUT", "output", data)).status == 201
        first = await run.result()
        again = await run.call("PUT", "output", data)
        assert (again.status, again.json()["run_id"]) == (201, run.run_id)
        for other in (data + b"!", b"another", data[:-1] + b"?"):
            refused = await run.call("PUT", "output", other)
            assert (refused.status, refused.json()["code"]) == (410, "run-finished"), other[:10]
            refused = await run.call("PUT", "output", iter([other]))
            assert refused.status == 410
        assert await run.result() == first


async def test_a_pod_that_dies_in_the_middle_of_its_output_leaves_nothing(world: RunWorld) -> None:
    run = await world.accept(b"x")
    host, port = world.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT {run.url.removeprefix(world.base_url)}/output HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
    writer.write(f"{head}Authorization: Bearer {run.token}\r\n\r\n".encode() + b"x" * 600_000)
    await writer.drain()

    async def some_are_there() -> bool:
        return await stored_objects(world) > 0

    async def none_are_there() -> bool:
        return await stored_objects(world) == 0

    await eventually(some_are_there, what="the first chunks")
    writer.close()
    await eventually(none_are_there, what="the removal of the chunks")
    assert await run.result() is None
    del reader


async def test_earlier_attempts_come_from_the_news(world: RunWorld) -> None:
    run = await world.accept(b"x")
    started = datetime(2026, 1, 1, tzinfo=UTC)
    first = Attempt(number=1, started_at=started, finished_at=started, exit_code=1, reason=Reason.ERROR)
    status = RunStatusDocument(
        run_id=run.run_id,
        request_id=run.address.request_id,
        function="convert",
        topic="orders.created",
        state=State.RUNNING,
        attempts=(first, Attempt(number=2, started_at=datetime(2026, 1, 2, tzinfo=UTC))),
        at=started,
        job="ns/job",
    )
    await world.results.put_status(status)
    await eventually(lambda: world.results.status(run.run_id), what="the status")
    await run.call("PUT", "output", b"x", Invoker_Attempt="2")
    result = await run.result()
    assert result is not None
    assert [attempt.number for attempt in result.attempts] == [1, 2]
    assert result.attempts[0] == first
    assert result.attempts[1].reason is Reason.COMPLETED
    assert result.attempts[1].started_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert result.started_at == started
    assert result.job == "ns/job"


async def test_attempts_are_numbered_by_pod_or_as_they_are_told(world: RunWorld) -> None:
    run, other = await world.accept(b"x"), await world.accept(b"x")
    seen = [(await run.call("GET", "input", pod=pod)).headers["invoker-attempt"] for pod in "abac"]
    assert seen == ["1", "2", "1", "3"]
    assert (await other.call("GET", "input", pod="c")).headers["invoker-attempt"] == "1"
    assert (await other.call("GET", "input", pod="d", Invoker_Attempt="7")).headers["invoker-attempt"] == "7"
    assert (await other.call("GET", "input", pod="e", Invoker_Attempt="x")).headers["invoker-attempt"] == "8"


# output schemas


@pytest.fixture
async def strict(client: NatsClient) -> AsyncIterator[RunWorld]:
    def check(function: str, spec_hash: str, data: bytes, content_type: str | None) -> list[dict[str, Any]]:
        assert (function, spec_hash, content_type) == ("strict", "spec-1", "application/json")
        return [] if data.startswith(b"{") else [{"pointer": "/a", "detail": "is wrong"}]

    async with run_world(client, check_output=check, has_output_schema=lambda name, _: name == "strict") as running:
        yield running


async def test_an_output_is_checked_before_it_counts(strict: RunWorld) -> None:
    for size in (1, 100_000, 400_000):
        run = await strict.accept(b"x", function="strict")
        refused = await run.call("PUT", "output", b"[" * size, Content_Type="application/json")
        assert refused.status == 422
        assert refused.json()["code"] == "invalid-output"
        assert refused.json()["errors"] == [{"pointer": "/a", "detail": "is wrong"}]
        assert "/a is wrong" in refused.json()["detail"]
        assert await run.result() is None
        taken = await run.call("PUT", "output", b"{" * size, Content_Type="application/json")
        assert taken.status == 201
        assert (await strict.results.result(run.address.request_id, "strict")) is not None


async def test_a_function_without_a_schema_is_not_checked(strict: RunWorld) -> None:
    run = await strict.accept(b"x", function="free")
    assert (await run.call("PUT", "output", b"[")).status == 201


async def test_an_output_that_is_to_be_checked_must_fit_into_memory(strict: RunWorld) -> None:
    run = await strict.accept(b"x", function="strict")
    refused = await run.call("PUT", "output", b"{" * (16 * 1024 * 1024 + 1), Content_Type="application/json")
    assert (refused.status, refused.json()["code"]) == (413, "output-too-large")
    assert str(16 * 1024 * 1024) in refused.json()["detail"]


# published events


async def publish(run: Run, topic: str, body: Any = b"x", position: int = 0, **headers: str) -> Any:
    return await run.call("POST", "events", body, Invoker_Topic=topic, Invoker_Position=str(position), **headers)


async def test_a_published_event_belongs_to_its_run(world: RunWorld) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    run = await world.accept(b"x", root_request_id="root-1", hops=1, headers=trace)
    answer = await publish(
        run, "next.one", b"hello", 3, Content_Type="text/plain", Invoker_Headers=encode_headers({"x-y": "ä"})
    )
    assert answer.status == 201
    wanted = wire.chained_id(run.run_id, "published", 3)
    assert answer.json() == {"request_id": wanted, "topic": "next.one", "duplicate": False}
    # Delivered, not read back: nats-py gives headers beyond ASCII as text only then.
    consumer = await world.client.jetstream().pull_subscribe("events.>", durable="test")
    [event] = await consumer.fetch(1, timeout=60)
    assert (event.subject, event.data) == ("events.next.one", b"hello")
    assert event.headers is not None
    assert event.headers[wire.H_MESSAGE_ID] == wanted
    assert event.headers[wire.H_ROOT_REQUEST_ID] == "root-1"
    assert event.headers[wire.H_PARENT_RUN_ID] == run.run_id
    assert event.headers[wire.H_HOPS] == "2"
    assert event.headers["x-y"] == "ä"
    assert event.headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert event.headers[wire.H_CONTENT_TYPE] == "text/plain"


async def test_the_same_position_is_the_same_event(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await publish(run, "next", b"1", 0)).json()["duplicate"] is False
    assert (await publish(run, "next", b"1", 0)).json()["duplicate"] is True
    assert (await publish(run, "next", b"1", 1)).json()["duplicate"] is False
    assert len(await world.events()) == 2


async def test_a_large_event_goes_behind_a_claim_check(world: RunWorld) -> None:
    run = await world.accept(b"x")
    data = b"e" * 900_000
    assert (await publish(run, "big", iter([data[:500_000], data[500_000:]]))).status == 201
    [event] = await world.events()
    claim = ClaimCheck.model_validate_json(event.headers[wire.H_CLAIM])
    assert await world.claims.read(claim) == data


async def test_a_topic_may_have_letters_of_every_kind(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await publish(run, "gr%C3%B6%C3%9Fe.100%25")).status == 201
    [event] = await world.events()
    assert event.subject == "events.größe.100%"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a b",
        "a..b",
        "a.*",
        ">",
        ".a",
        "a%0D%0Ab",
        "a" * 300,
        ".".join("a" * 40),
        "$JS.x",
        "%FF",
        "invoker.call.hello",
        "invoker",
    ],
)
async def test_a_bad_topic_is_refused(world: RunWorld, topic: str) -> None:
    run = await world.accept(b"x")
    refused = await publish(run, topic)
    assert (refused.status, refused.json()["code"]) == (422, "invalid-topic"), refused.body
    assert refused.json()["status"] == 422
    assert await world.events() == []


async def test_a_chain_that_loops_ends(world: RunWorld) -> None:
    run = await world.accept(b"x", hops=wire.MAX_HOPS)
    refused = await publish(run, "again")
    assert (refused.status, refused.json()["code"]) == (422, "hop-limit")
    assert str(wire.MAX_HOPS) in refused.json()["detail"]
    last = await world.accept(b"x", hops=wire.MAX_HOPS - 1)
    assert (await publish(last, "again")).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Invoker_Position": "-1"},
        {"Invoker_Position": "x"},
        {"Invoker_Position": ""},
        {"Invoker_Headers": "%%%"},
        {"Invoker_Headers": encode_headers({"a": "b"})[:-3]},
        {"Invoker_Headers": "WzFd"},
        {"Invoker_Headers": encode_headers({"a": "b\r\nNats-Msg-Id: x"})},
        {"Invoker_Headers": encode_headers({"a\r\nb": "c"})},
        {"Invoker_Headers": encode_headers({"": "c"})},
        {"Invoker_Headers": encode_headers({"a:b": "c"})},
    ],
)
async def test_bad_headers_of_an_event_are_refused(world: RunWorld, headers: dict[str, str]) -> None:
    run = await world.accept(b"x")
    refused = await run.call("POST", "events", b"x", **({"Invoker_Topic": "next", "Invoker_Position": "0"} | headers))
    assert refused.status == 400, refused.body
    assert await world.events() == []


@pytest.mark.parametrize(
    "name",
    ["Invoker-Reply-To", "invoker-reply-to", "Invoker-Replay-Of", "Invoker-Claim", "Invoker-Params", "Nats-Msg-Id"],
)
async def test_a_function_does_not_speak_for_invoker(world: RunWorld, name: str) -> None:
    run = await world.accept(b"x")
    refused = await publish(run, "next", Invoker_Headers=encode_headers({"x-y": "z", name: "mine"}))
    assert (refused.status, refused.json()["code"]) == (422, "reserved-header"), refused.body
    assert await world.events() == []
    given = {"Invoker-Param-level": "9"}
    assert (await publish(run, "next", Invoker_Headers=encode_headers(given))).status == 201
    [event] = await world.events()
    assert event.headers["Invoker-Param-level"] == "9"


async def test_a_full_stream_is_a_matter_of_time(client: NatsClient) -> None:
    async with run_world(client, limits=StreamLimits(events_bytes=2_000)) as world:
        run = await world.accept(b"x")
        assert (await publish(run, "next", b"x" * 1000, 0)).status == 201
        refused = await publish(run, "next", b"x" * 1000, 1)
        assert (refused.status, refused.json()["code"]) == (503, "stream-full")
        assert int(refused.headers["retry-after"]) >= 1
        await client.jetstream().purge_stream(world.names.events_stream)
        assert (await publish(run, "next", b"x" * 1000, 1)).status == 201


# news


async def test_progress_is_news_and_keeps_what_is_known(world: RunWorld) -> None:
    run = await world.accept(b"x")
    await run.call("GET", "input")
    assert (await run.call("POST", "progress", b'{"percent": 40, "text": "half"}')).status == 204

    async def status() -> RunStatusDocument | None:
        found = await world.results.status(run.run_id)
        return found if found and found.percent == 40 else None

    found = await eventually(status)
    assert (found.text, found.state, found.function) == ("half", State.RUNNING, "convert")
    assert [attempt.number for attempt in found.attempts] == [1]
    assert found.spec_hash == "spec-1"
    long = json.dumps({"percent": 1000, "text": "ä" * 3000})
    assert (await run.call("POST", "progress", long.encode())).status == 204

    async def later() -> RunStatusDocument | None:
        found = await world.results.status(run.run_id)
        return found if found and found.percent == 100 else None

    found = await eventually(later)
    assert found.text is not None
    assert len(found.text.encode()) <= 1024
    assert [attempt.number for attempt in found.attempts] == [1]


async def test_an_attempts_error_is_news_and_no_result(world: RunWorld) -> None:
    run = await world.accept(b"x")
    note = b'{"type": "ValueError", "message": "no", "traceback": "..."}'
    assert (await run.call("POST", "error", note)).status == 204
    found = await eventually(lambda: world.results.status(run.run_id))
    assert found.text == "attempt 1 failed: ValueError: no"
    assert await run.result() is None
    assert (await run.call("PUT", "output", b"after all", pod="pod-2")).status == 201


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"\xff", b'{"percent": "x"}', b'{"percent": true}', b'{"text": 3}', b"[" * 9000,
     b'{"percent": 1%s}' % (b"0" * 400), b'{"percent": NaN}', b'{"percent": 1e999}', b'{"text": "\\ud800"}'],
)  # fmt: skip
async def test_news_that_are_none_are_refused(world: RunWorld, body: bytes) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "progress", body)).status == 400
    assert await world.results.status(run.run_id) is None


@pytest.mark.parametrize("note", [b'{"message": "\\ud800"}', b'{"type": "\\udfff", "message": "x"}'])
async def test_an_attempts_error_that_is_no_text_is_refused(world: RunWorld, note: bytes) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "error", note)).status == 400


async def test_news_are_small(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "error", b" " * 70_000)).status == 413


async def test_other_methods_are_not_there(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await run.call("GET", "output")).status == 405
    assert (await run.call("GET", "nothing")).status == 404


# NATS away


async def test_an_outage_is_told_as_one_and_passes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with nats_server(tmp_path / "js") as server:
            client = await connect(ConnectionOptions(url=server.url), keep_trying=True)
            stack.push_async_callback(client.close)
            world = await stack.enter_async_context(run_world(client, timeout=0.3))
            run = await world.accept(b"x")
            assert (await run.call("GET", "input")).status == 200
        for method, what, body in (
            ("GET", "input", None),
            ("PUT", "output", b"x"),
            ("PUT", "output", b"x" * 100_000),
            ("POST", "events", b"x"),
            ("POST", "progress", b"{}"),
        ):
            refused = await run.call(method, what, body, Invoker_Topic="t", Invoker_Position="0")
            assert refused.status == 503, (method, what, refused.body)
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["code"] == "server-unreachable"
            for inside in (b"127.0.0.1", b"invoker.", b"Traceback", b"NATS_", str(server.port).encode()):
                assert inside not in refused.body.replace(b"invoker.dev", b"")
        async with nats_server(tmp_path / "js", port=server.port):

            async def back() -> bool:
                return (await run.call("GET", "input")).status == 200

            await eventually(back, what="the run API's recovery")
            taken = await run.call("PUT", "output", b"x")
            assert taken.status == 201
