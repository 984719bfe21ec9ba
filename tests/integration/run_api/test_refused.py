"""What the run API refuses, by which words: runs that are over, tokens, addresses, and all while NATS is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from invoker.result import Reason, Result, State
from tests.conftest import eventually
from tests.integration.run_world import Run, RunWorld, ask, mortal_run_world, stored_objects

pytestmark = pytest.mark.integration


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
        asyncio.run_coroutine_threadsafe(verdict(), loop).result(120)
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


async def test_other_methods_are_not_there(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await run.call("GET", "output")).status == 405
    assert (await run.call("GET", "nothing")).status == 404


# NATS away


async def test_an_outage_is_told_as_one_and_passes(tmp_path: Path) -> None:
    async with mortal_run_world(tmp_path / "js") as (server, world):
        run = await world.accept(b"x")

        async def given() -> bool:
            return (await run.call("GET", "input")).status == 200

        await eventually(given, what="the input")
        await server.stop()
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
            for inside in (b"127.0.0.1", b"invoker.", b"Traceback", b"NATS_", server.url[-5:].encode()):
                assert inside not in refused.body.replace(b"invoker.dev", b"")
        await server.start()
        await eventually(given, what="the run API's recovery")

        async def taken() -> bool:
            return (await run.call("PUT", "output", b"x")).status == 201

        await eventually(taken, what="an output that is taken")
