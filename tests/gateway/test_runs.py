"""Runs over HTTP: lists that lose no row, one run, its output in parts, its log; large outputs never in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nats.aio.subscription import Subscription

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.ending import cancelled
from invoker.gateway.run_table import RunTable
from invoker.listing import RunFilter
from invoker.nats_server import NatsServer
from invoker.request import ClaimCheck, Content
from invoker.result import Reason, State
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import write_catalog
from tests.gateway.gateway_process import gateway_process
from tests.gateway.reading import events, finished, get, post, publish, world_of
from tests.gateway.stack import Stack, running_gateway, session

MIB = 1024 * 1024
LARGE_BYTES = 100 * MIB + 77
MAX_GROWTH_BYTES = 40 * MIB


async def test_pages_follow_each_other_without_loss_or_repeat(http: aiohttp.ClientSession, stack: Stack) -> None:
    for number in range(6):
        await finished(http, await publish(http, f"pair.page-{number}"))
    seen: list[str] = []
    path = "/v1/runs?topic=pair.*&limit=5"
    pages = 0
    while path:
        async with http.get(path) as answer:
            page, link = await answer.json(), answer.headers.get("Link")
        assert len(page["items"]) <= 5
        seen += [row["run_id"] for row in page["items"]]
        assert (link is None) == (page["next"] is None)
        path = link[1 : link.index(">")] if link else ""
        pages += 1
    assert (len(seen), len(set(seen)), pages) == (12, 12, 3)
    newest = (await get(http, "/v1/runs?limit=1"))["items"][0]
    assert set(newest) == {
        "run_id", "request_id", "function", "topic", "state", "reason", "attempts", "queued_at", "started_at",
        "finished_at", "cursor",
    }, "no payload in a list"  # fmt: skip


async def test_filters_find_what_fits_and_refuse_what_is_none(http: aiohttp.ClientSession, stack: Stack) -> None:
    failed = await finished(http, await publish(http, "fail.this"))
    running = await publish(http, "gate.filtered")
    await eventually(
        lambda: _listed_over_http(http, running), what="the message of the run, which comes behind its record"
    )
    run = (await get(http, f"/v1/runs?request={failed['request_id']}"))["items"]
    assert [(row["function"], row["state"], row["reason"]) for row in run] == [("fail", "failed", "error")]
    for query in (
        "state=failed&topic=fail.this",
        "reason=error&function=fail",
        "topic=*.this",
        "topic=fail.>&since=1h",
        f"text={failed['request_id'][5:]}",
        f"text={run[0]['run_id'][:9]}&until=2200-01-01T00:00:00Z",
    ):
        assert run[0] in (await get(http, f"/v1/runs?{query}"))["items"], query
    for query in (
        "function=nobody",
        "topic=nothing.here",
        "state=lost",
        "reason=evicted",
        "since=2200-01-01T00:00:00Z",
        "until=1h",
        "text=nowhere",
    ):
        assert (await get(http, f"/v1/runs?{query}"))["items"] == [], query
    first = (await get(http, "/v1/runs?limit=1"))["items"][0]
    assert (first["request_id"], first["topic"]) == (running, "gate.filtered"), "unfinished ones come first"
    for query in (f"text={running[3:]}", f"text={running}&until=2200-01-01T00:00:00Z"):
        assert [row["request_id"] for row in (await get(http, f"/v1/runs?{query}"))["items"]] == [running], query
    assert (await get(http, f"/v1/runs?text={running}&until=1h"))["items"] == []
    stack.open_gate(running)
    for wrong in (
        "state=odd", "reason=odd", "limit=0", "limit=501", "limit=x", "cursor=x", "cursor=f-1", "cursor=f1e3",
        "cursor=f99999999999999999999", "cursor=u99999999999999999999",
        "since=yesterday", "since=2020-01-01T00:00:00", "since=99999999999d", "until=soon", "text=" + "x" * 65,
        "topic=a..b", "function=" + "x" * 64,
    ):  # fmt: skip
        assert (await get(http, f"/v1/runs?{wrong}", 400))["status"] == 400, wrong


@pytest.mark.parametrize(
    ("path", "pointer", "words"),
    [
        ("/v1/runs?limit=1&functoin=x", "/query/functoin", "; did you mean function?"),
        ("/v1/dead-letters?reason=x", "/query/reason", "is none of the query parameters here (cursor, limit)"),
        ("/v1/functions?name=x", "/query/name", "there are no query parameters here"),
        (
            "/v1/stream?functions=x",
            "/query/functions",
            "(function, last_event_id, statuses, topic); did you mean function?",
        ),
    ],
)
async def test_a_filter_that_a_list_does_not_have_is_refused_by_its_name(
    http: aiohttp.ClientSession, path: str, pointer: str, words: str
) -> None:
    async with asyncio.timeout(60):
        problem = await get(http, path, 400)
    assert problem["code"] == "invalid-request"
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert words in problem["errors"][0]["detail"]
    assert words in problem["detail"]


async def _listed_over_http(http: aiohttp.ClientSession, request_id: str) -> bool:
    return bool((await get(http, f"/v1/runs?request={request_id}"))["items"])


async def test_a_table_that_does_not_reach_far_is_continued_from_the_stream(server: NatsServer) -> None:
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        world = world_of(client)
        for number in range(30):
            await world.accept(f"old-{number}", "f", topic=f"old.{number}")
            await world.finish(f"old-{number}", "f", topic=f"old.{number}")
        following = asyncio.create_task(client.feed.run())
        table = RunTable(client.feed, kept=10, stretch=4)
        filling = asyncio.create_task(table.run())
        await asyncio.wait_for(filling, 60)
        assert (table.loaded, len(table)) == (True, 10)
        for number in range(5):
            reason = Reason.ERROR if number else Reason.COMPLETED
            await world.accept(f"new-{number}", "f", topic=f"new.{number}")
            await world.finish(f"new-{number}", "f", reason=reason, topic=f"new.{number}")
        names = [f"new-{n}" for n in range(4, -1, -1)] + [f"old-{n}" for n in range(29, -1, -1)]
        assert await _listed(client, table, RunFilter()) == names
        assert await _listed(client, table, RunFilter(reason=Reason.ERROR)) == names[:4]
        assert await _listed(client, table, RunFilter(request_id="old-3")) == ["old-3"]
        assert await _listed(client, table, RunFilter(topic="other.*")) == []
        assert await _listed(client, None, RunFilter()) == names, "the stream alone tells the same"
        middle = datetime.now(UTC) - timedelta(hours=1)
        for wanted, fitting in (
            (
                RunFilter(text="ld-2"),
                [
                    "old-29",
                    "old-28",
                    "old-27",
                    "old-26",
                    "old-25",
                    "old-24",
                    "old-23",
                    "old-22",
                    "old-21",
                    "old-20",
                    "old-2",
                ],
            ),
            (RunFilter(states=frozenset({State.FAILED, State.LOST})), names[:4]),
            (RunFilter(topic="old.*"), names[5:]),
            (RunFilter(topic="*.2"), ["new-2", "old-2"]),
            (RunFilter(topic=">", text="w-3"), ["new-3"]),
            (RunFilter(topic="new.*.>"), []),
            (RunFilter(until=middle), []),
            (RunFilter(until=middle + timedelta(hours=2)), names),
        ):
            for recent in (table, None):
                assert await _listed(client, recent, wanted) == fitting, wanted
        known = await eventually(table.known_from, what="a table that is not behind")
        assert table.find(wire.run_id_of("old-3", "f")) is None
        found = await client.stored.run_of_id(wire.run_id_of("old-3", "f"), before=known)
        assert found is not None
        assert (found.request_id, found.function) == ("old-3", "f")
        assert await client.stored.run_of_id(wire.run_id_of("never", "f"), before=known) is None
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _listed(client: Client, table: RunTable | None, wanted: RunFilter) -> list[str]:
    """All rows, three at a time, each page from the cursor of the one before."""
    found: list[str] = []
    before: str | None = None
    while True:
        page = []
        async for row in client.stored.rows(wanted, before=before, recent=table):
            page.append(row)
            if len(page) == 3:
                break
        found += [row.request_id for row in page]
        if len(page) < 3:
            return found
        before = page[-1].cursor


async def test_the_table_forgets_its_oldest_rows(server: NatsServer) -> None:
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        table, world = RunTable(client.feed, kept=100), world_of(client)
        following = asyncio.create_task(client.feed.run())
        await asyncio.wait_for(table.run(), 60)
        for start in range(0, 1_200, 100):
            await asyncio.gather(*(world.seal(f"r{start + n}", "f") for n in range(100)))

        async def bounded() -> bool:
            newest = await client.feed.kept()
            return client.feed.position == newest[1] and 100 <= len(table) <= 1_100

        await eventually(bounded, what="a bounded table")
        assert len(await _all(client, table)) == 1_200
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_run_is_found_by_its_id_from_its_record_on(server: NatsServer) -> None:
    """A 202 names the runs by the record alone: their messages are stored a moment later."""
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        world = world_of(client)
        async with running_gateway(server.url) as up, session(up.url) as http:
            for number in range(20):
                request_id = f"begun-{number}"
                run_id = wire.run_id_of(request_id, "g")
                await world.record(request_id, "f", "g")
                run = await get(http, f"/v1/runs/{run_id}")
                assert (run["request_id"], run["function"], run["state"]) == (request_id, "g", "queued")
                assert (await get(http, f"/v1/ids/{run_id}"))["function"] == "g"
                assert (await get(http, f"/v1/runs/{run_id}/output", 409))["code"] == "not-ready"


async def test_the_table_forgets_the_oldest_runs_that_it_knows_by_their_records(server: NatsServer) -> None:
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        table, world = RunTable(client.feed, begun=3), world_of(client)
        following = asyncio.create_task(client.feed.run())
        await asyncio.wait_for(table.run(), 60)
        for number in range(5):
            await world.record(f"r{number}", "f")
        await eventually(table.known_from, what="a table that is not behind")
        known = [number for number in range(5) if table.find(wire.run_id_of(f"r{number}", "f")) is not None]
        assert known == [2, 3, 4]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _all(client: Client, table: RunTable) -> set[str]:
    return {row.request_id async for row in client.stored.rows(RunFilter(), recent=table)}


async def test_an_output_whole_in_parts_and_not_at_all(http: aiohttp.ClientSession, stack: Stack) -> None:
    request_id = await publish(http, "echo.x", b"0123456789", **{"Content-Type": "text/plain"})
    await finished(http, request_id)
    path = f"/v1/runs/{wire.run_id_of(request_id, 'echo')}/output"
    async with http.get(path) as answer:
        assert (answer.status, await answer.read()) == (200, b"0123456789")
        assert answer.headers["ETag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
        assert answer.headers["Content-Disposition"].startswith("attachment")
    async with http.get(path, headers={"Range": "bytes=3-4"}) as answer:
        assert (answer.status, await answer.read()) == (206, b"34")
    async with http.head(path) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "10")
    failed = await finished(http, await publish(http, "fail.x"))
    problem = await get(http, f"/v1/runs/{failed['runs'][0]['run_id']}/output", 502)
    assert (problem["code"], problem["function"], problem["class"]) == ("error", "fail", "function")
    waiting = await publish(http, "gate.x")
    run_id = wire.run_id_of(waiting, "gate")
    await eventually(lambda: _known(http, run_id), what="the run")
    assert (await get(http, f"/v1/runs/{run_id}/output?wait=0.1", 409))["code"] == "not-ready"
    stack.open_gate(waiting)


async def _known(http: aiohttp.ClientSession, run_id: str) -> bool:
    async with http.get(f"/v1/runs/{run_id}") as answer:
        return answer.status == 200


async def test_logs_as_text_and_as_events_live_and_afterwards(http: aiohttp.ClientSession, stack: Stack) -> None:
    failed = await finished(http, await publish(http, "fail.x"))
    path = f"/v1/runs/{failed['runs'][0]['run_id']}/logs"
    async with http.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, "no good\n")
        assert answer.headers["Content-Type"].startswith("text/plain")
    async with events(http, f"{path}?follow=true", headers={"Accept": "text/event-stream"}) as stream:
        told = await stream.rest()
    assert [(one.event, one.data.get("text")) for one in told] == [("line", "no good"), ("end", None)]
    waiting = await publish(http, "gate.x")
    run_id = wire.run_id_of(waiting, "gate")
    await eventually(lambda: _known(http, run_id), what="the run")
    async with events(http, f"/v1/runs/{run_id}/logs?follow=true", headers={"Accept": "text/event-stream"}) as stream:
        following = asyncio.create_task(stream.rest())
        stack.open_gate(waiting)
        assert [one.event for one in await following][-1] == "end", "a followed log ends with its run"


async def test_a_followed_log_is_waited_for_until_it_is_kept(server: NatsServer) -> None:
    """The function has answered, and its controller, which has much to do, tells nothing and keeps the log late."""
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        world, run_id = world_of(client), wire.run_id_of("r1", "f")
        controller = await client._client.subscribe(client.names.control(f"logs.{run_id}"))
        async with running_gateway(server.url) as up, session(up.url) as http:
            await world.accept("r1", "f")
            path = f"/v1/runs/{run_id}/logs?follow=true"
            async with events(http, path, headers={"Accept": "text/event-stream"}) as stream:
                following = asyncio.create_task(stream.rest())
                await controller.next_msg(60)
                await world.seal("r1", "f")
                asked = asyncio.create_task(_asked(controller, 4))  # who follows asks for the lines once a second
                await asyncio.wait({asked, following}, return_when=asyncio.FIRST_COMPLETED)
                await cancelled(asked)
                assert not following.done(), "the log ended before it was kept"
                await world.claims.put_log(run_id, b"late\n")
                await world.release("r1", "f")
                told = await following
        assert [(one.event, one.data.get("text")) for one in told] == [("line", "late"), ("end", None)]


async def _asked(controller: Subscription, times: int) -> None:
    for _ in range(times):
        await controller.next_msg(60)


async def _zeros(size: int) -> AsyncIterator[bytes]:
    part = bytes(MIB)
    for start in range(0, size, MIB):
        yield part[: size - start]


@pytest.mark.timeout(300)
async def test_a_hundred_megabytes_pass_through_and_are_never_held(server: NatsServer, tmp_path: Path) -> None:
    async with (
        running_controller(server.url, write_catalog(tmp_path / "catalog"), tmp_path / "state"),
        Client.connect(ConnectionOptions(url=server.url)) as client,
    ):
        world = world_of(client)
        claim = await world.claims.put(_zeros(LARGE_BYTES), owner="test")
        await _finished_with(world, "large", claim)
        false = ClaimCheck(object=claim.object, size_bytes=claim.size_bytes, sha256="0" * 64)
        await _finished_with(world, "damaged", false)
        await _finished_with(world, "gone", ClaimCheck(object="no/such", size_bytes=9, sha256="0" * 64))
        async with gateway_process(server.url, tmp_path) as gateway, session(gateway.url) as http:
            path = f"/v1/runs/{wire.run_id_of('large', 'f')}/output"
            async with http.head(path) as answer:
                assert answer.headers["Content-Length"] == str(LARGE_BYTES)
            assert gateway.process is not None
            before = _peak_bytes(gateway.process.pid)
            assert await _digest(http, path) == (200, LARGE_BYTES, claim.sha256)
            for asked, size in {
                "bytes=0-0": 1, "bytes=-1": 1, "bytes=52428799-52428801": 3, f"bytes={LARGE_BYTES - 300_000}-": 300_000,
                "bytes=131071-131072": 2, "bytes=1-": LARGE_BYTES - 1,
            }.items():  # fmt: skip
                status, length, _ = await _digest(http, path, Range=asked)
                assert (status, length) == (206, size), asked
            async with http.get(path, headers={"Range": f"bytes={LARGE_BYTES}-"}) as answer:
                assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{LARGE_BYTES}")
            grown = _peak_bytes(gateway.process.pid) - before
            assert grown < MAX_GROWTH_BYTES, f"{grown >> 20} MiB more at its peak"
            with pytest.raises(aiohttp.ClientPayloadError):
                await _digest(http, f"/v1/runs/{wire.run_id_of('damaged', 'f')}/output")
            gone = await get(http, f"/v1/runs/{wire.run_id_of('gone', 'f')}/output", 410)
            assert gone["code"] == "expired"


async def test_a_part_is_the_part(server: NatsServer) -> None:
    """Every part of bytes that differ, over the chunks' borders."""
    async with Client.connect(ConnectionOptions(url=server.url)) as client:
        await ensure_streams(client._client.jetstream(timeout=60), wire.Names(), StreamLimits())
        data = hashlib.shake_256(b"seed").digest(400_000)
        content = Content.claimed(await world_of(client).claims.put(data, owner="test"))
        edges = (0, 1, 131_071, 131_072, 131_073, 262_143, 262_144, 393_216, 399_998, 399_999)
        for first in edges:
            for last in (one for one in edges if one >= first):
                part = b"".join([chunk async for chunk in client.stored.part(content, first, last)])
                assert part == data[first : last + 1], (first, last)


async def _finished_with(world: Any, request_id: str, claim: ClaimCheck) -> None:
    await world.seal(request_id, "f", Content.claimed(claim, "application/octet-stream"))


async def _digest(http: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, int, str]:
    hasher, size = hashlib.sha256(), 0
    async with http.get(path, headers=headers) as answer:
        async for part in answer.content.iter_chunked(256 * 1024):
            hasher.update(part)
            size += len(part)
        return answer.status, size, hasher.hexdigest()


def _peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process is gone")


async def test_what_is_asked_of_runs_is_refused_in_words(http: aiohttp.ClientSession) -> None:
    done = await finished(http, await publish(http, "echo.x"))
    run_id = done["runs"][0]["run_id"]
    assert (await post(http, f"/v1/runs/{run_id}/cancel", 400, {"function": "other"}))["code"] == "invalid-request"
    for part in (run_id[:8], run_id.upper(), f"{run_id}a"):
        assert (await get(http, f"/v1/runs/{part}", 404))["code"] == "unknown", "no part of an id stands for it here"
