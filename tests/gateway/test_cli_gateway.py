"""The command line through a gateway: the same words and documents as over NATS, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from invoker import wire
from invoker.client import Client
from invoker.http.client import HttpClient
from invoker.http.logs import behind
from invoker.http.settings import GatewayOptions
from invoker.result import RunStatusDocument, State
from invoker.views import LogLine
from tests.conftest import eventually
from tests.custody.workload import function, write_catalog
from tests.dashboard.world import has_state
from tests.gateway.access_world import add_key, guarded_gateway
from tests.gateway.cli_program import Program, Proxy, invoker, program, proxy
from tests.gateway.reading import world_of
from tests.gateway.stack import Stack

ORDER = {"number": 1, "items": [{"sku": "ü"}]}


@dataclass(frozen=True)
class Doors:
    """The same commands over NATS and over HTTP."""

    nats: Program
    http: Program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    folder = tmp_path_factory.mktemp("desk")
    async with (
        program(folder, INVOKER_NATS_URL=stack.server.url) as nats,
        program(folder, INVOKER_GATEWAY_URL=stack.url) as http,
    ):
        yield Doors(nats, http)


@dataclass(frozen=True)
class World:
    """What is there to be asked about."""

    good: str
    bad: str
    pair: str
    chain: str
    unmatched: str
    waiting: str
    dead: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(stack: Stack, sdk: Client) -> AsyncIterator[World]:
    good = await sdk.publish("orders.x", ORDER, headers={"x-team": "blue"}, params={"level": 3, "note": "ü"})
    bad = await sdk.publish("fail.x", b"\x00\xff")
    pair = await sdk.publish("pair.x", "p")
    chain = await sdk.publish("chain.begin", "c", request_id="a chain of ours")
    unmatched = await sdk.publish("nowhere.at.all", "n")
    for receipt in (good, bad, pair, unmatched):
        await sdk.result(receipt.request_id, wait=60)
    await sdk.chain(chain.request_id, wait=60)
    waiting = await sdk.publish("gate.x", "w")
    headers = {"Invoker-Claim": "no claim check"}
    await world_of(stack.client).client.jetstream().publish("events.echo.dead", b"a letter", headers=headers)

    async def settled() -> bool:
        states = [run.state for run in (await sdk.result(waiting.request_id)).runs]
        reader, names = stack.client.custody.reader, stack.client.names
        unfinished = (await reader.state(names.runs_stream)).state.messages
        return states == [State.RUNNING] and unfinished == 1 and bool(await sdk.dead())

    # What is still being finished would be told in two ways, one a moment after the other.
    await eventually(settled, what="one running run, a dead letter, and nothing else under way")
    letter = (await sdk.dead(1))[0].id
    ids = (receipt.request_id for receipt in (good, bad, pair, chain, unmatched, waiting))
    yield World(*ids, letter)
    stack.open_gate(waiting.request_id)


async def test_every_question_has_the_same_answer_through_both_doors(doors: Doors, world: World, sdk: Client) -> None:
    good_run = (await sdk.run(world.good)).run_id
    bad_run = (await sdk.run(world.bad)).run_id
    waiting_run = (await sdk.run(world.waiting)).run_id
    codes = {
        ("result", world.good): 0,
        ("result", world.good, "-o", "json"): 0,
        ("result", world.good[-9:], "-o", "yaml"): 0,
        ("result", good_run, "--wait", "5", "-o", "jsonl"): 0,
        ("result", good_run[:8], "-o", "name"): 0,
        ("result", "@latest", "-o", "json"): 5,
        ("result", world.bad): 3,
        ("result", world.pair, "--wait", "5"): 0,
        ("result", world.pair, "--function", "pair-b", "-o", "json"): 0,
        ("result", world.pair, "--function", "pair-c"): 4,
        ("result", world.unmatched): 6,
        ("result", world.waiting, "-o", "json"): 5,
        ("result", world.waiting, "--wait", "0.3"): 5,
        ("result", waiting_run): 5,
        ("result", "a chain of ours", "--chain", "-o", "json"): 0,
        ("result", world.chain, "--chain", "--wait", "5"): 0,
        ("result", world.waiting, "--chain", "--wait", "0.3", "-o", "name"): 5,
        ("result", "neverheardof"): 4,
        ("result", "neverheardof", "--wait", "0.3"): 5,
        ("result", "a" * 26): 4,
        ("result", ""): 4,
        ("runs", "list", "-o", "json"): 0,
        ("runs", "list", "--limit", "3", "-o", "jsonl"): 0,
        ("runs", "list", "--state", "failed", "--since", "1h", "-o", "name"): 0,
        ("runs", "list", "--reason", "error", "--function", "fail", "-o", "yaml"): 0,
        ("runs", "list", "--request", bad_run, "-o", "name"): 0,
        ("runs", "list", "--since", "0.001"): 0,
        ("runs", "list", "--until", "0s", "--text", bad_run[3:], "-o", "name"): 0,
        ("runs", "list", "--until", "1d", "-o", "name"): 0,
        ("runs", "describe", world.good): 0,
        ("runs", "describe", bad_run): 0,
        ("runs", "describe", world.pair, "-o", "json"): 0,
        ("runs", "describe", world.waiting, "-o", "json"): 0,
        ("runs", "logs", world.bad): 0,
        ("runs", "logs", bad_run, "--follow", "-o", "json"): 0,
        ("runs", "logs", world.pair): 0,
        ("runs", "logs", world.unmatched): 4,
        ("functions", "list", "-o", "json"): 0,
        ("functions", "list"): 0,
        ("functions", "describe", "order", "-o", "yaml"): 0,
        ("functions", "describe", "orders"): 4,
        ("explain", "orders.new", '{"number": 1}', "--header", "ce-type=order"): 0,
        ("explain", "order.new", "-o", "json"): 0,
        ("explain", "no..topic"): 6,
        ("dead", "list", "-o", "json"): 0,
        ("dead", "show", world.dead): 0,
        ("dead", "show", world.dead[:6], "-o", "json"): 0,
        ("dead", "show", "neverheardof"): 4,
    }
    for arguments, code in codes.items():
        over_nats, over_http = await asyncio.gather(doors.nats.run(*arguments), doors.http.run(*arguments))
        assert over_nats.code == code, (arguments, over_nats)
        assert over_http == over_nats, arguments


async def test_publishing_through_a_gateway(doors: Doors, sdk: Client, tmp_path: Path) -> None:
    http = doors.http
    said = await http.run(
        "publish", "mirror.told", '{"a": 1}', "--request-id", "told-1", "--header", "X-Team=blue ü",
        "--header", "ce-type=greeting", "--wait", "30",
    )  # fmt: skip
    told = said.json
    assert (said.code, told["topic"]) == (0, "mirror.told")
    assert (told["headers"]["x-team"], told["headers"]["ce-type"]) == ("blue ü", "greeting")
    ordered = await http.run("publish", "orders.told", json.dumps(ORDER), "--param", "note=ü 3", "--wait", "30", "-q")
    record = (await sdk.result("@latest")).record
    assert record is not None
    assert (ordered.code, ordered.json, record.params) == (0, ORDER, {"note": "ü 3"})
    again = await http.run("publish", "mirror.told", '{"a": 1}', "--request-id", "told-1", "-o", "json")
    assert (again.code, again.json["duplicate"], again.json["request_id"]) == (0, True, "told-1")
    assert "there already" in again.err
    other = await http.run("publish", "mirror.told", '{"a": 2}', "--request-id", "told-1")
    assert (other.code, "another body" in other.err) == (6, True)
    quoted = await http.run("publish", "echo.x", "q", "--request-id", '"in quotes"', "-o", "json")
    assert quoted.json["request_id"] == (await sdk.result('"in quotes"', wait=60)).request_id
    new = await http.run("publish", "echo.x", "new", "-q")
    assert (await sdk.result(new.out.strip(), wait=60)).succeeded
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(range(256)) * 50_000)  # 12.8 MB: by claim check, and as a file that is read in pieces
    large = await http.run("publish", "echo.x", f"@{file}", "--wait", "40", "-o", "json")
    assert large.json["runs"][0]["output"]["claim"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    shown = await http.run("result", large.json["request_id"])
    assert shown.out.encode() == file.read_bytes().decode(errors="replace").encode()
    for arguments in (
        ("publish", "nowhere.else", "x", "--wait", "20"),
        ("publish", "orders.x", '{"number": 0}', "--wait", "20", "-q"),
        ("publish", "no..topic", "x"),
        ("publish", "echo.x", "@/does/not/exist"),
    ):
        over_nats, over_http = await asyncio.gather(doors.nats.run(*arguments), http.run(*arguments))
        assert (over_http.code, over_http.out) == (over_nats.code, over_nats.out) == (6, ""), arguments
    reply_to = await http.run("publish", "echo.x", "x", "--reply-to", "replies.me")
    assert (reply_to.code, "[invalid-reply-subject]" in reply_to.err) == (6, True)


async def test_operating_through_a_gateway(doors: Doors, stack: Stack, sdk: Client, world: World) -> None:
    http = doors.http
    other = json.dumps(ORDER | {"number": 2})
    again = await http.run("runs", "replay", world.good, other, "--wait", "30", "-o", "json")
    view = await sdk.result(again.json["request_id"])
    assert (again.code, view.record and view.record.replay_of) == (0, world.good)
    assert await sdk.input(again.json["request_id"]) == other.encode()
    one = await http.run("runs", "replay", (await sdk.result(world.pair)).runs[1].run_id, "--wait", "30")
    assert (one.code, one.out) == (0, "b p")
    gone = await http.run("runs", "replay", "neverheardof")
    assert (gone.code, "nothing is known" in gone.err) == (4, True)

    held = (await sdk.publish("gate.cancel", "x")).request_id
    await has_state(sdk, held, {State.RUNNING})
    cancelled = await http.run("runs", "cancel", held, "--message", "no more", "-o", "json")
    run = await sdk.run(held)
    assert (cancelled.code, cancelled.json["cancelled"]) == (0, [run.run_id])
    assert run.result is not None
    assert (run.result.state, run.result.message) == ("cancelled", "no more")
    late = await http.run("runs", "cancel", run.run_id)
    assert (late.code, late.out, "already finished" in late.err) == (0, "", True)
    held = (await sdk.publish("gate.cancel", "y")).request_id
    await has_state(sdk, held, {State.RUNNING})
    chain = await http.run("runs", "cancel", held, "--chain", "--message", "none of it")
    assert (chain.code, chain.out) == (0, f"{(await sdk.run(held)).run_id}\n")
    (result,) = (await sdk.result(held, wait=60)).results
    assert (result.state, result.message) == ("cancelled", "none of it")
    both = await http.run("runs", "cancel", held, "--chain", "--function", "gate")
    assert (both.code, "leave --function out" in both.err) == (2, True)

    assert (await http.run("functions", "pause", "echo", "-o", "json")).json == {"function": "echo", "paused": True}
    assert (await sdk.functions("echo")).functions[0].paused
    assert (await http.run("functions", "resume", "echo")).code == 0
    assert not (await sdk.functions("echo")).functions[0].paused
    assert (await http.run("functions", "pause", "nobody")).code == 4
    loaded = await http.run("functions", "reload", "-o", "json")
    assert loaded.json["functions"] == len((await sdk.functions()).functions)

    sent = await http.run("dead", "redrive", world.dead, "-o", "json")
    assert (sent.code, sent.json["dead_id"]) == (0, world.dead)
    assert (await http.run("dead", "redrive", "neverheardof")).code == 4


async def test_a_wait_survives_cut_connections_and_a_gateway_that_goes(stack: Stack, tmp_path: Path) -> None:
    request_id = (await stack.client.publish("gate.cut", "through")).request_id
    async with proxy(stack.url) as way:
        waiting = asyncio.create_task(
            invoker(tmp_path, "-v", "--gateway", way.url, "result", request_id, "--wait", "50")
        )
        for number in (1, 2):

            async def asked(number: int = number) -> bool:
                return way.count("wait=") >= number

            await eventually(asked, what="a long poll")
            way.cut()
        stack.open_gate(request_id)
        ran = await waiting
    assert (ran.code, ran.out) == (0, "through")
    assert f"gateway {way.url} (--gateway)" in ran.err


async def test_what_is_away_wrong_or_too_much_is_said(stack: Stack, world: World, tmp_path: Path) -> None:
    keys, secret = tmp_path / "keys.json", tmp_path / "secret"
    key = add_key(keys, "viewer", "read >")
    async with (
        guarded_gateway(stack.server.url, gateway_keys=keys) as guarded,
        program(tmp_path, INVOKER_GATEWAY_URL=guarded.url, INVOKER_GATEWAY_KEY=key) as viewer,
        program(tmp_path, INVOKER_GATEWAY_URL=guarded.url) as nobody,
    ):
        assert (await viewer.run("-v", "result", world.good)).code == 0
        secret.write_text(f"{key[:-1]}{'b' if key[-1] == 'a' else 'a'}\n")
        wrong = ("--gateway-key-file", str(secret), "-v", "runs", "list")
        refusals = {
            "publish": (await viewer.run("publish", "echo.x", "x"), 6, "[forbidden]"),
            "cancel": (await viewer.run("runs", "cancel", world.waiting), 6, "[forbidden]"),
            "wrong key": (await viewer.run(*wrong), 6, f"the key is from the file {secret}"),
            "no key": (await nobody.run("runs", "list"), 6, "no key was shown; name its file"),
            "away": (await nobody.run("--gateway", "http://127.0.0.1:1", "runs", "list"), 7, "no gateway answers"),
            "away, waiting": (
                await nobody.run("--gateway", "http://127.0.0.1:1", "result", "x", "--wait", "20"), 7, "no gateway"
            ),
            "no gateway": (await nobody.run("--gateway", stack.probe_url, "runs", "list"), 7, "is no gateway"),
            "not even HTTP": (
                await nobody.run("--gateway", stack.server.url.replace("nats", "http"), "runs", "list"), 7, "broke"
            ),
            "both": (await nobody.run("--gateway", stack.url, "--server", "nats://x", "runs", "list"), 2, "excludes"),
            "dev": (await nobody.run("--gateway", stack.url, "dev"), 2, "does not go through a gateway"),
            "gateway": (await nobody.run("--gateway", stack.url, "gateway"), 2, "does not go through a gateway"),
            "password": (await nobody.run("--gateway", "http://me:hunter2@h", "runs", "list"), 2, "name or password"),
            "no address": (await nobody.run("--gateway", "ftp://h", "runs", "list"), 2, "is not the address"),
            "no file": (await nobody.run("--gateway-key-file", "/no/file", "runs", "list"), 2, "cannot be read"),
        }  # fmt: skip
    for what, (ran, code, words) in refusals.items():
        assert (ran.code, words in ran.err) == (code, True), (what, ran)
        assert ran.out == ""
        assert "Traceback" not in ran.err
        assert not any(one in ran.err for one in (key, secret.read_text().strip(), "hunter2")), what
    assert key not in repr(GatewayOptions("http://h", key)) + GatewayOptions("http://h", key).shown


@pytest_asyncio.fixture(loop_scope="module")
async def way(stack: Stack) -> AsyncIterator[Proxy]:
    async with proxy(stack.url) as way:
        yield way


async def test_a_publish_whose_answer_is_lost_is_one_request(way: Proxy, sdk: Client) -> None:
    lost: list[str] = []

    def once(line: str) -> int | None:
        if line.startswith("POST") and not lost:
            lost.append(line)
            return 0
        return None

    way.cut_answer = once
    async with HttpClient.connect(way.url) as client:
        receipt = await client.publish("echo.lost", "x")
    assert (way.count("POST"), receipt.duplicate) == (2, False)
    assert (await sdk.result(receipt.request_id, wait=60)).succeeded
    rows = [row for row in await sdk.runs(function="echo", limit=500) if row.topic == "echo.lost"]
    assert len(rows) == 1


async def test_an_output_and_a_log_go_on_where_they_were_cut(way: Proxy, stack: Stack, sdk: Client) -> None:
    receipt = await sdk.publish("bytes.x", params={"size": 3_000_000})
    run = (await sdk.result(receipt.request_id, wait=60)).runs[0]
    assert run.result is not None
    way.cut_answer = lambda line: 1_000_000 if "/output" in line else None
    async with HttpClient.connect(way.url) as client:
        assert await client.output(run.result) == bytes(3_000_000)
        assert way.count("/output") >= 3
        await _with_talk(stack)
        request_id = (await sdk.publish("talk.x")).request_id

        async def found() -> bool:
            return await sdk.stored.run_of_id(wire.run_id_of(request_id, "talk")) is not None

        await eventually(found, what="a run that has a log")
        told: list[str] = []
        listening = asyncio.create_task(_listen(client, request_id, told))

        async def both() -> bool:
            return told == ["one", "two"]

        async def came_again() -> bool:
            return way.count("/logs") > asked

        await eventually(both, what="the first two lines")
        asked = way.count("/logs")
        way.cut()
        await eventually(came_again, what="a second look at the log")
        stack.open_gate(request_id)
        await asyncio.wait_for(listening, 60)
        assert told == ["one", "two", "three"]


async def _with_talk(stack: Stack) -> None:
    """On `talk.*` one function that ends at once, and one that tells two lines, waits at the gate, tells a third."""
    talk = 'echo one; echo two; while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done; echo three'
    gates = [{"name": "GATES", "value": str(stack.gates)}]
    write_catalog(stack.catalog, function("quick", "talk.*", "true"), function("talk", "talk.*", talk, env=gates))
    await stack.knows("quick", "talk")


async def _listen(client: HttpClient, id: str, told: list[str]) -> None:
    async for line in client.logs(id, function="talk", follow=True):
        told.append(line.text)


def test_a_kept_tail_is_gone_on_with_behind_the_last_line_that_was_told() -> None:
    tail = [LogLine(text) for text in ("b", "c", "b", "d")]
    assert [line.text for line in behind("b", tail)] == ["d"]
    assert behind("d", tail) == []
    assert behind("a", tail) == tail  # what lay between is not kept


async def test_the_methods_without_a_command_give_what_the_client_of_nats_gives(
    way: Proxy, stack: Stack, sdk: Client
) -> None:
    async with HttpClient.connect(way.url) as client:
        both = [await one.request("pair.ask", "x", timeout=60) for one in (client, sdk)]
        seen = [sorted([(reply.function, await reply.read()) for reply in replies]) for replies in both]
        assert seen[0] == seen[1] == [("pair-a", b"a x"), ("pair-b", b"b x")]
        reply = await client.call("bytes", params={"size": 100_000}, timeout=60)
        assert await reply.read() == bytes(100_000)
        failed = await client.call("fail", "x", timeout=60)
        assert (failed.state, failed.reason) == ("failed", "error")
        assert await client.input(failed.request_id) == b"x"

        await _with_talk(stack)
        receipt = await client.publish("talk.follow", b"x")
        finished: list[str] = []
        results = asyncio.create_task(_results(client, receipt.request_id, finished))
        told: list[bool] = []
        chains = asyncio.create_task(_chains(client, receipt.request_id, told))
        news = asyncio.create_task(_news(client, receipt.request_id))

        async def following() -> bool:
            return way.count("/stream") >= 3 and finished == ["quick"] and bool(told)

        def streams() -> tuple[int, int]:
            return way.count(f"{receipt.request_id}/stream"), way.count("/v1/stream")

        async def again() -> bool:
            return streams()[0] >= before[0] + 1 and streams()[1] >= before[1] + 2

        await eventually(following, what="three streams of events, the first result, the chain as it is")
        before = streams()
        way.cut()
        await eventually(again, what="the same streams once more")
        stack.open_gate(receipt.request_id)
        await asyncio.wait_for(results, 60)
        assert finished == ["quick", "talk"]  # none twice
        await asyncio.wait_for(chains, 60)
        assert (told[0], told[-1]) == (False, True)
        assert (await asyncio.wait_for(news, 60)).state == "succeeded"
        view = await client.result(receipt.request_id)
        mine, theirs = [await one.run(receipt.request_id, function="talk") for one in (client, sdk)]
        assert (mine, view.succeeded) == (theirs, True)
        record = (await sdk.result(receipt.request_id)).record
        assert record is not None
        assert view.record == record.model_copy(update={"body": view.record.body if view.record else None})


async def _results(client: HttpClient, id: str, finished: list[str]) -> None:
    async for result in client.results(id, wait=60):
        finished.append(result.function)


async def _news(client: HttpClient, id: str) -> RunStatusDocument:
    async with aclosing(client.watch_runs()) as news:
        async for one in news:
            about = isinstance(one, RunStatusDocument) and one.request_id == id and one.function == "talk"
            if about and isinstance(one, RunStatusDocument) and one.state.finished:
                return one
    raise AssertionError("the news ended")


async def _chains(client: HttpClient, id: str, told: list[bool]) -> None:
    async for chain in client.follow_chain(id):
        told.append(chain.settled)
