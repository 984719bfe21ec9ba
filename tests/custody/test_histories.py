"""Every failing history of the custody model, with its rule (it does not happen) and without it (it does).

The histories are the shortest ones that an exhaustive search found when one rule was left out; `docs/custody.md` has
the table. A test here that still passes with its rule taken out would prove nothing, so each one takes it out itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.nats_server import NatsServer
from invoker.request import Content, Event, RunTicket
from invoker.result import Reason, State
from tests.conftest import eventually
from tests.controllers import View
from tests.custody.assembly import RIGHT, Rules, assembled
from tests.custody.processes import processes_with
from tests.custody.without_a_rule import (
    Deaf,
    Doomed,
    FollowsCatalogOnly,
    ForgetsStarts,
    Hesitant,
    LooksOnce,
    RecordsApart,
    ReleasesOwnOnly,
    UnfencedResults,
)
from tests.custody.workload import CALL, NOTE, function, read_notes, write_catalog
from trigger.accept import record_of
from trigger.local_engine.engine import LocalEngine
from trigger.moments import Moments
from trigger.seal import Sealer
from trigger.verdict import Verdict

pytestmark = pytest.mark.integration

NAMES = wire.Names()
RETENTION = 12.0
"""Short enough to be waited for, and long enough that a run on a machine that stands still for a while begins before
its time is over, and that its result is still there when it is looked for."""
WITH_AND_WITHOUT = pytest.mark.parametrize("rule", [True, False], ids=["with", "without"])


@pytest.fixture
async def view(client: NatsClient) -> View:
    return await View(client).listen()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def noted(name: str, topic: str | None, notes: Path, **spec: Any) -> dict[str, Any]:
    """A function that only notes that it ran."""
    return function(name, topic, f"{NOTE}\nnote start", notes=notes, **spec)


async def published_results(client: NatsClient) -> list[str]:
    """Every result that anybody tries to store from here on, by run id."""
    found: list[str] = []

    async def heard(message: Any) -> None:
        found.append(message.headers[wire.H_RUN_ID])

    await client.subscribe(NAMES.result("*", "*"), cb=heard)
    await client.flush()
    return found


def changed(stream: str, **fields: Any) -> Rules:
    """The rules, but for some settings of one stream."""

    def streams(config: api.StreamConfig) -> Sequence[api.StreamConfig]:
        return [replace(config, **fields)] if config.name == stream else [config]

    return Rules(streams=streams)


async def results_expired(view: View) -> None:
    async def none_left() -> bool:
        return not (await view.client.jetstream().stream_info(NAMES.results_stream)).state.messages

    await eventually(none_left, within=60, what="the expiry of record and result")


@WITH_AND_WITHOUT
async def test_runs_have_no_age(rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path) -> None:
    """Without: a run that waits for longer than the age vanishes, and nobody ever hears of it."""
    catalog = write_catalog(tmp_path / "catalog", noted("late", "late", notes))
    rules = RIGHT if rule else changed(NAMES.runs_stream, max_age=1.0, duplicate_window=1.0)
    async with assembled(server.url, catalog, tmp_path / "state", rules):
        await view.control("pause", function="late")
        await view.publish("late", request_id="waits")
        await eventually(lambda: view.results.record("waits"), what="the record")
        if rule:
            await asyncio.sleep(1.5)  # longer than the age that runs do not have
            await view.control("resume", function="late")
            assert (await view.result("waits", "late")).succeeded
            assert len(await view.reply("waits")) == 1
        else:
            await view.quiet()
            await view.control("resume", function="late")
            assert await view.results.result("waits", "late") is None
            assert not read_notes(notes)
            assert not view.replies


@WITH_AND_WITHOUT
async def test_runs_are_a_work_queue(rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path) -> None:
    """Without: a consumer made anew hands out what is finished; once its result has expired it gets a second one.

    A server that was killed and lost its last acks does the same. (The audit would find the run that seems to have
    waited for too long, and finish it for a second time: it is kept from that here.)
    """
    catalog = write_catalog(tmp_path / "catalog", noted("once", "once", notes))
    rules = RIGHT if rule else changed(NAMES.runs_stream, retention=api.RetentionPolicy.LIMITS)
    async with assembled(server.url, catalog, tmp_path / "state", rules, retention_seconds=RETENTION, audit_seconds=60):
        results = await published_results(view.client)
        await view.publish("once", request_id="r")
        await view.result("r", "once")
        await results_expired(view)
        await view.client.jetstream().delete_consumer(NAMES.runs_stream, NAMES.run_consumer("once"))
        if rule:
            await view.publish("once", request_id="later")
            await view.result("later", "once")
            assert results == [wire.run_id_of("r", "once"), wire.run_id_of("later", "once")]
        else:
            second = await view.result("r", "once")
            assert (second.state, second.reason) == (State.LOST, Reason.EXPIRED_IN_QUEUE)
            assert results == [wire.run_id_of("r", "once")] * 2


@WITH_AND_WITHOUT
async def test_events_are_a_work_queue(rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path) -> None:
    """Without: an intake consumer made anew after the records expired accepts everything again."""
    catalog = write_catalog(tmp_path / "catalog", noted("once", "once.*", notes))
    rules = RIGHT if rule else changed(NAMES.events_stream, retention=api.RetentionPolicy.LIMITS)
    async with assembled(server.url, catalog, tmp_path / "state", rules, retention_seconds=RETENTION):
        for number in range(3):
            await view.publish("once.a", request_id=f"r{number}")
            await view.result(f"r{number}", "once")
        await results_expired(view)
        await view.client.jetstream().delete_consumer(NAMES.events_stream, NAMES.intake_consumer)
        await view.publish("once.b", request_id="later")
        await view.result("later", "once")
        starts = [note.run_id for note in read_notes(notes)]
        runs = [wire.run_id_of(f"r{number}", "once") for number in range(3)]
        if rule:
            assert starts == [*runs, wire.run_id_of("later", "once")]
        else:

            async def all_again() -> bool:
                return set(runs) <= {note.run_id for note in read_notes(notes)[3:]}

            await eventually(all_again, what="everything that was accepted, running again")


@WITH_AND_WITHOUT
async def test_events_have_no_age(rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path) -> None:
    """Without: events of an outage that is longer than the age are gone, although their publish was acknowledged."""
    catalog = write_catalog(tmp_path / "catalog", noted("late", "late", notes))
    rules = RIGHT if rule else changed(NAMES.events_stream, max_age=1.0, duplicate_window=1.0)
    async with assembled(server.url, catalog, tmp_path / "state", rules) as first:
        await first.stop()
    await view.publish("late", request_id="waits")
    if rule:
        await asyncio.sleep(1.5)  # longer than the age that events do not have
    else:
        await view.quiet()
    async with assembled(server.url, catalog, tmp_path / "state", rules):
        if rule:
            assert (await view.result("waits", "late")).succeeded
        else:
            await eventually(lambda: _is_asked_for(view), what="somebody who takes events while they are there")
            await view.publish("late", request_id="later")
            await view.result("later", "late")
            assert await view.results.record("waits") is None


async def _is_asked_for(view: View) -> bool:
    info = await view.client.jetstream().consumer_info(NAMES.events_stream, NAMES.intake_consumer)
    return bool(info.num_waiting)


@WITH_AND_WITHOUT
async def test_input_only_while_unfinished(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a run that is cancelled between its start and its question for the input does its work all the same."""
    gate = tmp_path / "gate"
    script = (
        f"{NOTE}\n{CALL}\ntrap '' TERM\nnote begin\nuntil [ -e {gate} ]; do sleep 0.02; done\n"
        'call GET input ""; [ "$status" = 200 ] && note start || note "refused-$status"'
    )
    patient = {"terminationGracePeriodSeconds": 300}  # it is to ask before it is killed
    catalog = write_catalog(tmp_path / "catalog", function("slow", "slow", script, notes=notes, pod=patient))
    rules = RIGHT if rule else Rules(fence=UnfencedResults)
    async with assembled(server.url, catalog, tmp_path / "state", rules):
        await view.publish("slow", request_id="r")

        async def noted_so_far() -> list[str] | None:
            return [note.what for note in read_notes(notes)] or None

        assert await eventually(noted_so_far, what="a started process") == ["begin"]
        answer = await view.control("cancel", request_id="r")
        assert answer["cancelled"] == [wire.run_id_of("r", "slow")]
        assert (await view.results.result("r", "slow")) is not None
        gate.touch()
        await view.quiet()
        assert [note.what for note in read_notes(notes)] == ["begin", "refused-410" if rule else "start"]
        result = await view.results.result("r", "slow")
        assert result is not None
        assert result.state is State.CANCELLED


@WITH_AND_WITHOUT
async def test_anybody_releases_what_is_finished(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a controller dies between ack and release, and what the engine keeps of the run stays for ever.

    The engine outlives its controller here, as Kubernetes does.
    """
    catalog = write_catalog(tmp_path / "catalog", function("once", "once", "echo words"))
    run_id = wire.run_id_of("r", "once")
    async with LocalEngine(tmp_path / "engine") as engine:

        async def kept() -> bool:
            return [line.text async for line in engine.logs(run_id, follow=False)] == ["words"]

        async with assembled(server.url, catalog, tmp_path / "a", Rules(controller=Doomed), engine=engine) as doomed:
            await view.publish("once", request_id="r")
            await view.result("r", "once")
            await view.quiet()
            await doomed.vanish()
        assert await kept()
        heir = RIGHT if rule else Rules(controller=ReleasesOwnOnly)
        async with assembled(server.url, catalog, tmp_path / "b", heir, engine=engine):
            if rule:

                async def released() -> bool:
                    return not await kept()

                await eventually(released, within=60, what="the release by another controller")
            else:
                await asyncio.sleep(1.5)  # three audits
                assert await kept()


@WITH_AND_WITHOUT
async def test_a_start_under_way_is_seen_through(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a run is cancelled while its start is under way; the engine, asked to stop it, knows nothing of it yet,
    so its slot is free and its message gone. Then the start goes through, and a run that nobody holds does its work."""
    gate, run_id = tmp_path / "gate", wire.run_id_of("r", "slow")
    script = f"{NOTE}\nuntil [ -e {gate} ]; do sleep 0.02; done\nnote work"
    catalog = write_catalog(tmp_path / "catalog", function("slow", "slow", script, notes=notes))
    rules = RIGHT if rule else Rules(controller=ForgetsStarts)
    async with (
        Hesitant(tmp_path / "engine", "start") as engine,
        assembled(server.url, catalog, tmp_path / "state", rules, engine=engine),
    ):
        await view.publish("slow", request_id="r")
        await engine.asked.wait()
        assert (await view.control("cancel", request_id="r"))["cancelled"] == [run_id]
        await view.reply("r")  # the caller waits for no engine
        if rule:
            assert (await view.queued())[1] == 1, "its slot is taken as long as nobody knows whether it lives"
        else:
            await view.quiet()
        engine.may_answer.set()
        if rule:
            await view.quiet()
            gate.touch()
            assert processes_with(run_id) == []
            assert not read_notes(notes)
        else:
            gate.touch()
            await eventually(lambda: _has_noted(notes), what="a cancelled run that works")
        assert len(view.replies_to("r")) == 1


async def test_no_run_is_taken_before_the_engine_knows_its_own(
    server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Events are accepted meanwhile."""
    catalog = write_catalog(tmp_path / "catalog", noted("quick", "quick", notes))
    async with (
        Hesitant(tmp_path / "engine", "settle") as engine,
        assembled(server.url, catalog, tmp_path / "state", RIGHT, engine=engine),
    ):
        await engine.asked.wait()
        await view.publish("quick", request_id="r")
        await eventually(lambda: _are_queued(view), what="the run in the queue")
        assert not read_notes(notes)
        engine.may_answer.set()
        await view.quiet()
        assert len(read_notes(notes)) == 1


async def _are_queued(view: View) -> bool:
    return await view.queued() == (0, 1)


async def _has_noted(notes: Path) -> bool:
    return bool(read_notes(notes))


@WITH_AND_WITHOUT
async def test_the_last_look_comes_after_the_last_wait(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a controller has looked, and waits for its engine's first list; meanwhile another one, that had only
    stood still, finishes the run and lets its Job go. The list does not have it any more, and the run runs again."""
    catalog = write_catalog(tmp_path / "catalog", noted("once", "once", notes))
    rules = Rules(controller=Deaf if rule else LooksOnce)
    async with (
        Hesitant(tmp_path / "engine", "adopt") as engine,
        assembled(server.url, catalog, tmp_path / "state", rules, engine=engine, audit_seconds=60),
    ):
        await view.publish("once", request_id="r")
        await engine.asked.wait()
        await _cancel(view, rules)
        engine.may_answer.set()
        if rule:
            await view.quiet()
            assert len(await view.reply("r")) == 1
            assert not read_notes(notes)
        else:
            await eventually(lambda: _has_noted(notes), what="a finished run that works")


@WITH_AND_WITHOUT
async def test_consumers_follow_the_runs(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a function is removed while a run of it is queued; the run vanishes, and so does its caller's answer."""
    gate = tmp_path / "gate"
    script = f"{NOTE}\nnote start; until [ -e {gate} ]; do sleep 0.02; done"
    catalog = write_catalog(tmp_path / "catalog", function("slow", "slow", script, notes=notes, concurrency=1))
    rules = RIGHT if rule else Rules(controller=FollowsCatalogOnly)
    async with assembled(server.url, catalog, tmp_path / "state", rules) as running:
        await view.publish("slow", request_id="runs")
        await eventually(lambda: _has_noted(notes), what="a run that was started")
        await view.publish("slow", request_id="waits")
        await eventually(lambda: view.results.record("waits"), what="the second record")
        (catalog / "slow" / "function.yaml").unlink()

        async def removed() -> bool:
            return not running.controller.catalog.functions

        await eventually(removed, what="the removal")
        if not rule:
            await eventually(lambda: _has_no_consumer(view, "slow"), what="the end of its consumer")
        gate.touch()
        first = await view.result("runs", "slow")
        assert first.succeeded, "a run that was started is followed to its end"
        if rule:
            result = await view.result("waits", "slow")
            assert (result.state, result.reason) == (State.FAILED, Reason.FUNCTION_REMOVED)
            assert len(await view.reply("waits")) == 1
            await view.quiet()
        else:
            await asyncio.sleep(1.5)  # three audits
            assert await view.results.result("waits", "slow") is None
            assert not view.replies_to("waits")
            assert await view.queued() == (0, 2), "nobody can ever ack them"


async def _has_no_consumer(view: View, function: str) -> bool:
    consumers = await view.client.jetstream().consumers_info(NAMES.runs_stream)
    return NAMES.run_consumer(function) not in [info.name for info in consumers]


@WITH_AND_WITHOUT
async def test_records_and_results_share_one_age(
    rule: bool, server: NatsServer, view: View, notes: Path, tmp_path: Path
) -> None:
    """Without: a controller dies after the record, the request is cancelled, the result expires before the record,
    and the event, handed out again, completes its list: the run gets a second result."""
    catalog = write_catalog(tmp_path / "catalog", noted("once", "once", notes))
    rules = RIGHT if rule else Rules(results=RecordsApart, fence=RecordsApart, streams=RecordsApart.streams)
    async with assembled(server.url, catalog, tmp_path / "first", rules) as first:
        await first.stop()
    results = await published_results(view.client)
    await view.publish("once", b"data", request_id="r")
    await _accept_until_record(view, rules)
    await _cancel(view, rules)
    run_id = wire.run_id_of("r", "once")
    if rule:
        await asyncio.sleep(1.5)  # longer than the age that results do not have for themselves
    else:
        await results_expired(view)
    async with assembled(server.url, catalog, tmp_path / "second", rules):
        await view.quiet()
        if rule:
            result = await view.results.result("r", "once")
            assert result is not None
            assert result.state is State.CANCELLED
            assert results == [run_id]
            assert not read_notes(notes)
        else:
            assert results == [run_id, run_id]
            assert [note.run_id for note in read_notes(notes)] == [run_id], "a cancelled run has run"


async def _accept_until_record(view: View, rules: Rules) -> None:
    """What a controller leaves that died right after the record: no runs, and the event is not acked."""
    content = Content.inline(b"data")
    event = Event("once", "r", content, wire.sha256_hex(b"data"), {}, datetime.now(UTC), reply_to="replies.r")
    results = rules.results(view.client, view.client.jetstream(), NAMES)
    assert await results.put_record(record_of(event, ("once",), "catalog", content, datetime.now(UTC)))


async def _cancel(view: View, rules: Rules) -> None:
    """What the control service does for a request that is not queued yet."""
    jetstream = view.client.jetstream()
    results = rules.results(view.client, jetstream, NAMES)
    sealer = Sealer(results, ClaimStore(jetstream, NAMES), Moments())
    ticket = RunTicket(run_id=wire.run_id_of("r", "once"), request_id="r", function="once")
    await sealer.seal(ticket, await results.record("r"), Verdict(Reason.CANCELLED, "on request"))
