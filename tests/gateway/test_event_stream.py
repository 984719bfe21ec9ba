"""Event streams: what is told, in which order, and that nothing is missing after any interruption."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from starlette.types import Message

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.feed import KEPT, FeedItem, Watch
from invoker.gateway.access.scopes import anonymous
from invoker.gateway.door import CLOSING, STILL
from invoker.gateway.event_stream import Wanted, _live
from invoker.gateway.server_sent import EventStream, frame
from invoker.gateway.sight import Sight
from invoker.nats_server import NatsServer
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.mortal_server import mortal_server
from tests.custody.workload import write_catalog
from tests.gateway.gateway_process import gateway_process
from tests.gateway.reading import Event, Events, events, finished, get, publish, world_of
from tests.gateway.stack import Stack, running_stack, session


async def test_everything_is_told_once_and_in_order(http: aiohttp.ClientSession, stack: Stack) -> None:
    async with events(http, "/v1/stream") as stream:
        (opened,) = await stream.until("open")
        assert opened.id == opened.data["sequence"]
        first = await publish(http, "pair.x")
        none = await publish(http, "nobody.listens")
        await asyncio.gather(finished(http, first), finished(http, none))
        told = [event for event in await _count(stream, 4) if event.event != "status"]
    assert {(one.event, one.data["request_id"], one.data.get("function")) for one in told} == {
        ("accepted", first, None), ("accepted", none, None), ("result", first, "pair-a"), ("result", first, "pair-b"),
    }  # fmt: skip
    assert next(one for one in told if one.data["request_id"] == none).data["runs"] == 0
    accepted = next(one for one in told if one.event == "accepted" and one.data["request_id"] == first)
    assert accepted.data["functions"] == ["pair-a", "pair-b"]
    ids = [one.id or 0 for one in told]
    assert ids == sorted(set(ids))
    assert ids[0] > (opened.id or 0)


async def _count(stream: Events, stored: int) -> list[Event]:
    """Events until so many of what is stored were among them."""
    found: list[Event] = []
    while sum(one.id is not None for one in found) < stored:
        event = await stream.next()
        assert event is not None, found
        found.append(event)
    return found


async def test_filters_leave_out_what_was_not_asked_for(http: aiohttp.ClientSession) -> None:
    async with events(http, "/v1/stream?function=pair-a&topic=pair.*&statuses=false") as stream:
        await stream.until("open")
        for topic in ("echo.x", "nobody.listens", "pair.x", "pair.y.z", "pair.last"):
            await finished(http, await publish(http, topic))
        told = await _count(stream, 4)
    assert [(one.event, one.data["topic"]) for one in told] == [
        ("accepted", "pair.x"), ("result", "pair.x"), ("accepted", "pair.last"), ("result", "pair.last"),
    ]  # fmt: skip
    for query in ("topic=a..b", "statuses=perhaps"):
        assert (await get(http, f"/v1/stream?{query}", 400))["status"] == 400
    for wrong in ("abc", "-1", "1e3", "9" * 30, "１"):
        async with http.get("/v1/stream", params={"last_event_id": wrong}) as answer:
            assert answer.status == 400, wrong


async def test_a_request_is_told_from_its_beginning_to_its_end(http: aiohttp.ClientSession, stack: Stack) -> None:
    request_id = await publish(http, "gate.x")
    path = f"/v1/requests/{request_id}/stream"
    async with events(http, path) as stream:
        beginning = await stream.until("status")
        assert beginning[0].event == "accepted"
        assert beginning[-1].id is None
        stack.open_gate(request_id)
        end = (await stream.until("end"))[-2:]
        assert [one.event for one in end] == ["result", "end"]
        assert end[1].data == {"request_id": request_id, "state": "finished"}
        assert await stream.next() is None, "the stream ends with the request"
    last = end[0].id or 0
    async with events(http, path) as stream:
        assert [one.event for one in await stream.rest()] == ["accepted", "result", "end"]
    async with events(http, path, after=beginning[0].id) as stream:
        assert [one.event for one in await stream.rest()] == ["result", "end"]
    async with http.get(path, headers={"Last-Event-ID": str(last)}) as answer:
        assert answer.status == 204, "a browser comes again until it is told that there is nothing more"
    nothing = await publish(http, "nobody.listens")
    async with events(http, f"/v1/requests/{nothing}/stream") as stream:
        assert [one.event for one in await stream.rest()] == ["accepted", "end"]
    assert (await get(http, "/v1/requests/never-there/stream", 404))["code"] == "unknown"


async def test_a_place_that_is_not_kept_is_told_as_a_gap(http: aiohttp.ClientSession) -> None:
    async with events(http, "/v1/stream", after=2**40) as stream:
        gap, opened = await stream.until("open")
    assert (gap.event, gap.data["after"]) == ("gap", 2**40)
    assert gap.data["first"] == (opened.id or 0) + 1


@pytest.mark.timeout(300)
async def test_a_reader_resumes_at_another_gateway_after_his_was_killed(server: NatsServer, tmp_path: Path) -> None:
    """SIGKILL in the middle of a flow of events; the next gateway tells exactly what came behind the last id."""
    async with AsyncExitStack() as stack:
        catalog = write_catalog(tmp_path / "catalog")
        await stack.enter_async_context(running_controller(server.url, catalog, tmp_path / "state"))
        client = await stack.enter_async_context(Client.connect(ConnectionOptions(url=server.url)))
        (tmp_path / "one").mkdir()
        one = await stack.enter_async_context(gateway_process(server.url, tmp_path / "one"))
        flow = asyncio.create_task(_flow(client, 400))
        seen: list[int] = []
        async with session(one.url) as http, events(http, "/v1/stream") as stream:
            await stream.until("open")
            try:
                while (event := await stream.next()) is not None:
                    if event.id is not None:
                        seen.append(event.id)
                    if len(seen) == 50:
                        await one.kill()
            except (aiohttp.ClientError, ConnectionError):
                pass
        assert len(seen) >= 50
        await one.start()
        async with session(one.url) as http, events(http, "/v1/stream", after=seen[-1]) as stream:
            await flow
            last = (await client.feed.kept())[1]
            while seen[-1] < last:
                event = await stream.next()
                assert event is not None
                if event.id is not None and event.event != "open":
                    seen.append(event.id)
        assert seen == list(range(seen[0], last + 1)), "every place once, in order, without a gap"


async def _flow(client: Client, count: int) -> None:
    world = world_of(client)
    for number in range(count):
        await world.seal(f"flow-{number}", "f")


@pytest.mark.timeout(300)
async def test_an_open_stream_outlives_a_killed_nats_server(tmp_path: Path) -> None:
    async with mortal_server(tmp_path / "jetstream") as server:
        assert server.running is not None
        async with (
            running_stack(tmp_path, server=server.running) as stack,
            session(stack.url) as http,
            events(http, "/v1/stream?statuses=false") as stream,
        ):
            await stream.until("open")
            before = await publish(http, "echo.x")
            told = await _count(stream, 2)
            await server.kill()
            away = await get(http, f"/v1/requests/{before}", 503)
            assert away["code"] == "server-unreachable"
            async with http.get("/v1/runs") as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            listed = await get(http, "/v1/functions")
            assert listed["problem"], "the last catalog that was heard of, and why it may be old"
            await server.start()
            await eventually(lambda: _published(http), within=60, what="a gateway that publishes again")
            after = await finished(http, await publish(http, "echo.after"))
            run_id = after["runs"][0]["run_id"]
            while told[-1].data.get("run_id") != run_id:
                event = await stream.next()
                assert event is not None
                told.append(event)
            ids = [one.id or 0 for one in told]
            assert ids == list(range(ids[0], ids[-1] + 1)), "every place once, in order, without a gap"


async def _published(http: aiohttp.ClientSession) -> bool:
    async with http.post("/v1/topics/echo.again", data=b"x") as answer:
        return answer.status == 202


async def test_who_reads_too_slowly_is_cut_off_without_a_gap(stack: Stack) -> None:
    caller = anonymous(["admin"])
    assert caller is not None
    watch = Watch()
    for sequence in range(1, KEPT + 100):
        watch.give(FeedItem(sequence, f"r{sequence}", "t", runs=0, functions=()))
    frames = [one async for one in _live(watch, Wanted(Sight(stack.gateway, caller)), 0)]
    assert watch.lagged
    assert [int(one.split(b"\n")[0].removeprefix(b"id: ")) for one in frames] == list(range(1, KEPT + 1))


async def test_who_goes_is_forgotten(http: aiohttp.ClientSession, stack: Stack) -> None:
    feed = stack.client.feed

    async def none() -> bool:
        return not feed._all and not feed._of_statuses

    await eventually(none, what="a feed that nobody watches")
    async with AsyncExitStack() as opened:
        for _ in range(20):
            stream = await opened.enter_async_context(events(http, "/v1/stream"))
            await stream.until("open")
        assert len(feed._all) == 20
    await eventually(none, what="the forgetting of twenty readers")
    assert wire.Names() == stack.client.names


async def test_a_stream_that_ends_by_itself_as_the_gateway_stops_is_ended_once(stack: Stack) -> None:
    """It is not told to come again in an answer that is complete."""
    sent: list[Message] = []
    closing = asyncio.get_running_loop().create_future()
    last_is_sent, never = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncGenerator[bytes, None]:
        yield frame("result", {})

    async def send(message: Message) -> None:
        sent.append(message)
        if not message.get("more_body", True):
            last_is_sent.set()
            await never.wait()  # as a server does whose reader is slow: what is sent counts, and the call goes on

    async def receive() -> Message:
        await never.wait()
        raise AssertionError("nothing comes")

    async def allowed() -> bool:
        return True

    scope = {"type": "http", CLOSING: closing, STILL: allowed}
    answering = asyncio.ensure_future(EventStream(source(), stack.gateway)(scope, receive, send))
    await last_is_sent.wait()
    closing.set_result(None)
    await answering
    assert [message.get("more_body") for message in sent] == [None, True, False]
