"""A run that is started and ended while the API server, or the way to it, does wrong: one Job, one end.

What a single call becomes under each fault is in `test_api_faults`. Here the whole engine speaks through the proxy, and
every fault befalls all that a run needs: its creation, what is watched, its output that is read, its release.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from invoker.errors import EngineUnavailableError
from invoker.result import Reason, State
from tests.cluster.account import make_account
from tests.cluster.aftermath import attempts, left_of, soon_gone
from tests.cluster.audit import created_jobs
from tests.cluster.engine_world import KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster
from tests.cluster.fault_proxy import FaultProxy
from tests.cluster.faults import (
    Answer,
    CutAfterWrite,
    CutBeforeForward,
    CutStream,
    Fault,
    GoneInStream,
    Rule,
    SilentStream,
    Slow,
)
from tests.conformance.engine_suite import ended
from trigger.engine import Phase
from trigger.kubernetes_engine.api import CallLimits
from trigger.kubernetes_engine.assess import Rules
from trigger.kubernetes_engine.engine import EngineOptions
from trigger.kubernetes_engine.retries import Patience
from trigger.plan import OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CALLS = (("create", "jobs"), ("list", "pods"), ("log", "pods"), ("patch", "jobs"))
"""What a run with an output on stdout asks for, in this order."""
WRITES = (("create", "jobs"), ("patch", "jobs"))
WATCHES = (("watch", "jobs"), ("watch", "pods"))


@dataclass
class Scene:
    """The engine behind a proxy, and the run that goes through the fault."""

    world: KubernetesWorld
    proxy: FaultProxy
    rules: list[Rule] = field(default_factory=list)

    def inject(self, fault: Fault, whom: tuple[tuple[str, str], ...], times: int | None = 1) -> None:
        # Of logs the reading after the end: what is asked before it does not take its fault away.
        paths = {"log": "follow=false"}
        rules = [Rule(fault, verb, resource, paths.get(verb), times=times) for verb, resource in whom]
        self.rules += [self.proxy.inject(rule) for rule in rules]

    async def begin(self) -> RunPlan:
        """A run that has begun, and goes on to its end once the gate is open."""
        script = f"{self.world.gate('end')}; echo done"
        plan = self.world.plan(script, output=OutputMode.STDOUT, limits=soon_gone(), keep_log=False)
        await self.world.until(lambda: self._started(plan))
        await self.world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
        return plan

    async def _started(self, plan: RunPlan) -> bool:
        """As a controller does it: what is not to be had now is asked for again."""
        try:
            await self.world.engine.start(plan)
        except EngineUnavailableError:
            return False
        return True

    async def turned_away(self) -> None:
        """Wait until one more call of the engine is answered with 401."""
        before = self._refusals()

        async def met() -> bool:
            return self._refusals() > before

        await self.world.until(met)

    def _refusals(self) -> int:
        return sum(count for (_, status), count in self.world.requests.items() if status == 401)

    def go_on(self) -> None:
        self.world.host.gates["end"].set()

    async def over(self, plan: RunPlan) -> None:
        """Wait until the pod has ended, as the cluster knows it and not the engine."""

        async def succeeded() -> bool:
            return [pod["status"]["phase"] for pod in await self.world.pods(plan.run_id)] == ["Succeeded"]

        await self.world.until(succeeded)

    async def refused(self, verb: str) -> None:
        """Wait until a call of the engine has come to nothing."""

        async def failed() -> bool:
            return self.world.requests[verb, 0] > 0

        await self.world.until(failed)

    async def proves_one_end(self, plan: RunPlan) -> None:
        """It succeeded as if nothing had been wrong, was told once, and nothing of its one Job is left."""
        status, end = await ended(self.world, plan.run_id)
        assert (end.state, end.reason, end.output) == (State.SUCCEEDED, Reason.COMPLETED, b"done\n"), end
        assert attempts(status) == [(1, Reason.COMPLETED, 0)]
        await self.world.engine.release(plan.run_id)

        async def nothing() -> bool:
            return not await left_of(self.world, plan.run_id)

        await self.world.until(nothing)
        assert self.world.count(plan.run_id, Phase.ENDED) == 1
        assert [rule for rule in self.rules if not rule.hits] == [], "a fault befell nothing"
        cluster = self.world.cluster
        if cluster.audit_log is not None:
            made = [job["metadata"] for job in created_jobs(cluster, self.world.namespace)]
            assert len([one for one in made if one["name"].endswith(plan.run_id)]) == 1


@asynccontextmanager
async def opened(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    limits: CallLimits | None = None,
    options: EngineOptions | None = None,
) -> AsyncIterator[Scene]:
    """A scene whose engine sees the cluster."""
    account = await asyncio.to_thread(make_account, cluster, namespace, folder / "account")
    async with (
        FaultProxy(account.kubeconfig, folder / "proxy", namespace=namespace) as proxy,
        kubernetes_world(cluster, namespace, options, kubeconfig=proxy.kubeconfig, limits=limits) as world,
    ):

        async def sees() -> bool:
            return world.engine.problem is None and proxy.streams == len(WATCHES)

        await world.until(sees)
        yield Scene(world, proxy)


@pytest.fixture
async def scene(cluster: Cluster, module_namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with opened(cluster, module_namespace, tmp_path) as found:
        yield found


TROUBLE: dict[str, Callable[[Scene], None]] = {
    "429 with Retry-After": lambda scene: scene.inject(Answer(429, headers={"Retry-After": "1"}), CALLS),
    "500": lambda scene: scene.inject(Answer(500), CALLS, times=3),
    "502": lambda scene: scene.inject(Answer(502), CALLS, times=3),
    "503": lambda scene: scene.inject(Answer(503), CALLS, times=3),
    "409": lambda scene: scene.inject(Answer(409), WRITES, times=3),
    "cut before the write": lambda scene: scene.inject(CutBeforeForward(), CALLS, times=2),
    "cut after the write": lambda scene: scene.inject(CutAfterWrite(), CALLS, times=2),
    "slow by 10 s": lambda scene: scene.inject(Slow(10), WRITES),
}


@pytest.mark.parametrize("fault", TROUBLE)
async def test_calls_answered_with(scene: Scene, fault: str) -> None:
    TROUBLE[fault](scene)
    plan = await scene.begin()
    scene.go_on()
    await scene.proves_one_end(plan)


async def test_a_log_that_ends_early_as_a_whole_one_does(scene: Scene) -> None:
    """As the API server ends it when its connection to the node breaks: once while it is followed, and then as it is
    read. What is missing is noticed."""
    for path, lines in (("follow=true", 1), ("follow=false", 2)):
        polite = CutStream(after_events=lines, politely=True)
        scene.rules.append(scene.proxy.inject(Rule(polite, verb="log", resource="pods", path=f"pods/.*{path}")))
    script = f"echo one; echo two; {scene.world.gate('end')}; echo three"
    plan = scene.world.plan(script, output=OutputMode.STDOUT, limits=soon_gone(), keep_log=False)
    await scene.world.engine.start(plan)
    await scene.rules[0].hit()
    scene.go_on()
    _, end = await ended(scene.world, plan.run_id)
    assert (end.state, end.output) == (State.SUCCEEDED, b"one\ntwo\nthree\n"), end
    assert scene.rules[1].hits == 1


async def test_a_log_that_its_node_does_not_give_out_for_long(
    cluster: Cluster, module_namespace: str, tmp_path: Path
) -> None:
    """The run is lost in the end, and says why: its pod is there."""
    options = EngineOptions(rules=Rules(node_lost_seconds=3.0))
    limits = CallLimits(patience=Patience(bound_seconds=0.5))
    async with opened(cluster, module_namespace, tmp_path, limits, options) as scene:
        scene.inject(Answer(502), (("log", "pods"),), times=None)
        plan = scene.world.plan("echo precious", output=OutputMode.STDOUT, limits=soon_gone(), keep_log=False)
        await scene.world.engine.start(plan)
        _, end = await ended(scene.world, plan.run_id)
        assert (end.state, end.reason) == (State.LOST, Reason.ENGINE), end
        assert end.message.startswith("ended well, but its log could not be read: the API server failed with 502")


async def test_a_stop_while_its_job_cannot_be_made(scene: Scene) -> None:
    """Nobody asks for the Job any more; that the run is over is told once the start has failed, not before."""
    scene.inject(Answer(503), (("create", "jobs"),), times=None)
    plan = scene.world.plan("true", limits=soon_gone())
    starting = asyncio.ensure_future(scene.world.engine.start(plan))
    await scene.rules[0].hit()
    await scene.world.engine.stop(plan.run_id, str(Reason.CANCELLED))
    assert scene.world.count(plan.run_id, Phase.ENDED) == 0
    scene.proxy.clear(scene.rules[0])
    with pytest.raises(EngineUnavailableError):
        await starting
    status = await scene.world.status(plan.run_id, lambda one: one.phase is Phase.ENDED)
    assert status.end is None
    assert scene.proxy.requests["create", "jobs"] == scene.rules[0].hits
    assert await left_of(scene.world, plan.run_id) == []


async def test_a_stop_while_its_job_may_have_been_made(cluster: Cluster, module_namespace: str, tmp_path: Path) -> None:
    """It was, and only its answer was lost: it is found, and ended."""
    # Patient enough to ask a second time, however long the first answer was on its way.
    limits = CallLimits(patience=Patience(bound_seconds=120.0))
    async with opened(cluster, module_namespace, tmp_path, limits) as scene:
        scene.inject(CutAfterWrite(), (("create", "jobs"),))
        scene.inject(Answer(503), (("create", "jobs"),), times=None)
        plan = scene.world.plan("sleep 600", limits=soon_gone(), keep_log=False)
        starting = asyncio.ensure_future(scene.world.engine.start(plan))
        await scene.rules[1].hit()
        await scene.world.engine.stop(plan.run_id, str(Reason.CANCELLED))
        scene.proxy.clear(scene.rules[1])
        with pytest.raises(EngineUnavailableError):
            await starting
        _, end = await ended(scene.world, plan.run_id)
        assert (end.state, end.reason) == (State.CANCELLED, Reason.CANCELLED), end


STREAMS: dict[str, Fault] = {
    "is cut": CutStream(after_events=1),
    "is cut within a line": CutStream(after_events=1, within_line=True),
    "is told that its version is gone": GoneInStream(after_events=1),
    "cannot begin, its version is gone": Answer(410),
}


@pytest.mark.parametrize("fault", STREAMS)
async def test_a_watch_that(scene: Scene, fault: str) -> None:
    """Every watch of this run, again and again, until it has ended."""
    scene.inject(STREAMS[fault], WATCHES, times=3)
    scene.proxy.cut_streams()
    plan = await scene.begin()
    scene.go_on()
    await scene.proves_one_end(plan)


async def test_a_watch_that_is_silent(cluster: Cluster, module_namespace: str, tmp_path: Path) -> None:
    """Counted as cut, and begun again, after some seconds here; bookmarks come once a minute, so by default it is 75 s.
    Not after one: the watches of a quiet namespace would be cut so often that the engine hardly sees anything."""
    async with opened(cluster, module_namespace, tmp_path, CallLimits(silent_watch_seconds=6.0)) as scene:
        scene.inject(SilentStream(after_events=1), WATCHES, times=2)
        scene.proxy.cut_streams()
        plan = await scene.begin()
        scene.go_on()
        await scene.proves_one_end(plan)


async def test_an_api_server_that_is_restarted(scene: Scene) -> None:
    """Away as the run begins, and away again as it ends."""
    await scene.proxy.down()
    beginning = asyncio.ensure_future(scene.begin())
    await scene.refused("create")
    await scene.proxy.up()
    plan = await beginning
    await scene.proxy.down()
    scene.go_on()
    await scene.over(plan)
    await scene.proxy.up()
    await scene.proves_one_end(plan)


async def test_a_certificate_that_changes(scene: Scene) -> None:
    """Before the run begins, and while it runs; connections of the old one end with it."""
    await scene.proxy.change_certificate()
    plan = await scene.begin()
    await scene.proxy.change_certificate()
    scene.go_on()
    await scene.proves_one_end(plan)


async def test_a_token_that_expires(scene: Scene) -> None:
    """As some do while a watch goes on, and others as one begins. A new one is there once the old one was refused: else
    the engine, which looks at the file by itself now and then, may have it without that."""
    scene.proxy.expire_token()
    beginning = asyncio.ensure_future(scene.begin())
    await scene.turned_away()
    scene.proxy.renew_token()
    plan = await beginning
    scene.proxy.expire_token()
    scene.proxy.cut_streams()
    await scene.turned_away()
    scene.proxy.renew_token()
    scene.go_on()
    await scene.proves_one_end(plan)


async def test_a_stop_before_the_first_list(cluster: Cluster, module_namespace: str, tmp_path: Path) -> None:
    """Of a run that nobody knows: that it is over is told all the same, however late the Jobs are listed."""
    account = await asyncio.to_thread(make_account, cluster, module_namespace, tmp_path / "account")
    async with FaultProxy(account.kubeconfig, tmp_path / "proxy", namespace=module_namespace) as proxy:
        late = proxy.inject(Rule(Slow(3600), verb="list", resource="jobs", times=None))
        async with kubernetes_world(cluster, module_namespace, kubeconfig=proxy.kubeconfig) as world:
            await late.hit()
            settling = asyncio.ensure_future(world.engine.settle())
            await world.engine.stop("never-started", "cancelled")

            async def asked() -> bool:
                return world.requests["get", 404] > 0

            await world.until(asked)
            assert not settling.done()
            proxy.clear(late)
            await proxy.down()  # ends what is held back
            await proxy.up()
            status = await world.status("never-started", lambda one: one.phase is Phase.ENDED)
            assert status.end is None
            await settling
            assert await world.engine.adopt("never-started") is None
