"""The output that the run API takes: of every size, once, from which attempt, checked against its schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.result import Attempt, Reason, RunStatusDocument, State
from tests.conftest import eventually
from tests.integration.run_api.conftest import LIMIT
from tests.integration.run_world import RunWorld, run_world, stored_objects

pytestmark = pytest.mark.integration


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
