"""Consumers that are deleted by hand, hold other settings, or belong to nobody; acks that come too late."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api
from nats.js.errors import NotFoundError

from invoker import wire
from invoker.errors import StreamMismatchError
from invoker.nats_server import NatsServer
from invoker.request import Content, Event, RunTicket
from invoker.result import Reason
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.processes import ControllerProcess
from tests.custody.workload import NOTE, function, read_notes, write_catalog
from trigger.accept import record_of

pytestmark = pytest.mark.integration

NAMES = wire.Names()


def starts(file: Path) -> Counter[str]:
    return Counter(note.run_id for note in read_notes(file) if note.what == "start")


async def delete_consumer(client: NatsClient, stream: str, consumer: str) -> None:
    """Delete it as soon as it is there: after the time before somebody has to make it again."""

    async def deleted() -> bool:
        try:
            return await client.jetstream().delete_consumer(stream, consumer)
        except NotFoundError:
            return False

    await eventually(deleted, what=f"the consumer {consumer}, to be deleted")


async def test_a_run_consumer_deleted_by_hand_loses_and_repeats_nothing(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view, notes = await View(client).listen(), tmp_path / "notes"
    script = f"{NOTE}\nnote start; sleep 0.1; note end"
    catalog = write_catalog(tmp_path / "catalog", function("busy", "busy", script, notes=notes, concurrency=3))
    requests = [f"r{number}" for number in range(20)]
    async with running_controller(server.url, catalog, tmp_path / "state"):
        await asyncio.gather(*(view.publish("busy", request_id=one) for one in requests))
        for done in (1, 8, 14):

            async def so_far(wanted: int = done) -> bool:
                return len(starts(notes)) >= wanted

            await eventually(so_far, what=f"{done} starts")
            await delete_consumer(client, NAMES.runs_stream, NAMES.run_consumer("busy"))
        await view.quiet()
        for one in requests:
            assert (await view.answers(one)).results["busy"].reason is Reason.COMPLETED
            assert len(await view.reply(one)) >= 1
    runs = {wire.run_id_of(one, "busy") for one in requests}
    assert starts(notes) == dict.fromkeys(runs, 1), "what is held is not started again"


async def test_the_intake_consumer_deleted_by_hand_loses_and_repeats_nothing(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view, notes = await View(client).listen(), tmp_path / "notes"
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", f"{NOTE}\nnote start", notes=notes))
    requests = [f"r{number}" for number in range(60)]
    async with running_controller(server.url, catalog, tmp_path / "state"):
        for number, one in enumerate(requests):
            await view.publish("quick", request_id=one)
            if number % 20 == 10:
                await delete_consumer(client, NAMES.events_stream, NAMES.intake_consumer)
        await view.quiet()
        for one in requests:
            assert (await view.answers(one)).results["quick"].succeeded
    assert starts(notes) == {wire.run_id_of(one, "quick"): 1 for one in requests}


async def test_a_consumer_with_other_settings_is_named_and_left_alone(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))
    async with running_controller(server.url, catalog, tmp_path / "one"):
        pass
    jetstream = client.jetstream()
    with pytest.raises(StreamMismatchError, match=r"ack_wait is 2.*must be 5") as refused:
        async with running_controller(server.url, catalog, tmp_path / "two", ack_wait_seconds=5, sole_controller=False):
            pass
    assert "consumer rm INVOKER_EVENTS intake" in (refused.value.hint or "")
    info = await jetstream.consumer_info(NAMES.events_stream, NAMES.intake_consumer)
    assert info.config.ack_wait == 2
    await jetstream.delete_consumer(NAMES.runs_stream, NAMES.run_consumer("quick"))
    wrong = api.ConsumerConfig(
        durable_name=NAMES.run_consumer("quick"),
        filter_subject=NAMES.run("quick", "*"),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=2.0,
        max_deliver=5,
    )
    await jetstream.add_consumer(NAMES.runs_stream, wrong)
    with pytest.raises(StreamMismatchError, match=r"run-quick of INVOKER_RUNS.*max_deliver is 5"):
        async with running_controller(server.url, catalog, tmp_path / "three", sole_controller=False):
            pass


async def test_runs_of_a_function_that_nobody_knows_are_answered_at_the_start(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """Its consumer is gone too: the runs are all that is left of it."""
    view = await View(client).listen()
    catalog = write_catalog(tmp_path / "catalog", function("gone", "gone", "true"), function("here", "here", "true"))
    async with running_controller(server.url, catalog, tmp_path / "one"):
        await view.control("pause", function="gone")
        for number in range(5):
            await view.publish("gone", request_id=f"r{number}")

        async def queued() -> bool:
            return await view.queued() == (0, 5)

        await eventually(queued, what="five queued runs")
    (catalog / "gone" / "function.yaml").unlink()
    await client.jetstream().delete_consumer(NAMES.runs_stream, NAMES.run_consumer("gone"))
    async with running_controller(server.url, catalog, tmp_path / "two"):
        await view.quiet()
    for number in range(5):
        assert (await view.result(f"r{number}", "gone")).reason is Reason.FUNCTION_REMOVED
        assert len(await view.reply(f"r{number}")) == 1


async def test_runs_written_behind_everybodys_back_are_found_by_the_audit(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """Another controller, with an older catalog, accepts for a function that this one does not have."""
    view = await View(client).listen()
    catalog = write_catalog(tmp_path / "catalog", function("here", "here", "true"))
    async with running_controller(server.url, catalog, tmp_path / "state"):
        content, now = Content.inline(b""), datetime.now(UTC)
        event = Event("gone", "r", content, wire.sha256_hex(b""), {}, now, reply_to="replies.r")
        assert await view.results.put_record(record_of(event, ("gone",), "older", content, now))
        ticket = RunTicket(run_id=wire.run_id_of("r", "gone"), request_id="r", function="gone")
        assert await view.results.put_ticket(ticket)
        assert (await view.result("r", "gone")).reason is Reason.FUNCTION_REMOVED
        assert len(await view.reply("r")) == 1
        await view.quiet()


async def test_a_controller_that_stood_still_changes_nothing_any_more(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """SIGSTOP for longer than the ack wait: its runs go to another one, which finishes them. Woken up, it finds
    results where its own verdicts should go, and its acks are those of another delivery."""
    view, notes, gate = await View(client).listen(), tmp_path / "notes", tmp_path / "gate"
    script = f"{NOTE}\nnote start; until [ -e {gate} ]; do sleep 0.02; done; printf %s $INVOKER_RUN_URL; note end"
    document = function("slow", "slow", script, notes=notes, output={"from": "stdout"}, concurrency=4)
    catalog = write_catalog(tmp_path / "catalog", document)
    settings = {"sole_controller": False, "ack_wait_seconds": 2, "heartbeat_seconds": 0.5}
    zombie = await ControllerProcess(tmp_path / "zombie", server.url, catalog, settings).start()
    requests = [f"r{number}" for number in range(4)]
    await asyncio.gather(*(view.publish("slow", request_id=one) for one in requests))

    async def all_started() -> bool:
        return len(starts(notes)) == 4

    await eventually(all_started, what="four starts")
    zombie.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: _stands_still(zombie.pid), what="a controller that stands still")
    gate.touch()  # not sooner: an end that it still sees, it tells itself
    async with running_controller(server.url, catalog, tmp_path / "second", **settings) as second:
        results = {one: await view.result(one, "slow") for one in requests}
        outputs = [result.output.inline_bytes() or b"" for result in results.values()]
        assert all(output.decode().startswith(second.http_url) for output in outputs)
        await view.quiet()
        zombie.process.send_signal(signal.SIGCONT)
        await view.publish("slow", request_id="later")
        assert (await view.result("later", "slow")).succeeded
        zombie.terminate()
        assert await zombie.ended() == 0
        await view.quiet()
        for one, result in results.items():
            assert await view.results.result(one, "slow") == result
            assert len(await view.reply(one)) >= 1
    assert not zombie.tracebacks()
    assert {starts(notes)[result.run_id] for result in results.values()} == {2}


async def _stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
