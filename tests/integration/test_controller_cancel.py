"""Cancel at every stage of a run, pause and resume, and the other control services of a whole controller."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.result import Reason, State
from tests.conftest import eventually
from tests.controllers import View, problem_of, running_controller
from tests.custody.workload import NOTE, function, read_notes, write_catalog
from tests.integration.run_world import ask

pytestmark = pytest.mark.integration


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    waits = f"{NOTE}\nnote start\nuntil [ -e {tmp_path}/gate ]; do sleep 0.02; done; note end"
    talks = f"echo one; echo two >&2; until [ -e {tmp_path}/gate ]; do sleep 0.02; done; echo three"
    return write_catalog(
        tmp_path / "catalog",
        function("slow", "slow", waits, notes=tmp_path / "notes", concurrency=1),
        function("other", "slow", "true", onSuccess={"publish": "next"}, onFailure={"publish": "next"}),
        function("stubborn", "stubborn", f"trap '' TERM; {waits}", notes=tmp_path / "notes"),
        function("talks", "talks", talks),
        function("next", "next", "true"),
    )


async def started(tmp_path: Path, count: int = 1) -> None:
    async def enough() -> bool:
        return len(read_notes(tmp_path / "notes")) >= count

    await eventually(enough, what=f"{count} notes")


async def test_cancel_a_running_run_stops_it(view: View, tmp_path: Path) -> None:
    await view.publish("slow", request_id="r")
    await view.result("r", "other")
    await started(tmp_path)
    run_id = wire.run_id_of("r", "slow")
    answer = await view.control("cancel", run_id=run_id, message="not needed")
    assert answer == {"cancelled": [run_id], "already_finished": []}
    result = await view.results.result("r", "slow")
    assert result is not None
    assert (result.state, result.reason, result.message) == (State.CANCELLED, Reason.CANCELLED, "not needed")
    await view.quiet()
    replies = {reply.headers[wire.H_FUNCTION]: reply for reply in await view.reply("r", 2)}
    assert problem_of(replies["slow"])["status"] == 409
    assert [note.what for note in read_notes(tmp_path / "notes")] == ["start"], "it never came to its end"


async def test_cancel_a_queued_run_never_starts_it(view: View, tmp_path: Path) -> None:
    await view.publish("slow", request_id="first")
    await started(tmp_path)
    await view.publish("slow", request_id="second")
    await view.result("second", "other")
    answer = await view.control("cancel", request_id="second", function="slow")
    assert answer["cancelled"] == [wire.run_id_of("second", "slow")]
    assert not [reply for reply in view.replies_to("second") if reply.headers[wire.H_FUNCTION] == "slow"]
    (tmp_path / "gate").touch()
    await view.quiet()
    assert len(view.replies_to("second")) == 2, "it is answered when its turn comes"
    assert {note.run_id for note in read_notes(tmp_path / "notes")} == {wire.run_id_of("first", "slow")}


async def test_cancel_a_run_that_waits_for_its_slot_keeps_no_slot(
    server: NatsServer, client: NatsClient, catalog: Path, tmp_path: Path
) -> None:
    async with running_controller(server.url, catalog, tmp_path / "state", max_running=1) as running:
        view = await View(client).listen()
        await view.publish("talks", request_id="first")
        await view.running("talks", 1)
        await view.publish("talks", request_id="second")
        await view.running("talks", 2)

        async def both_in_hand() -> bool:
            answer = await asyncio.to_thread(ask, "GET", f"{running.http_url}/metrics")
            return b'invoker_runs_active{function="talks"} 2.0' in answer.body

        await eventually(both_in_hand, what="a run that waits for its slot")  # the server has handed it out before
        await view.control("cancel", request_id="second")
        await view.running("talks", 1)
        assert len(view.replies_to("second")) == 1, "it is answered at once: it is in hand"
        (tmp_path / "gate").touch()
        await view.quiet()
        await view.publish("next", request_id="third")
        assert (await view.result("third", "next")).succeeded


async def test_cancel_what_is_finished_changes_nothing(view: View, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    await view.publish("slow", request_id="r")
    before = await view.result("r", "slow")
    await view.quiet()
    runs = {wire.run_id_of("r", "slow"), wire.run_id_of("r", "other")}
    answer = await view.control("cancel", request_id="r")
    assert (answer["cancelled"], set(answer["already_finished"])) == ([], runs)
    answer = await view.control("cancel", run_id=wire.run_id_of("r", "slow"))
    assert answer["already_finished"] == [wire.run_id_of("r", "slow")]
    assert await view.results.result("r", "slow") == before


async def test_a_wildcard_is_no_dead_letter(view: View) -> None:
    await view.client.jetstream().publish("events.next", b"", headers={wire.H_HOPS: "99"})
    await view.dead_letters(1)
    assert (await view.control("dead.redrive", dead_id="*"))["code"] == "unknown"


async def test_cancel_a_whole_request_twice(view: View, tmp_path: Path) -> None:
    await view.publish("stubborn", request_id="r")
    await started(tmp_path)
    first = await view.control("cancel", request_id="r")
    second = await view.control("cancel", request_id="r")
    run_id = wire.run_id_of("r", "stubborn")
    assert (first["cancelled"], second["already_finished"]) == ([run_id], [run_id])
    (tmp_path / "gate").touch()
    await view.quiet()
    assert len(await view.reply("r")) == 1
    result = await view.results.result("r", "stubborn")
    assert result is not None
    assert result.state is State.CANCELLED, "what it answers after the cancel does not count"


async def test_a_cancelled_run_has_no_next_stage(view: View, tmp_path: Path) -> None:
    await view.control("pause", function="other")
    await view.publish("slow", request_id="r")
    await started(tmp_path)
    await view.control("cancel", request_id="r", function="other")
    await view.control("resume", function="other")
    (tmp_path / "gate").touch()
    await view.quiet()
    for kind in ("onSuccess", "onFailure"):
        assert await view.results.record(wire.chained_id(wire.run_id_of("r", "other"), kind)) is None


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"request_id": "nobody"}, "unknown"),
        ({}, "invalid-request"),
        ({"request_id": 7}, "invalid-request"),
        ({"request_id": "x" * 600}, "invalid-request"),
        ({"run_id": "nobody"}, "unknown"),
        ({"run_id": "a.b"}, "unknown"),
        ({"request_id": "*"}, "unknown"),
        ({"request_id": "a b"}, "unknown"),
        ({"run_id": "*"}, "unknown"),
    ],
)
async def test_cancel_of_nothing_is_refused(view: View, question: dict[str, object], code: str, tmp_path: Path) -> None:
    await view.publish("slow", request_id="somebodys")
    await started(tmp_path)
    answer = await view.control("cancel", **question)
    assert answer.get("code") == code, answer
    assert await view.results.result("somebodys", "slow") is None


async def test_a_paused_function_keeps_its_events_queued(view: View, tmp_path: Path) -> None:
    assert await view.control("pause", function="next") == {"function": "next", "paused": True}
    assert await view.control("pause", function="next") == {"function": "next", "paused": True}
    await view.publish("next", request_id="r")
    await eventually(lambda: view.results.record("r"), what="the record")

    async def waiting() -> bool:
        described = (await view.control("functions", name="next"))["functions"][0]
        return bool(described["paused"] and (described["queued"], described["running"]) == (1, 0))

    await eventually(waiting, what="one queued run")
    assert await view.control("resume", function="next") == {"function": "next", "paused": False}
    assert (await view.result("r", "next")).succeeded


async def test_pause_of_an_unknown_function_names_the_known_ones(view: View) -> None:
    answer = await view.control("pause", function="nobody")
    assert answer["code"] == "unknown"
    assert "next, other, slow" in answer["detail"]


async def test_pause_survives_the_controller(
    server: NatsServer, client: NatsClient, catalog: Path, tmp_path: Path
) -> None:
    view = await View(client).listen()
    async with running_controller(server.url, catalog, tmp_path / "one"):
        await view.control("pause", function="next")
    async with running_controller(server.url, catalog, tmp_path / "two", sole_controller=False):
        await view.publish("next", request_id="r")
        await eventually(lambda: view.results.record("r"), what="the record")
        assert (await view.control("functions", name="next"))["functions"][0]["paused"]
    async with running_controller(server.url, catalog, tmp_path / "three", sole_controller=True):
        assert (await view.control("functions", name="next"))["functions"][0]["paused"]
        await view.publish("talks", request_id="other")
        await eventually(lambda: view.results.record("other"), what="the other record")
        assert await view.results.result("r", "next") is None
        await view.control("resume", function="next")
        assert (await view.result("r", "next")).succeeded


async def test_logs_are_streamed_by_the_controller_that_holds_the_run(view: View, tmp_path: Path) -> None:
    await view.publish("talks", request_id="r")
    inbox = view.client.new_inbox()
    lines = await view.client.subscribe(inbox)

    async def asked() -> bool:
        await view.client.publish(view.names.control(f"logs.{wire.run_id_of('r', 'talks')}"), b"{}", reply=inbox)
        try:
            return b"two" in (await lines.next_msg(0.2)).data
        except nats.errors.TimeoutError:
            return False

    await eventually(asked, what="lines of a running function")
    inbox = view.client.new_inbox()
    lines = await view.client.subscribe(inbox)
    question = json.dumps({"follow": True}).encode()
    await view.client.publish(view.names.control(f"logs.{wire.run_id_of('r', 'talks')}"), question, reply=inbox)
    found = [json.loads((await lines.next_msg(60)).data) for _ in range(2)]
    assert {(line["stream"], line["text"], line["attempt"]) for line in found} == {
        ("stdout", "one", 1),
        ("stderr", "two", 1),
    }
    (tmp_path / "gate").touch()
    assert json.loads((await lines.next_msg(60)).data)["text"] == "three"
    assert (await lines.next_msg(60)).data == b""


async def test_functions_explain_and_reload(view: View, catalog: Path) -> None:
    answer = await view.control("functions")
    assert answer["engine"] == "local"
    assert [one["name"] for one in answer["functions"]] == ["next", "other", "slow", "stubborn", "talks"]
    assert (answer["functions"][2]["status"], answer["functions"][2]["concurrency"]) == ("ready", 1)
    explained = await view.control("explain", topic="slwo")
    assert explained["matched"] == []
    assert {"pattern": "slow", "function": "slow"} in explained["nearest"]
    assert (await view.control("explain", topic="slow"))["matched"] == ["other", "slow"]
    assert (await view.control("explain", topic="a b"))["code"] == "invalid-topic"
    (catalog / "talks" / "function.yaml").write_text("kind: [")
    reloaded = await view.control("reload")
    assert (reloaded["functions"], reloaded["broken"]) == (5, 1)
    described = (await view.control("functions", name="talks"))["functions"][0]
    assert described["status"] == "kept"
    assert described["problem"]["file"] == "talks/function.yaml"


async def test_questions_that_are_none_are_refused(view: View) -> None:
    for data in (b"not json", b"[1]", b"\xff"):
        message = await view.client.request(view.names.control("explain"), data, timeout=60)
        assert problem_of(message)["code"] == "invalid-request"
    answers = await asyncio.gather(*(view.control("functions") for _ in range(20)))
    assert len({answer["catalog"] for answer in answers}) == 1
