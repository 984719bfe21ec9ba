"""Ends that a gateway chooses: streams that are over, keys that are withdrawn, and a stop while callers wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from invoker.gateway.access import keys
from invoker.gateway.server_sent import LOGIN_SECONDS, STOPPED_RETRY_MILLISECONDS
from tests.conftest import eventually
from tests.gateway.access_world import add_key, bearer
from tests.gateway.reading import Event, events, finished, publish
from tests.gateway.stack import Stack, running_gateway, session


@asynccontextmanager
async def beside(stack: Stack, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """One more gateway."""
    async with running_gateway(stack.server.url, **settings) as up, session(up.url) as http:
        await up.gateway.client.feed.live()
        yield http


async def whole_text(answer: aiohttp.ClientResponse) -> str:
    """All that comes to the answer's end; one that is cut raises."""
    return (await answer.content.read()).decode()


async def test_a_stream_ends_when_its_setting_says_and_is_gone_on_with(stack: Stack) -> None:
    async with beside(stack, gateway_stream_seconds=0.3) as http:

        async def begun() -> str | None:
            async with http.get("/v1/stream") as answer:
                text = await asyncio.wait_for(whole_text(answer), 60)
            return text if "id: " in text else None  # a stall may be longer than what it has

        text = await eventually(begun, what="a stream that says where it begins")
        assert text.startswith("retry: ")
        assert text.endswith("retry: 2000\n\n"), "between two events, with the word when to come again"
        opened = int(text.partition("id: ")[2].partition("\n")[0])
        request_id = await publish(http, "nobody.listens")
        await finished(http, request_id)

        async def gone_on_with() -> list[Event]:
            async with events(http, "/v1/stream", after=opened) as stream:
                return [one for one in await stream.rest() if one.event == "accepted"]

        told = await eventually(gone_on_with, what="what came behind that place")
        assert told[0].data["request_id"] == request_id


async def test_a_withdrawn_key_reads_no_longer_and_others_go_on(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    gone, left = add_key(file, "gone", "read"), add_key(file, "left", "read")
    async with beside(stack, gateway_keys=file, gateway_anonymous=()) as http:
        async with events(http, "/v1/stream", headers=bearer(left)) as other:
            await other.until("open")
            async with events(http, "/v1/stream", headers=bearer(gone)) as mine:
                await mine.until("open")
                keys.store(file, keys.without_key(keys.load(file), "gone")[0])
                assert await mine.next(within=LOGIN_SECONDS * 12) is None, "it ends, in an orderly way"
            request_id = await stack.client.publish("nobody.listens", b"x")
            event = (await other.until("accepted"))[-1]
            assert event.data["request_id"] == request_id.request_id
        async with http.get("/v1/stream", headers=bearer(gone)) as answer:
            assert answer.status == 401


async def test_who_waits_while_a_gateway_stops_is_answered(stack: Stack) -> None:
    """Waits, long polls and streams of runs that will not have ended by then: all of them whole."""
    async with AsyncExitStack() as opened:  # whose sessions outlive the gateway
        async with running_gateway(stack.server.url) as up:
            http = await opened.enter_async_context(session(up.url))
            await up.gateway.client.feed.live()
            polled = await publish(http, "gate.polled")
            waiting = asyncio.create_task(_answer(http.post("/v1/topics/gate.waited?wait=60", data=b"x")))
            polling = asyncio.create_task(_answer(http.get(f"/v1/requests/{polled}?wait=60")))
            streams = [
                asyncio.create_task(_answer(http.get(path))) for path in ("/v1/stream", f"/v1/requests/{polled}/stream")
            ]

            async def begun() -> bool:
                running = {row.topic for row in await stack.client.runs(state="running", limit=50)}
                opened = up.gateway.metrics.event_streams._value.get()
                watching = len(up.gateway.client.feed._by_request.get(polled, ()))  # the poll and its stream
                return {"gate.waited", "gate.polled"} <= running and (opened, watching) == (len(streams), 2)

            await eventually(begun, what="two streams and two waits")
        status, text = await waiting
        assert (status, '"topic":"gate.waited"' in text) == (202, True), text
        status, text = await polling
        assert (status, '"gate.polled"' in text) == (200, True), text
        for stream in streams:
            status, text = await stream
            low, high = STOPPED_RETRY_MILLISECONDS
            assert status == 200
            assert text.endswith("\n\n"), "between two events"
            assert low <= int(text.rstrip().rpartition("retry: ")[2]) <= high, text
    for row in await stack.client.runs(limit=50):
        if row.topic.startswith("gate."):
            stack.open_gate(row.request_id)
            await stack.client.result(row.request_id, wait=60)


async def _answer(call: Any) -> tuple[int, str]:
    async with call as answer:
        return answer.status, await whole_text(answer)
