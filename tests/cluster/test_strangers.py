"""Several instances in one namespace, and Jobs that are nobody's run: each engine touches its own and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from invoker.errors import StartRefusedError
from invoker.result import Reason, State
from tests.cluster.aftermath import released_without_trace, soon_gone
from tests.cluster.engine_world import BASE_IMAGE, KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster
from tests.conformance.engine_suite import STAY, ended, running
from trigger.engine import Phase
from trigger.plan import Code, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

GREETING = "def handle(event, context):\n    return 'hello'\n"


@pytest.fixture
async def worlds(cluster: Cluster, module_namespace: str) -> AsyncIterator[tuple[KubernetesWorld, KubernetesWorld]]:
    """Two instances in one namespace, with the same account."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(kubernetes_world(cluster, module_namespace)) for _ in range(2)]
        yield one, other


def settled(thing: dict[str, Any]) -> dict[str, Any]:
    """What nobody but its owner changes."""
    metadata = thing["metadata"]
    kept = ("uid", "labels", "annotations", "finalizers", "deletionTimestamp")
    return {name: metadata.get(name) for name in kept} | {"spec": thing.get("spec"), "data": thing.get("data")}


async def whole(world: KubernetesWorld) -> dict[str, dict[str, Any]]:
    """Everything of an instance, as it stands."""
    found = await world.get("jobs,pods,configmaps", "-l", f"invoker.dev/instance={world.instance}")
    return {f"{item['kind']}/{item['metadata']['name']}": settled(item) for item in found}


async def test_two_instances_in_one_namespace(worlds: tuple[KubernetesWorld, KubernetesWorld]) -> None:
    """The same run id in both, as the same event and function have it: each stops, ends, releases and sweeps its own
    only."""
    one, other = worlds
    ready = f"echo ready; {STAY}"
    mine = one.plan(ready, limits=soon_gone(grace_seconds=1))
    theirs = other.plan(ready, limits=soon_gone(grace_seconds=1), run_id=mine.run_id)
    with_code = other.code(Code(runtime="python", handler="main.handle", inline=GREETING), limits=soon_gone())
    waiting = other.plan("exit 0", limits=soon_gone())
    await other.engine.start(with_code)
    await other.engine.start(waiting)
    await ended(other, with_code.run_id)
    await ended(other, waiting.run_id)
    await running(other, theirs)
    await other.until(lambda: are_counted(other, with_code, waiting))
    before = await whole(other)
    assert {name.partition("/")[0] for name in before} == {"Job", "Pod", "ConfigMap"}
    await running(one, mine)
    for run_id in (mine.run_id, with_code.run_id):
        await one.engine.stop(run_id, "cancelled")
    _, end = await ended(one, mine.run_id)
    assert end.state is State.CANCELLED
    unknown = await one.status(with_code.run_id, lambda status: status.phase is Phase.ENDED)
    assert unknown.end is None, "of what another instance runs it knows nothing"
    await one.engine.release(waiting.run_id)
    await released_without_trace_of(one, mine)
    for _ in range(2):
        assert await one.engine.sweep_code() == []
    assert await whole(other) == before
    assert other.count(theirs.run_id, Phase.ENDED) == one.count(waiting.run_id, Phase.RUNNING) == 0
    await other.engine.stop(theirs.run_id, "cancelled")
    _, end = await ended(other, theirs.run_id)
    assert end.state is State.CANCELLED
    for plan in (theirs, with_code, waiting):
        await released_without_trace(other, plan.run_id)


async def are_counted(world: KubernetesWorld, *plans: RunPlan) -> bool:
    """Whether Kubernetes itself is done with runs that have ended: it takes its finalizer off their pods after that."""
    pods = [pod for plan in plans for pod in await world.pods(plan.run_id)]
    return len(pods) == len(plans) and not [pod for pod in pods if pod["metadata"].get("finalizers")]


async def released_without_trace_of(world: KubernetesWorld, plan: RunPlan) -> None:
    """As `released_without_trace`, for one instance of several."""
    await world.engine.release(plan.run_id)

    async def nothing() -> bool:
        return await whole(world) == {}

    await world.until(nothing)


@pytest.fixture
async def world(cluster: Cluster, module_namespace: str) -> AsyncIterator[KubernetesWorld]:
    async with kubernetes_world(cluster, module_namespace) as found:
        yield found


def strange_job(name: str, **metadata: Any) -> dict[str, Any]:
    """A Job that somebody made by hand, and that works for long."""
    container = {"name": "main", "image": BASE_IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "600"]}
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    unprivileged = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"restartPolicy": "Never", "containers": [container], "securityContext": unprivileged}
    pod |= {"terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name} | metadata,
        "spec": {"template": {"spec": pod}},
    }  # fmt: skip


async def look_at(world: KubernetesWorld, name: str) -> dict[str, Any]:
    return settled(next(job for job in await world.get("jobs") if job["metadata"]["name"] == name))


async def test_a_job_of_that_name_with_other_content(world: KubernetesWorld) -> None:
    """It is reported, and neither taken for the run's nor stopped with it."""
    plan = world.plan("exit 0", limits=soon_gone())
    name = f"{world.instance}-{plan.run_id}"
    await world.apply(strange_job(name))
    before = await look_at(world, name)
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert f"a Job {world.namespace}/{name} is there that Invoker did not make for this run" in refusal.value.message
    assert f"kubectl -n {world.namespace} get job {name}" in (refusal.value.hint or "")
    await world.engine.stop(plan.run_id, "refused")  # as the controller does with whatever it ends
    status = await world.status(plan.run_id, lambda one: one.phase is Phase.ENDED)
    assert status.end is None
    await world.engine.release(plan.run_id)
    assert await look_at(world, name) == before
    await world.kubectl("delete", "job", name)


async def test_a_job_with_the_labels_of_another_instance(worlds: tuple[KubernetesWorld, KubernetesWorld]) -> None:
    """Under the name of this run, with all that Invoker writes; only whose it is differs."""
    one, other = worlds
    plan = one.plan("exit 0", limits=soon_gone())
    name = f"{one.instance}-{plan.run_id}"
    labels = {"app.kubernetes.io/managed-by": "invoker", "invoker.dev/instance": other.instance}
    labels |= {"invoker.dev/run": plan.run_id, "invoker.dev/function": "work"}
    marks = {"annotations": {"invoker.dev/run": plan.run_id}, "finalizers": ["invoker.dev/result"]}
    await one.apply(strange_job(name, labels=labels, **marks))
    before = await look_at(one, name)
    with pytest.raises(StartRefusedError, match="did not make for this run"):
        await one.engine.start(plan)
    await one.engine.stop(plan.run_id, "refused")
    await one.status(plan.run_id, lambda status: status.phase is Phase.ENDED)
    assert await look_at(one, name) == before


async def test_a_copy_of_a_runs_job(world: KubernetesWorld) -> None:
    """Made by hand under another name, with every label and annotation: what becomes of it is not the run's."""
    plan = world.plan(f"{world.gate('copied')}; echo of the run", output=OutputMode.STDOUT, limits=soon_gone())
    await world.engine.start(plan)
    await world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
    job = await world.job(plan.run_id)
    assert job is not None
    kept = {key: job["metadata"][key] for key in ("labels", "annotations", "finalizers")}
    copy = strange_job("copied-by-hand", **kept)
    copy["spec"]["template"]["metadata"] = {"labels": kept["labels"]}
    copy["spec"]["template"]["spec"]["containers"][0]["command"] = ["false"]
    copy["spec"]["backoffLimit"] = 0
    await world.apply(copy)

    async def has_failed() -> bool:
        return any(
            one["type"] == "Failed"
            for each in await world.get("jobs") if each["metadata"]["name"] == "copied-by-hand"
            for one in each.get("status", {}).get("conditions", [])
        )  # fmt: skip

    await world.until(has_failed)
    world.host.gates["copied"].set()
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.output) == (State.SUCCEEDED, b"of the run\n"), end
    assert [one.number for one in status.attempts] == [1]
    await world.engine.release(plan.run_id)

    async def let_go() -> bool:
        return [one["metadata"]["name"] for one in await world.get("jobs")].count(job["metadata"]["name"]) == 0

    await world.until(let_go)
    copied = await look_at(world, "copied-by-hand")
    assert copied["finalizers"] == ["invoker.dev/result"], "it is its maker's to remove"
    await world.patch("job", "copied-by-hand", {"metadata": {"finalizers": None}})
    await world.kubectl("delete", "job", "copied-by-hand")
