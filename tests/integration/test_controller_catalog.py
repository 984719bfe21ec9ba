"""The catalog changes under a whole controller: removed, renamed, broken and swapped, with runs queued and running."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.request import ClaimCheck, Content, Event
from invoker.result import Reason, State
from tests.conftest import eventually
from tests.controllers import View, problem_of, running_controller
from tests.custody.workload import function, put_function, write_catalog
from trigger.accept import record_of

pytestmark = pytest.mark.integration

QUEUED = 50


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def busy(gate: Path, name: str = "busy", topic: str = "busy", **spec: Any) -> dict[str, Any]:
    """A function that says that it was started and waits for the gate; one at a time."""
    script = f"touch {_begun(gate)}; until [ -e {gate} ]; do sleep 0.02; done"
    return function(name, topic, script, concurrency=1, **spec)


def _begun(gate: Path) -> Path:
    return gate.with_suffix(".begun")


@pytest.fixture
def catalog(tmp_path: Path, gate: Path) -> Path:
    return write_catalog(tmp_path / "catalog", busy(gate), function("idle", "idle", "true"))


async def fill(view: View, gate: Path) -> list[str]:
    """Fifty requests for the busy function: one runs, the others queue."""
    requests = [f"r{number}" for number in range(QUEUED)]
    await asyncio.gather(*(view.publish("busy", request_id=one) for one in requests))
    await view.running("busy", 1)

    async def all_queued() -> bool:
        return await view.queued() == (0, QUEUED)

    async def begun() -> bool:
        return _begun(gate).exists()

    await eventually(all_queued, what="fifty queued runs")
    await eventually(begun, what="the one that runs")  # handed out it is sooner, and then it has no spec to keep yet
    return requests


async def ended(view: View, requests: list[str], name: str = "busy") -> Counter[Reason]:
    """The reasons of all their results; each has one reply too."""
    results = [await view.result(one, name, within=60) for one in requests]
    await view.quiet()
    for one in requests:
        assert len(await view.reply(one)) == 1
    return Counter(result.reason for result in results)


async def names(view: View) -> dict[str, str]:
    return {one["name"]: one["status"] for one in (await view.control("functions"))["functions"]}


async def until_names(view: View, wanted: dict[str, str]) -> None:
    async def so() -> bool:
        return await names(view) == wanted

    await eventually(so, what=f"the functions {wanted}")


async def test_a_removed_function_answers_what_is_queued(view: View, catalog: Path, gate: Path) -> None:
    requests = await fill(view, gate)
    (catalog / "busy" / "function.yaml").unlink()
    await until_names(view, {"idle": "ready"})
    gate.touch()
    reasons = await ended(view, requests)
    assert reasons == {Reason.COMPLETED: 1, Reason.FUNCTION_REMOVED: QUEUED - 1}, "the one that ran keeps its spec"
    problems = [problem_of(message)["status"] for message in view.replies if message.headers[wire.H_STATE] == "failed"]
    assert set(problems) == {410}

    async def no_consumer() -> bool:
        consumers = await view.client.jetstream().consumers_info(view.names.runs_stream)
        return [info.name for info in consumers] == ["run-idle"]

    # Its consumer has nothing to hand out any more; a change of the catalog, or a restart, removes it.
    put_function(catalog, function("idle", "idle", "echo changed"))
    await eventually(no_consumer, what="the end of the consumer")


async def test_a_removed_function_that_was_paused_answers_all_the_same(view: View, catalog: Path) -> None:
    """Nobody could resume it any more: its name is unknown."""
    await view.control("pause", function="idle")
    await view.publish("idle", request_id="r")
    await eventually(lambda: view.results.record("r"), what="the record")
    (catalog / "idle" / "function.yaml").unlink()
    result = await view.result("r", "idle")
    assert (result.state, result.reason) == (State.FAILED, Reason.FUNCTION_REMOVED)
    await view.reply("r")
    await view.quiet()


async def test_a_renamed_function_answers_under_its_old_name(view: View, catalog: Path, gate: Path) -> None:
    requests = await fill(view, gate)
    put_function(catalog, busy(gate, "brisk"))
    (catalog / "busy" / "function.yaml").unlink()
    await until_names(view, {"brisk": "ready", "idle": "ready"})
    await view.publish("busy", request_id="new")
    gate.touch()
    assert await ended(view, requests) == {Reason.COMPLETED: 1, Reason.FUNCTION_REMOVED: QUEUED - 1}
    assert await ended(view, ["new"], "brisk") == {Reason.COMPLETED: 1}


async def test_a_broken_file_keeps_the_last_good_version(view: View, catalog: Path, gate: Path) -> None:
    requests = await fill(view, gate)
    put_function(
        catalog, busy(gate), text="apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: busy}\nspec: ["
    )
    await until_names(view, {"busy": "kept", "idle": "ready"})
    await view.publish("busy", request_id="new")
    gate.touch()
    assert await ended(view, [*requests, "new"]) == {Reason.COMPLETED: QUEUED + 1}


async def test_a_function_that_was_never_good_keeps_its_events(
    server: NatsServer, client: NatsClient, tmp_path: Path, gate: Path
) -> None:
    """Its runs wait when it becomes unusable after a restart; an event that matches nothing becomes a dead letter."""
    view = await View(client).listen()
    catalog = write_catalog(tmp_path / "catalog", busy(gate))
    async with running_controller(server.url, catalog, tmp_path / "one"):
        await view.publish("busy", request_id="runs")
        await view.running("busy", 1)
        await view.publish("busy", request_id="waits")
        await eventually(lambda: view.results.record("waits"), what="the record")
    put_function(catalog, busy(gate), text="kind: [")
    async with running_controller(server.url, catalog, tmp_path / "two"):
        await view.publish("busy", request_id="unmatched")
        letter = (await view.dead_letters(1))[0]
        assert letter.reason == "no-subscription"
        assert "busy/function.yaml" in letter.message
        assert problem_of((await view.reply("unmatched"))[0])["code"] == "no-subscription"
        put_function(catalog, busy(gate))
        gate.touch()
        assert await ended(view, ["runs", "waits"]) == {Reason.COMPLETED: 2}
        again = await view.control("dead.redrive", dead_id=letter.id)
        assert (await view.result(again["request_id"], "busy")).succeeded


async def accepted_before(view: View, event: Event, topic: str) -> None:
    """An event and its record, as a controller leaves them that died before the first run was written."""
    now = datetime.now(UTC)
    assert await view.results.put_record(record_of(event, ("busy",), "older", event.content, now))
    headers = {wire.H_CLAIM: event.content.claim.to_json().decode()} if event.content.claim else {}
    await view.publish(topic, event.content.inline_bytes() or b"", request_id=event.request_id, **headers)


async def test_what_was_accepted_runs_although_its_function_is_broken_meanwhile(
    server: NatsServer, client: NatsClient, tmp_path: Path, gate: Path
) -> None:
    """Its record fixed its runs: the event, handed out again, is no event without a subscription."""
    view = await View(client).listen()
    gate.touch()
    catalog = write_catalog(tmp_path / "catalog", busy(gate))
    async with running_controller(server.url, catalog, tmp_path / "one"):
        pass
    content = Content.inline(b"data")
    event = Event("busy", "r", content, wire.sha256_hex(b"data"), {}, datetime.now(UTC), reply_to="replies.r")
    await accepted_before(view, event, "busy")
    put_function(catalog, busy(gate), text="kind: [")
    async with running_controller(server.url, catalog, tmp_path / "two"):

        async def queued() -> bool:
            return await view.queued() == (0, 1)

        await eventually(queued, what="the run")
        put_function(catalog, busy(gate))
        assert await ended(view, ["r"]) == {Reason.COMPLETED: 1}
        assert (await client.jetstream().stream_info(view.names.dead_stream)).state.messages == 0


async def test_what_was_accepted_has_a_result_although_its_bytes_are_gone_meanwhile(
    server: NatsServer, client: NatsClient, tmp_path: Path, gate: Path
) -> None:
    view = await View(client).listen()
    gate.touch()
    document = busy(gate, input={"as": "env"})
    catalog = write_catalog(tmp_path / "catalog", document)
    async with running_controller(server.url, catalog, tmp_path / "one"):
        pass
    claim = ClaimCheck(object="event/gone", size_bytes=5, sha256=wire.sha256_hex(b"bytes"))
    event = Event("busy", "r", Content.claimed(claim), claim.sha256, {}, datetime.now(UTC), reply_to="replies.r")
    await accepted_before(view, event, "busy")
    async with running_controller(server.url, catalog, tmp_path / "two"):
        assert await ended(view, ["r"]) == {Reason.INVALID_INPUT: 1}
        assert (await client.jetstream().stream_info(view.names.dead_stream)).state.messages == 0


async def test_the_catalog_is_swapped_under_load(view: View, catalog: Path) -> None:
    """Every result names a version that was published, and every request's list is of one snapshot."""

    def version(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        shared = {"output": {"from": "stdout"}}
        return (
            function("left", "swap", f"printf {number}", **shared),
            function("right", "swap" if number % 2 else "elsewhere", f"printf {number}", **shared),
        )

    async def swap() -> set[str]:
        hashes = set()
        for number in range(12):
            for document in version(number):
                put_function(catalog, document)
            await view.control("reload")
            listed = (await view.control("functions"))["functions"]
            hashes |= {one["spec_hash"] for one in listed if one["name"] in ("left", "right")}
            # Each version gets its run, however fast it is swapped and however slowly the load comes.
            await view.publish("swap", request_id=f"with-{number}")
            await view.result(f"with-{number}", "left")
        return hashes

    async def publish(stopped: asyncio.Event) -> list[str]:
        requests: list[str] = []
        while not stopped.is_set() and len(requests) < 300:
            requests.append(f"s{len(requests)}")
            await view.publish("swap", request_id=requests[-1])
            await asyncio.sleep(0.01)  # the pace of the load
        return requests

    for document in version(0):
        put_function(catalog, document)
    await view.control("reload")
    stopped = asyncio.Event()
    publishing = asyncio.create_task(publish(stopped))
    published = await swap()
    stopped.set()
    requests = [*await publishing, *(f"with-{number}" for number in range(12))]
    seen = Counter[str]()
    for request_id in requests:
        answers = await view.answers(request_id)
        assert answers.record is not None
        assert answers.record.functions in (("left",), ("left", "right"))
        for result in answers.results.values():
            assert result.reason is Reason.COMPLETED
            assert result.spec_hash in published
            seen[result.spec_hash or ""] += 1
    assert len(seen) > 4, "the swaps happened under load"
    await view.quiet()


async def test_a_changed_concurrency_is_felt_by_what_is_queued(view: View, catalog: Path, gate: Path) -> None:
    await fill(view, gate)
    document = busy(gate)
    document["spec"]["concurrency"] = 4
    put_function(catalog, document)
    await view.running("busy", 4)
    document["spec"]["concurrency"] = 2
    put_function(catalog, document)

    async def lowered() -> bool:
        info = await view.client.jetstream().consumer_info(view.names.runs_stream, view.names.run_consumer("busy"))
        return info.config.max_ack_pending == 2

    await eventually(lowered, what="the lower limit")
    await view.running("busy", 4)
    gate.touch()
    await view.quiet(within=60)


async def test_a_subscription_that_is_added_or_taken_away_counts_from_the_reload(view: View, catalog: Path) -> None:
    await view.publish("early", request_id="before")
    await view.reply("before")
    put_function(catalog, function("idle", "early", "true"))
    await view.control("reload")
    await view.publish("early", request_id="after")
    await view.publish("idle", request_id="gone")
    assert (await view.result("after", "idle")).succeeded
    assert problem_of((await view.reply("gone"))[0])["code"] == "no-subscription"
    before = await view.results.record("before")
    assert before is not None
    assert before.functions == ()
