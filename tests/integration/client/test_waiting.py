"""Waiting for results: when a wait ends, what it gives as runs finish, and what one in vain still tells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import Client, wire
from invoker.connection import ConnectionOptions, connect
from invoker.errors import UnknownIdError, WaitExpiredError
from invoker.streams import StreamLimits, ensure_streams
from invoker.views import RequestState, RequestView
from tests.conftest import eventually
from tests.custody.mortal_server import MortalServer, mortal_server
from tests.integration.stored_world import StoredWorld, followed, run_id

pytestmark = pytest.mark.integration
NAMES = wire.Names()


async def test_a_wait_ends_when_the_last_run_finishes(sdk: Client, world: StoredWorld) -> None:
    await world.accept("r1", "f", "g")
    await world.finish("r1", "f")
    waiting = asyncio.create_task(sdk.result("r1", wait=60))
    await followed(world)
    assert not waiting.done()
    await world.finish("r1", "g")
    assert (await waiting).succeeded


async def test_who_follows_a_log_gets_what_is_kept_a_moment_after_the_result(sdk: Client, world: StoredWorld) -> None:
    """A function that answers may write still: its log is kept when its process has ended, before its message goes. No
    controller answers here, as one that stands still for a second."""
    await world.accept("r1", "f")
    await world.seal("r1", "f")

    async def followed_log() -> list[str]:
        return [line.text async for line in sdk.logs("r1", follow=True)]

    following = asyncio.create_task(followed_log())
    assert [line.text async for line in sdk.logs("r1")] == [], "who does not follow gets what there is"
    await world.claims.put_log(run_id("r1", "f"), b"one\ntwo\n")
    await world.release("r1", "f")
    assert await following == ["one", "two"]


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
        async for result in sdk.results("r1", wait=5):  # in which what is there has come
            seen.append(result.function)

    with pytest.raises(WaitExpiredError) as caught:
        await read()
    assert seen == ["f"]
    assert len(caught.value.partial.results) == 1


async def test_a_wait_outlives_a_server_that_restarts(tmp_path: Path) -> None:
    async with mortal_server(tmp_path / "js") as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
        sdk = await Client.connect(server.url, names=NAMES)
        # Three tries: a machine that stands still for so long says nothing.
        for number in range(3):
            seconds = await _seconds_after_a_restart(server, StoredWorld.of(client, NAMES), sdk, f"r{number}")
            if seconds < 4.5:
                break
        assert seconds < 4.5, "asked again at once, not after a heartbeat was missed"
        await sdk.close()
        await client.close()


async def test_a_wait_for_an_event_that_is_not_accepted_outlives_an_outage(tmp_path: Path) -> None:
    async with mortal_server(tmp_path / "js") as server:
        client = await connect(ConnectionOptions(url=server.url))
        await ensure_streams(client.jetstream(timeout=60), NAMES, StreamLimits())
        sdk, world = await Client.connect(server.url, names=NAMES), StoredWorld.of(client, NAMES)
        waiting = asyncio.create_task(sdk.result("later", wait=120))
        await followed(world)
        await server.stop()
        ended, _ = await asyncio.wait({waiting}, timeout=8)  # longer than a question to NATS may take
        assert not ended, waiting.exception()
        await server.start()
        await eventually(lambda: _flushed(client), what="the world's own connection")
        await world.accept("later", "f")
        await world.finish("later", "f")
        assert (await waiting).succeeded
        await sdk.close()
        await client.close()


async def _seconds_after_a_restart(server: MortalServer, world: StoredWorld, sdk: Client, request_id: str) -> float:
    """How long a wait that began before takes to hear of the result that is stored after it."""
    await world.accept(request_id, "f", "g")
    await world.finish(request_id, "f")
    waiting = asyncio.create_task(sdk.result(request_id, wait=60))
    await followed(world)
    await server.stop()
    await server.start()
    await eventually(lambda: _flushed(world.client), what="the world's own connection")
    await world.finish(request_id, "g")
    began = asyncio.get_running_loop().time()
    assert (await waiting).succeeded
    return asyncio.get_running_loop().time() - began


async def _flushed(client: NatsClient) -> bool:
    try:
        await client.flush(timeout=1)
        return client.is_connected
    except Exception:
        return False
