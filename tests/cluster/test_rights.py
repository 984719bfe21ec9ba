"""Every verb of the Role in `deploy/rbac.yaml` taken away by itself: what breaks, what is said in words, and that the
run goes on as soon as the verb is granted.

The tests of the engine itself (those of `engine_world`: conformance, verdicts, volumes, code, finalizer, faults) run as
the account with the whole Role, so these two together say that it is exact.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from invoker.errors import EngineUnavailableError, StartRefusedError
from invoker.result import Reason, State
from tests.cluster.account import Account, Right, make_account, rights
from tests.cluster.aftermath import left_of, soon_gone
from tests.cluster.engine_world import KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster
from tests.cluster.fault_proxy import FaultProxy
from tests.cluster.faults import Answer, CutAfterWrite, GoneInStream, Rule
from tests.conformance.engine_suite import STAY, ended, run, running
from trigger.plan import Code, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

VOLUME = {"volume": {"size": "8Mi", "mountPath": "/scratch"}}


@dataclass
class Lacking:
    """An engine whose account lacks one right, and what it has logged."""

    world: KubernetesWorld
    account: Account
    right: Right
    logged: Sequence[MutableMapping[str, Any]]
    proxy: FaultProxy

    @property
    def words(self) -> str:
        """The sentence that is owed to whoever has to mend it."""
        who = f"system:serviceaccount:{self.account.namespace}:{self.account.name}"
        verb, resource = self.right.verb, self.right.resource
        return f"{who} may not {verb} {resource} in namespace {self.account.namespace}; its Role lacks that right"

    async def grant(self) -> None:
        await asyncio.to_thread(self.account.grant_all)

    async def start(self, plan: RunPlan) -> None:
        """Start a run with the right that was just granted: the API server goes by it a moment later."""

        async def started() -> bool:
            try:
                await self.world.engine.start(plan)
            except StartRefusedError as refusal:
                if self.words not in refusal.message:
                    raise
                return False
            return True

        await self.world.until(started)

    async def said(self) -> None:
        """Wait until the sentence is in the log."""

        async def found() -> bool:
            return any(self.words in str(line.get("error_message")) for line in self.logged)

        await self.world.until(found)

    async def gone(self, run_id: str) -> None:
        """Wait until nothing of the run is left."""

        async def nothing() -> bool:
            return not await left_of(self.world, run_id)

        await self.world.until(nothing)

    async def succeeds(self, plan: RunPlan) -> None:
        """The run comes to its end, and nothing is left of it."""
        await self.start(plan)
        _, end = await ended(self.world, plan.run_id)
        assert (end.state, end.reason) == (State.SUCCEEDED, Reason.COMPLETED)
        await self.world.engine.release(plan.run_id)
        await self.gone(plan.run_id)


def plain(world: KubernetesWorld, script: str = "true", **fields: Any) -> RunPlan:
    return world.plan(script, limits=soon_gone(), **fields)


async def create_jobs(lacking: Lacking) -> None:
    plan = plain(lacking.world)
    with pytest.raises(StartRefusedError) as refusal:
        await lacking.world.engine.start(plan)
    assert lacking.words in refusal.value.message
    assert refusal.value.fields["reason"] == Reason.REFUSED
    await lacking.grant()
    await lacking.succeeds(plan)


async def create_configmaps(lacking: Lacking) -> None:
    code = Code(runtime="python", handler="main.handle", inline="def handle(event, context): ...")
    plan = lacking.world.code(code, limits=soon_gone())
    with pytest.raises(StartRefusedError) as refusal:
        await lacking.world.engine.start(plan)
    assert lacking.words in refusal.value.message
    assert await lacking.world.job(plan.run_id) is None, "no pod waits for code that never comes"
    await lacking.grant()
    await lacking.start(plan)
    assert await lacking.world.job(plan.run_id) is not None
    await lacking.world.engine.stop(plan.run_id, "cancelled")
    await ended(lacking.world, plan.run_id)


async def get_jobs(lacking: Lacking) -> None:
    """Asked for after a creation whose answer was lost: is the Job of that name this run's?"""
    plan = plain(lacking.world, STAY)
    lacking.proxy.inject(Rule(CutAfterWrite(), verb="create", resource="jobs"))
    with pytest.raises(StartRefusedError) as refusal:
        await lacking.world.engine.start(plan)
    assert lacking.words in refusal.value.message
    await lacking.grant()
    await lacking.start(plan)
    assert len(await lacking.world.get("jobs", "-l", f"invoker.dev/run={plan.run_id}")) == 1
    await lacking.world.engine.stop(plan.run_id, "cancelled")
    await ended(lacking.world, plan.run_id)


async def list_jobs(lacking: Lacking) -> None:
    await _is_blind(lacking)
    with pytest.raises(EngineUnavailableError) as refusal:
        await lacking.world.engine.start(plain(lacking.world))
    assert lacking.words in refusal.value.message
    await lacking.grant()
    await _sees_again(lacking)
    await lacking.succeeds(plain(lacking.world))


async def watch_jobs(lacking: Lacking) -> None:
    await _goes_on_once_granted(lacking)


async def list_pods(lacking: Lacking) -> None:
    await _goes_on_once_granted(lacking)


async def watch_pods(lacking: Lacking) -> None:
    await _goes_on_once_granted(lacking)


async def patch_jobs(lacking: Lacking) -> None:
    plan = plain(lacking.world)
    await run(lacking.world, plan)
    await lacking.world.engine.release(plan.run_id)
    await lacking.said()
    job = await lacking.world.job(plan.run_id)
    assert job is not None
    assert job["metadata"]["finalizers"] == ["invoker.dev/result"], "it is still held, and nothing of it is lost"
    await lacking.grant()
    await lacking.gone(plan.run_id)


async def delete_jobs(lacking: Lacking) -> None:
    """A Job that a queue holds back and that was cancelled: nobody may let it begin one day."""
    plan = plain(lacking.world, STAY)
    await lacking.world.engine.start(plan)
    name = f"{lacking.world.instance}-{plan.run_id}"
    await lacking.world.patch("job", name, {"spec": {"suspend": True}})
    await lacking.world.engine.stop(plan.run_id, "cancelled")
    _, end = await ended(lacking.world, plan.run_id)
    assert end.reason is Reason.CANCELLED
    await lacking.world.engine.release(plan.run_id)
    await lacking.said()
    assert await lacking.world.job(plan.run_id) is not None
    await lacking.grant()
    await lacking.gone(plan.run_id)


async def get_pods(lacking: Lacking) -> None:
    """Asked for when a list no longer has a pod: is it gone, or only newer than the list? The Job goes on with another
    pod, or its end would say the same."""
    plan = lacking.world.plan(f"echo ready; {STAY}", limits=soon_gone(backoff_limit=1))
    await running(lacking.world, plan)
    away = [lacking.proxy.inject(Rule(Answer(503), verb=verb, resource="pods", times=None)) for verb in _FOLLOWED]
    lacking.proxy.inject(Rule(GoneInStream(), verb="watch", resource="pods"))
    lacking.proxy.cut_streams()
    (pod,) = await lacking.world.pods(plan.run_id)
    await lacking.world.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    for rule in away:
        lacking.proxy.clear(rule)
    await lacking.said()
    await lacking.grant()
    status = await lacking.world.status(plan.run_id, lambda one: len(one.attempts) == 2)
    assert status.attempts[0].reason is Reason.DELETED
    await lacking.world.engine.stop(plan.run_id, "cancelled")
    await ended(lacking.world, plan.run_id)
    await lacking.world.engine.release(plan.run_id)
    await lacking.gone(plan.run_id)


_FOLLOWED = ("list", "watch")


async def delete_pods(lacking: Lacking) -> None:
    plan = lacking.world.plan("true", pod=VOLUME)  # with a TTL, so that only the engine frees its claim
    await run(lacking.world, plan)
    await lacking.world.engine.release(plan.run_id)
    await lacking.said()
    chosen = ("persistentvolumeclaims", "-l", f"invoker.dev/run={plan.run_id}")
    assert await lacking.world.get(*chosen), "its claim is not freed"
    await lacking.grant()

    async def freed() -> bool:
        return not await lacking.world.get(*chosen)

    await lacking.world.until(freed)


async def get_pods_log(lacking: Lacking) -> None:
    plan = plain(lacking.world, "echo hello", output=OutputMode.STDOUT)
    await lacking.world.engine.start(plan)
    await lacking.said()
    await lacking.grant()
    _, end = await ended(lacking.world, plan.run_id)
    assert (end.state, end.output) == (State.SUCCEEDED, b"hello\n"), "the output was there all the time"
    await lacking.world.engine.release(plan.run_id)
    await lacking.gone(plan.run_id)


async def list_events(lacking: Lacking) -> None:
    """Asked for when a Job has no pod: will it ever have one?"""
    absent = {"settings": {"priorityClassName": "nobody-made-it"}}
    plan = lacking.world.plan("true", pod=absent, limits=soon_gone(pending_timeout_seconds=2))
    await lacking.world.engine.start(plan)
    await lacking.said()
    await lacking.grant()
    _, end = await ended(lacking.world, plan.run_id)
    assert end.reason is Reason.CONFIG
    await lacking.world.engine.release(plan.run_id)
    await lacking.gone(plan.run_id)


async def list_configmaps(lacking: Lacking) -> None:
    await _sweeps_once_granted(lacking)


async def delete_configmaps(lacking: Lacking) -> None:
    await _sweeps_once_granted(lacking)


SCENARIOS: dict[str, Callable[[Lacking], Awaitable[None]]] = {
    "create jobs": create_jobs,
    "get jobs": get_jobs,
    "list jobs": list_jobs,
    "watch jobs": watch_jobs,
    "patch jobs": patch_jobs,
    "delete jobs": delete_jobs,
    "get pods": get_pods,
    "list pods": list_pods,
    "watch pods": watch_pods,
    "delete pods": delete_pods,
    "get pods/log": get_pods_log,
    "create configmaps": create_configmaps,
    "list events": list_events,
    "list configmaps": list_configmaps,
    "delete configmaps": delete_configmaps,
}


@pytest.fixture
async def lacking(
    request: pytest.FixtureRequest, cluster: Cluster, module_namespace: str, tmp_path: Path
) -> AsyncIterator[Lacking]:
    right: Right = request.param
    account = await asyncio.to_thread(make_account, cluster, module_namespace, tmp_path, without=right)
    with capture_logs() as logged:
        async with (
            FaultProxy(account.kubeconfig, tmp_path / "proxy", namespace=module_namespace) as proxy,
            kubernetes_world(cluster, module_namespace, kubeconfig=proxy.kubeconfig) as world,
        ):
            yield Lacking(world, account, right, logged, proxy)


@pytest.mark.parametrize("lacking", list(rights()), ids=str, indirect=True)
async def test_without(lacking: Lacking) -> None:
    await SCENARIOS[str(lacking.right)](lacking)


def test_what_the_role_allows_is_what_is_tested() -> None:
    assert sorted(str(right) for right in rights()) == sorted(SCENARIOS)


async def _is_blind(lacking: Lacking) -> None:
    """Wait until the engine says why it cannot see the cluster, as `/readyz` and the log do."""

    async def told() -> bool:
        return lacking.words in (lacking.world.engine.problem or "")

    await lacking.world.until(told)


async def _sees_again(lacking: Lacking) -> None:
    async def well() -> bool:
        return lacking.world.engine.problem is None

    await lacking.world.until(well)


async def _goes_on_once_granted(lacking: Lacking) -> None:
    await _is_blind(lacking)
    plan = plain(lacking.world)
    await lacking.world.engine.start(plan)
    await lacking.grant()
    await _sees_again(lacking)
    await lacking.succeeds(plan)


async def _sweeps_once_granted(lacking: Lacking) -> None:
    left_behind = {
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"main.py": json.dumps("")},
        "metadata": {"name": f"{lacking.world.instance}-code-old", "labels": {
            "app.kubernetes.io/managed-by": "invoker", "invoker.dev/instance": lacking.world.instance}},
    }  # fmt: skip
    await lacking.world.apply(left_behind)
    for _ in range(2):
        assert await lacking.world.engine.sweep_code() == []
    await lacking.said()
    await lacking.grant()

    async def swept() -> list[str]:
        return await lacking.world.engine.sweep_code()

    assert await lacking.world.until(swept) == [left_behind["metadata"]["name"]]
