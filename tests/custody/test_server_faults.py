"""The NATS server dies and comes back, in the middle of work, and right after it has answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect
from invoker.errors import ServerUnreachableError
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.result import Reason
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.mortal_server import mortal_server
from tests.custody.workload import NOTE, function, read_notes, write_catalog
from tests.integration.run_world import ask

pytestmark = pytest.mark.integration

EVENTS = 40


async def publish_surely(view: View, topic: str, request_id: str) -> None:
    """As any careful publisher: the same id again until it is acknowledged."""

    async def stored() -> bool:
        try:
            await view.publish(topic, request_id.encode(), request_id=request_id)
        except Exception:  # whatever the client says while its server is away
            return False
        return True

    await eventually(stored, within=60, what=f"the acknowledgement of {request_id}")


async def asked(view: View, wanted: int) -> None:
    """Wait until so many results are stored, whatever the server does meanwhile."""

    async def there() -> bool:
        try:
            info = await view.client.jetstream().stream_info(
                view.names.results_stream, subjects_filter=view.names.result("*", "*")
            )
        except Exception:  # the server is away
            return False
        return len(info.state.subjects or {}) >= wanted

    await eventually(there, within=60, what=f"{wanted} results")


@pytest.mark.parametrize("deaths", [1, 3])
async def test_the_server_is_killed_in_the_middle(deaths: int, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    script = f"{NOTE}\nnote start; sleep 0.05; echo done"
    catalog = write_catalog(
        tmp_path / "catalog",
        function("first", "go", script, notes=notes, onSuccess={"publish": "on"}),
        function("second", "on", script, notes=notes, concurrency=2),
    )
    requests = [f"r{number}" for number in range(EVENTS)]
    async with mortal_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        view = await View(client).listen()
        async with running_controller(server.url, catalog, tmp_path / "state", max_running=8):
            publishing = asyncio.gather(*(publish_surely(view, "go", one) for one in requests))
            for death in range(deaths):
                await asked(view, 1 + 2 * EVENTS * death // (deaths + 1))
                await server.kill()
                await server.start()
            await publishing
            await asked(view, 2 * EVENTS)
            await view.quiet(within=60)
            await _proven(view, requests, notes)
        await client.close()


async def _proven(view: View, requests: list[str], notes: Path) -> None:
    runs = []
    for one in requests:
        second = wire.chained_id(wire.run_id_of(one, "first"), "onSuccess")
        for request_id, name in ((one, "first"), (second, "second")):
            answers = await view.results.answers(request_id)
            assert answers.results.keys() == {name}
            assert answers.results[name].reason is Reason.COMPLETED
            assert len(answers.results[name].attempts) == 1
            runs.append(wire.run_id_of(request_id, name))
    state = (await view.client.jetstream().stream_info(view.names.results_stream)).state
    assert state.messages == 4 * len(requests)
    assert Counter(note.run_id for note in read_notes(notes)) == dict.fromkeys(runs, 1), "this controller lived on"


async def test_acks_that_the_killed_server_forgot_repeat_nothing(tmp_path: Path) -> None:
    """A single server may lose its last acks; on work queues what it hands out again has its result."""
    notes = tmp_path / "notes"
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", f"{NOTE}\nnote start", notes=notes))
    requests = [f"r{number}" for number in range(30)]
    async with mortal_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        view = View(client)
        async with running_controller(server.url, catalog, tmp_path / "state"):
            await asyncio.gather(*(view.publish("quick", request_id=one) for one in requests))
            await view.quiet()
            await server.kill()
            await server.start()
            await publish_surely(view, "quick", "later")
            await asked(view, len(requests) + 1)
            await view.quiet()
        starts = Counter(note.run_id for note in read_notes(notes))
        assert starts == {wire.run_id_of(one, "quick"): 1 for one in [*requests, "later"]}
        await client.close()


async def test_a_server_that_stays_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """What runs meanwhile ends, and is told when the server is back; the controller says that it is not ready."""
    gate = tmp_path / "gate"
    catalog = write_catalog(
        tmp_path / "catalog", function("slow", "slow", f"until [ -e {gate} ]; do sleep 0.02; done; echo out")
    )
    async with mortal_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        view = await View(client).listen()
        async with running_controller(server.url, catalog, tmp_path / "state") as running:
            await view.publish("slow", request_id="r")
            await view.running("slow", 1)
            await server.kill()
            gate.touch()
            await _until_ready(running.http_url, 503)
            await asyncio.sleep(3)  # longer than the ack wait, shorter than anybody's patience
            await server.start()
            await _until_ready(running.http_url, 200)
            await asked(view, 1)
            await view.quiet()
            assert (await view.result("r", "slow")).succeeded
            await publish_surely(view, "slow", "later")
            assert (await view.result("later", "slow")).succeeded
        await client.close()


async def _until_ready(http_url: str, status: int) -> None:
    async def so() -> bool:
        return (await asyncio.to_thread(ask, "GET", f"{http_url}/readyz")).status == status

    await eventually(so, what=f"readiness {status}")


async def test_statuses_are_told_again_after_the_server_was_away(tmp_path: Path) -> None:
    """The status stream lives in memory: it is made again."""
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))
    async with mortal_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        view = View(client)
        async with running_controller(server.url, catalog, tmp_path / "state"):
            await server.kill()
            await server.start()

            async def told() -> bool:
                try:
                    return (await client.jetstream().stream_info(view.names.status_stream)) is not None
                except Exception:  # not there yet
                    return False

            await eventually(told, what="the status stream")
            await publish_surely(view, "quick", "r")
            await asked(view, 1)

            async def status() -> bool:
                found = await view.results.status(wire.run_id_of("r", "quick"))
                return found is not None and found.state.finished

            await eventually(status, what="the status of a finished run")
        await client.close()


async def test_a_publisher_hears_that_the_server_is_away(tmp_path: Path) -> None:
    """And never takes a lost event for a stored one."""
    catalog = write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))
    async with mortal_server(tmp_path / "store") as server:
        async with running_controller(server.url, catalog, tmp_path / "state"):
            pass
        client = await connect(ConnectionOptions(url=server.url))
        names, jetstream = wire.Names(), client.jetstream(timeout=1)
        publisher = EventPublisher(client, jetstream, ClaimStore(jetstream, names), names)
        await server.kill()
        with pytest.raises(ServerUnreachableError):
            await publisher.publish(OutgoingEvent("quick", b"data", request_id="r"))
        with suppress(OSError):  # there is nobody to say goodbye to
            await client.close()
