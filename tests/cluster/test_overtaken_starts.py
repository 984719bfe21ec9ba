"""Results that overtake the start of their run, with Jobs: no run works after its end, and none gets a second Job.

Both rules, without Kubernetes and with each of them left out: `tests/custody/test_histories.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from tests.cluster.controllers import Desk, controller_process, desk
from tests.cluster.facts import Cluster
from tests.cluster.fault_proxy import FaultProxy
from tests.cluster.faults import Answer, Rule, Slow
from tests.cluster.pod_workload import script
from tests.conftest import eventually
from tests.controllers import View
from tests.custody.processes import ControllerProcess
from tests.custody.workload import read_notes, write_catalog

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SHARING = {"ack_wait_seconds": 2, "heartbeat_seconds": 0.5, "sole_controller": False}


@pytest.fixture
async def here(cluster: Cluster, module_namespace: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(cluster, module_namespace, tmp_path) as found:
        yield found


@pytest.fixture
async def proxy(here: Desk, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(here.kubeconfig, tmp_path / "proxy", namespace=here.namespace) as running:
        yield running


def noted(here: Desk) -> list[tuple[str, str]]:
    return [(note.what, note.run_id) for note in read_notes(here.notes)]


async def has_noted(here: Desk) -> bool:
    return bool(noted(here))


async def holds(controller: ControllerProcess, function: str) -> bool:
    """Whether the controller has a run of the function in hand, by its own metrics."""
    with await asyncio.to_thread(urllib.request.urlopen, f"{controller.http_url}/metrics") as answer:
        return f'invoker_runs_active{{function="{function}"}} 1.0' in answer.read().decode()


async def test_cancelled_while_its_job_cannot_be_made(
    server: NatsServer, client: NatsClient, here: Desk, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The API server answers 503 to its creation, and is well again after the cancel was answered: then nobody asks for
    the Job any more."""
    catalog = write_catalog(tmp_path / "catalog", script("slow", "go", "sleep 5; note work", here))
    view = await View(client, here.names).listen()
    refused = proxy.inject(Rule(Answer(503), verb="create", resource="jobs", times=None))
    settings = {"kubeconfig": proxy.kubeconfig}
    async with controller_process(here, tmp_path / "one", server.url, catalog, settings=settings) as controller:
        await view.publish("go", request_id="r")
        await refused.hit()
        run_id = wire.run_id_of("r", "slow")
        assert (await view.control("cancel", request_id="r"))["cancelled"] == [run_id]
        await view.reply("r")
        proxy.clear(refused)
        await view.quiet(60)
        await here.nothing_left()
        assert proxy.requests["create", "jobs"] == refused.hits, "its Job was asked for after the cancel"
        assert noted(here) == []
        assert not controller.tracebacks()


async def test_finished_while_another_controller_waits_for_its_first_list(
    server: NatsServer, client: NatsClient, here: Desk, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The first one stands still while its run works; the second one is handed the run, looks, and has to wait for its
    list of Jobs; the first one goes on, finishes, and its Job is gone before the list is answered."""
    text = "note start; sleep 2; printf done"
    catalog = write_catalog(tmp_path / "catalog", script("prints", "go", text, here, output={"from": "stdout"}))
    view, run_id = await View(client, here.names).listen(), wire.run_id_of("r", "prints")
    # Refused once first: a controller that has met trouble takes runs all the same.
    proxy.inject(Rule(Answer(403), verb="list", resource="jobs"))
    late = proxy.inject(Rule(Slow(3600), verb="list", resource="jobs", times=None))
    # One run at a time: the first controller asks for one more at most, so what it lets go of soon gets to the second.
    one, two = SHARING | {"max_running": 1}, SHARING | {"kubeconfig": proxy.kubeconfig}
    async with controller_process(here, tmp_path / "first", server.url, catalog, settings=one) as first:
        await view.publish("go", request_id="r")
        await eventually(lambda: has_noted(here), within=150, what="the start")
        os.kill(first.pid, signal.SIGSTOP)
        async with controller_process(here, tmp_path / "second", server.url, catalog, settings=two) as second:
            await eventually(lambda: holds(second, "prints"), what="the run at the second controller")
            os.kill(first.pid, signal.SIGCONT)
            await here.nothing_left()
            proxy.clear(late)
            await proxy.down()  # ends what is held back
            await proxy.up()
            first.kill()  # so that the next run is the second one's, and comes after what it does with this one
            await view.publish("go", request_id="after")
            assert (await view.result("after", "prints", within=150)).succeeded
            await view.quiet(60)
            await here.nothing_left()
            assert noted(here) == [("start", run_id), ("start", wire.run_id_of("after", "prints"))]
            if here.cluster.audit_log is not None:
                assert {run: len(uids) for run, uids in here.created().items()}[run_id] == 1
            assert not second.tracebacks()
