"""Streams that are full: publishers hear it, nothing that was acknowledged is lost, and there is a way out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats.js.errors
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.errors import BackPressureError
from invoker.nats_server import NatsServer
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.result import Reason, Result
from invoker.results.nats import ResultStream
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.assembly import Rules, assembled
from tests.custody.workload import function, write_catalog
from trigger.custody import Custody

pytestmark = pytest.mark.integration


async def test_a_full_events_stream_refuses_its_publishers_and_drains(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view = View(client)
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))
    settings = {"events_bytes": 20_000}
    async with running_controller(server.url, catalog, tmp_path / "one", **settings):
        pass
    jetstream = client.jetstream()
    publisher = EventPublisher(client, jetstream, ClaimStore(jetstream, view.names), view.names)
    stored: list[str] = []

    async def publish_until_refused() -> None:
        for number in range(100):
            await publisher.publish(OutgoingEvent("quick", b"x" * 1000, request_id=f"r{number}"))
            stored.append(f"r{number}")

    with pytest.raises(BackPressureError, match="the events stream is full") as refused:
        await publish_until_refused()
    assert (refused.value.exit_code, refused.value.http_status) == (7, 503)
    assert 10 < len(stored) < 25
    with pytest.raises(nats.js.errors.ServiceUnavailableError):
        await jetstream.publish("events.quick", b"x" * 1000)
    async with running_controller(server.url, catalog, tmp_path / "two", **settings):
        await view.quiet()
        for one in stored:
            assert (await view.results.answers(one)).results["quick"].succeeded
        refused_before = f"r{len(stored)}"
        assert await view.results.record(refused_before) is None
        await publisher.publish(OutgoingEvent("quick", b"x" * 1000, request_id=refused_before))
        assert (await view.result(refused_before, "quick")).succeeded


async def test_a_full_results_stream_keeps_the_events_until_there_is_room(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """Nothing is accepted whose result would not fit: no function works in vain, and every event is answered."""
    view = await View(client).listen()
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))
    # A run that does not begin within 0.9 of the retention is given up: a machine that stands still has so long.
    settings = {"results_bytes": 60_000, "retention_seconds": 15}
    requests = [f"r{number}" for number in range(50)]
    results = set()

    async def stored(message: Msg) -> None:
        results.add((message.headers[wire.H_REQUEST_ID], message.headers[wire.H_REASON]))

    await client.subscribe(view.names.result("*", "*"), cb=stored)
    async with running_controller(server.url, catalog, tmp_path / "state", **settings):
        await asyncio.gather(*(view.publish("quick", request_id=one) for one in requests))

        async def full() -> bool:
            state = (await client.jetstream().stream_info(view.names.results_stream)).state
            return state.bytes > 40_000 and (await view.queued())[0] > 0

        await eventually(full, what="a full stream with events that wait")
        await view.quiet(within=120)
        for one in requests:
            assert len(await view.reply(one)) == 1
    assert results == {(one, "completed") for one in requests}


async def test_an_unfinished_run_keeps_its_room(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """Fifteen runs that wait take nearly everything, though what is stored of them is little."""
    view, gate = View(client), tmp_path / "gate"
    slow = function("slow", "slow", f"until [ -e {gate} ]; do sleep 0.02; done", concurrency=1)
    catalog = write_catalog(tmp_path / "catalog", slow)
    async with running_controller(server.url, catalog, tmp_path / "state", results_bytes=60_000):
        await asyncio.gather(*(view.publish("slow", request_id=f"r{number}") for number in range(40)))

        async def refused() -> bool:
            events, runs = await view.queued()
            return events + runs == 40 and runs > 5 and (await _given_back(view)) > 0

        await eventually(refused, what="events that are given back")
        assert (await view.queued())[1] < 16
        gate.touch()
        await eventually(lambda: view.results.result("r0", "slow"), what="a result")


async def _given_back(view: View) -> int:
    info = await view.client.jetstream().consumer_info(view.names.events_stream, view.names.intake_consumer)
    return info.num_redelivered or 0


class FullWhenDelivered(ResultStream):
    """Refuses a first result just when its run, which was taken from the queue, is delivered all the same."""

    asked = asyncio.Event()
    custody: Custody | None = None
    refusals = 0

    async def put_result(self, result: Result) -> bool:
        if type(self).refusals == 0:
            self.asked.set()

            async def delivered() -> bool:
                held = self.custody.get(result.run_id) if self.custody else None
                return held is not None and held.ack_subject is not None

            await eventually(delivered, what="the delivery")
            type(self).refusals += 1
            raise BackPressureError("full, for this once")
        return await super().put_result(result)


async def test_a_run_that_is_delivered_while_it_expires_is_not_kept_for_ever(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view = await View(client).listen()
    catalog = write_catalog(tmp_path / "catalog", function("late", "late", "true"))
    rules = Rules(results=FullWhenDelivered)
    async with assembled(server.url, catalog, tmp_path / "state", rules, retention_seconds=10) as running:
        FullWhenDelivered.custody = running.controller._custody
        await view.control("pause", function="late")
        await view.publish("late", request_id="r")
        await asyncio.wait_for(FullWhenDelivered.asked.wait(), 60)
        await view.control("resume", function="late")
        assert (await view.result("r", "late")).reason is Reason.EXPIRED_IN_QUEUE
        await view.quiet()
        assert FullWhenDelivered.refusals == 1
