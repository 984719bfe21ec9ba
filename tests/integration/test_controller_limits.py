"""Limits on running work: exact per function over all controllers, bounded per controller, fair between functions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.request import Content, Event, RunTicket
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.workload import CALL, NOTE, Note, function, read_notes, write_catalog
from trigger.accept import record_of

pytestmark = pytest.mark.integration


def most_alive(notes: Iterable[Note]) -> int:
    """The most functions that were between their first and their last note at one moment."""
    alive = most = 0
    for note in sorted(notes, key=lambda note: note.at):
        alive += 1 if note.what == "start" else -1
        most = max(most, alive)
    return most


BESIDE_ANOTHER: dict[str, Any] = {"sole_controller": False, "ack_wait_seconds": 30, "heartbeat_seconds": 1}
"""Both live in the test's own loop: while that stands still no run is to be taken for a dead one's."""


def noting(name: str, topic: str, notes: Path, seconds: float = 0.05, **spec: object) -> dict[str, object]:
    return function(name, topic, f"{NOTE}\nnote start; sleep {seconds}; note end", notes=notes, **spec)


async def publish_many(view: View, topic: str, count: int) -> None:
    jetstream = view.client.jetstream(publish_async_max_pending=1000)
    futures = [await jetstream.publish_async(f"events.{topic}", b"") for _ in range(count)]
    await asyncio.gather(*futures)


async def queue_many(view: View, name: str, count: int) -> None:
    """So many requests as accept leaves them: a record and a run each. (Publishing them takes half a minute.)"""
    jetstream = view.client.jetstream(publish_async_max_pending=1000)
    now, futures = datetime.now(UTC), []
    for number in range(count):
        request_id = f"q{number}"
        event = Event(name, request_id, Content(), wire.sha256_hex(b""), {}, now)
        record = record_of(event, (name,), "catalog", Content(), now)
        ticket = RunTicket(run_id=wire.run_id_of(request_id, name), request_id=request_id, function=name)
        futures.append(await jetstream.publish_async(view.names.accepted(request_id), record.to_json()))
        futures.append(await jetstream.publish_async(view.names.run(name, ticket.run_id), ticket.to_json()))
    await asyncio.gather(*futures)


async def test_a_functions_limit_is_exact_over_two_controllers(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view, notes = await View(client).listen(), tmp_path / "notes"
    catalog = write_catalog(tmp_path / "catalog", noting("three", "three", notes, concurrency=3))
    async with (
        running_controller(server.url, catalog, tmp_path / "one", **BESIDE_ANOTHER),
        running_controller(server.url, catalog, tmp_path / "two", **BESIDE_ANOTHER),
    ):
        await publish_many(view, "three", 20)
        await view.quiet()
    found = read_notes(notes)
    assert len(found) == 40
    # Never above the limit, and beside each other; that all three meet at one instant is the machine's business.
    assert 1 < most_alive(found) <= 3


async def test_a_function_that_has_answered_keeps_its_place_until_it_has_ended(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """The reply does not wait, the next run does: a limit on what is alive counts processes, not answers."""
    view, notes, gate = await View(client).listen(), tmp_path / "notes", tmp_path / "gate"
    tidying = f"until [ -e {gate} ]; do sleep 0.02; done"
    script = f'{NOTE}\n{CALL}\nnote start; call GET input ""; call PUT output early; {tidying}; note end'
    catalog = write_catalog(tmp_path / "catalog", function("tidy", "tidy", script, notes=notes, concurrency=1))
    async with running_controller(server.url, catalog, tmp_path / "state"):
        await view.publish("tidy", request_id="r0")
        assert (await view.reply("r0"))[0].data == b"early"
        for number in range(1, 4):
            await view.publish("tidy", request_id=f"r{number}")

        async def three_wait() -> bool:
            return await view.queued() == (0, 4)

        await eventually(three_wait, what="three that wait for the first one's place")
        await asyncio.sleep(0.3)  # in which another one would be started, if one might be
        assert [note.what for note in read_notes(notes)] == ["start"], "the reply came while it tidied up"
        gate.touch()
        await view.quiet()
    assert most_alive(read_notes(notes)) == 1
    assert len(read_notes(notes)) == 8


async def test_two_controllers_share_the_work(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    view, notes, gate = await View(client).listen(), tmp_path / "notes", tmp_path / "gate"
    script = f"{NOTE}\nnote start; echo $INVOKER_RUN_URL; until [ -e {gate} ]; do sleep 0.02; done"
    catalog = write_catalog(tmp_path / "catalog", function("where", "where", script, notes=notes))
    async with (
        running_controller(server.url, catalog, tmp_path / "one", max_running=4, **BESIDE_ANOTHER) as one,
        running_controller(server.url, catalog, tmp_path / "two", max_running=4, **BESIDE_ANOTHER) as two,
    ):
        requests = [f"r{number}" for number in range(40)]
        await asyncio.gather(*(view.publish("where", request_id=request) for request in requests))

        async def six_run() -> bool:
            return len(read_notes(notes)) == 6

        await eventually(six_run, what="three runs on each of the two: no function takes the last slot")
        gate.touch()
        await view.quiet()
        results = [await view.result(request, "where") for request in requests]
        places = Counter((result.log_tail or "").split("/v1/")[0] for result in results)
    assert places.keys() == {one.http_url, two.http_url}
    assert min(places.values()) >= 3
    assert {reply.headers[wire.H_REQUEST_ID] for reply in view.replies} == set(requests)


async def test_a_controllers_own_limit_bounds_all_functions(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view, notes = await View(client).listen(), tmp_path / "notes"
    catalog = write_catalog(tmp_path / "catalog", *(noting(f"f{i}", f"t.{i}", notes) for i in range(6)))
    async with running_controller(server.url, catalog, tmp_path / "state", max_running=4):
        for number in range(6):
            await publish_many(view, f"t.{number}", 5)
        await view.quiet()
    found = read_notes(notes)
    assert len(found) == 60
    # Never above the limit, and beside each other; that all four meet at one instant is the machine's business.
    assert 1 < most_alive(found) <= 4


async def test_ten_thousand_waiting_runs_do_not_delay_another_function(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view = await View(client).listen()
    catalog = write_catalog(
        tmp_path / "catalog",
        function("flood", "flood", "sleep 0.3"),
        function("other", "other", "true"),
    )
    async with running_controller(server.url, catalog, tmp_path / "state", max_running=3):
        await view.control("pause", function="flood")
        await queue_many(view, "flood", 10_000)
        await view.control("resume", function="flood")
        await view.running("flood", 3)
        for number in range(3):
            await view.publish("other", request_id=f"r{number}")
            await view.reply(f"r{number}", within=60)
        assert (await view.queued())[1] > 9_000
        # What still waits is taken out at once: the test has seen what it wanted.
        await view.client.jetstream().purge_stream(view.names.runs_stream)
