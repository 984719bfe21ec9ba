"""How many requests to the API server one run costs, by that server's own audit log: a count, so a test.

The streams that a whole engine lives on (one list and one watch of Jobs, the same of pods) are not a run's.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from tests.cluster.audit import Asked, asked_by
from tests.cluster.controllers import Desk, controller_process, desk
from tests.cluster.facts import Cluster
from tests.cluster.pod_workload import python, script
from tests.conftest import eventually
from tests.controllers import View
from tests.custody.workload import CALL, write_catalog
from tests.integration.run_world import ask

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

VOLUME = {"volume": {"size": "8Mi", "mountPath": "/scratch"}}
STDOUT = {"output": {"from": "stdout"}}
TERMINATION = {"output": {"from": "termination"}}
ANSWER = f'{CALL}\ncall PUT output answered; test "$status" -lt 300'
RELEASED = {"create jobs": 1, "patch jobs": 1}
READ = {"list pods": 1, "log pods": 1}
COSTS = {
    "api": RELEASED,
    "api-volume": RELEASED | {"delete pods": 1},
    "code": RELEASED,
    "termination": RELEASED,
    "stdout": RELEASED | READ | {"log pods": 2},  # followed and read, or read twice: two that agree
    "failing": RELEASED | READ,
}
LISTENING = re.compile(r"/log\?.*follow=true.*tailLines=")
"""A run that has not ended after some seconds is listened to (`hearing.SHORT_RUN_SECONDS`): one request more, which is
not the functions' doing here, but a busy machine's."""
ONCE = {"create configmaps": 1, "log pods": 1}
"""Of the whole engine: the code of a version is brought once, and once it is asked whether logs can be split."""
LISTS = {"list jobs": 1, "list pods": 1}
EVENTS = 2
CALM = {"ack_wait_seconds": 60, "heartbeat_seconds": 3}
"""A controller that was held up for some seconds is not given its own runs a second time, which would cost requests."""


@pytest.fixture
async def here(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(cluster, namespace, tmp_path) as found:
        yield found


def catalog(root: Path, here: Desk) -> Path:
    """One function of every form, all for the same event."""
    topic = "count.here"
    return write_catalog(
        root,
        script("api", topic, ANSWER, here),
        script("api-volume", topic, ANSWER, here, **VOLUME),
        python("code", topic, "def handle(event, context): return 'answered'", here),
        script("termination", topic, 'printf done > "$INVOKER_TERMINATION_FILE"', here, **TERMINATION),
        script("stdout", topic, "printf done", here, **STDOUT),
        script("failing", topic, "exit 3", here),
    )


async def test_what_one_run_costs(server: NatsServer, client: NatsClient, here: Desk, tmp_path: Path) -> None:
    """Every run alike, the first of its function and the second."""
    view = View(client, here.names)
    functions = catalog(tmp_path / "catalog", here)
    async with controller_process(here, tmp_path / "one", server.url, functions, settings=CALM) as one:
        for number in range(EVENTS):
            await view.publish("count.here", request_id=f"event-{number}")
            answers = await view.answers(f"event-{number}", within=150)
            ended_as = {name: (result.reason, result.message) for name, result in answers.results.items()}
            assert {name: reason for name, (reason, _) in ended_as.items()} == {
                name: "error" if name == "failing" else "completed" for name in COSTS
            }, ended_as
        await here.nothing_left()
        told = await _told(one.http_url)
    everything = {what: count * EVENTS for what, count in _sum(*COSTS.values()).items()}
    told.pop("watch")  # begun anew now and then
    if here.cluster.audit_log is None:
        assert told == _by_verb(_sum(everything, ONCE, LISTS))
    else:
        whole, asked = await eventually(lambda: _agreeing(here, told), what="an audit log that has all requests")
        assert whole == _by_verb(_sum(everything, ONCE, LISTS))
        costs = {
            (number, name): _about(asked, wire.run_id_of(f"event-{number}", name))
            for number in range(EVENTS) for name in COSTS
        }  # fmt: skip
        assert costs == {(number, name): COSTS[name] for number in range(EVENTS) for name in COSTS}
        assert Counter(one.what for one in asked) == _sum(everything, ONCE, LISTS), "something is no run's"


async def _agreeing(here: Desk, told: Counter[str]) -> tuple[Counter[str], list[Asked]] | None:
    """What the audit log has, without watches and without the listening to runs that last: what the controller told of
    the same, and the requests; None while some of what was told is not in the log yet."""
    all_asked = [one for one in asked_by(here.cluster, here.namespace, "invoker") if not one.what.startswith("watch")]
    if _by_verb(Counter(one.what for one in all_asked)) != told:
        return None
    asked = [one for one in all_asked if not LISTENING.search(one.subject)]
    assert len(all_asked) - len(asked) <= EVENTS * len(COSTS), "a run was listened to more than once"
    return told - Counter(log=len(all_asked) - len(asked)), asked


def _about(asked: list[Asked], run_id: str) -> dict[str, int]:
    return dict(Counter(one.what for one in asked if run_id in one.subject))


def _sum(*counted: dict[str, int]) -> Counter[str]:
    return sum((Counter(one) for one in counted), Counter())


def _by_verb(counted: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for what, count in counted.items():
        found[what.split()[0]] += count
    return found


async def _told(http_url: str) -> Counter[str]:
    """What the controller's own metrics count, by verb."""
    text = (await asyncio.to_thread(ask, "GET", f"{http_url}/metrics")).body.decode()
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("invoker_engine_requests_total{"):
            found[line.partition('reason="')[2].split()[0]] += int(float(line.rpartition(" ")[2]))
    return found
