"""Every verdict on a run, on a real cluster: its reason, state, attempts and words, and that nothing is left behind.

One test per verdict, named after it; so the list of these tests is the list of verdicts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from invoker.errors import EngineUnavailableError, StartRefusedError
from invoker.result import Reason, State
from tests.cluster.aftermath import attempts, left_of, released_without_trace, soon_gone
from tests.cluster.engine_world import BASE_IMAGE, KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster
from tests.cluster.hindrances import RUNNING_STATUS, bound_pod, empty_registry, evict, only_looking, quota, silent_node
from tests.conformance.engine_suite import STAY, ended, run, running
from trigger.engine import Phase
from trigger.kubernetes_engine import KubernetesEngine
from trigger.kubernetes_engine.access import ClusterAccess
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.assess import Rules
from trigger.kubernetes_engine.engine import EngineOptions
from trigger.plan import Code, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

RULES = Rules(config_seconds=2, image_seconds=3, mount_seconds=5, podless_seconds=3)
SOON = EngineOptions(rules=RULES)
NODE_LOST_SOON = EngineOptions(rules=replace(RULES, node_lost_seconds=1))
"""For a node that never answers: one that is only busy may need longer than that to remove a pod."""
LOOKED_AT, PULLED = 15, 30
"""Seconds by which, on a busy machine too, the scheduler has looked at a pod, and its node has tried to start it."""


@pytest.fixture
async def world(cluster: Cluster, module_namespace: str) -> AsyncIterator[KubernetesWorld]:
    async with kubernetes_world(cluster, module_namespace, SOON) as found:
        yield found


@pytest.fixture
async def own_world(cluster: Cluster, namespace: str) -> AsyncIterator[KubernetesWorld]:
    """For what happens to a whole namespace."""
    async with kubernetes_world(cluster, namespace, SOON) as found:
        yield found


def settings(plan: RunPlan, **pod: Any) -> RunPlan:
    """The plan with these pod settings of its function."""
    return replace(plan, pod={**plan.pod, "settings": pod})


# it ran


async def test_success(world: KubernetesWorld) -> None:
    status, end = await run(world, world.plan("echo hello", limits=soon_gone()))
    assert (end.state, end.reason, end.message) == (State.SUCCEEDED, Reason.COMPLETED, "")
    assert attempts(status) == [(1, Reason.COMPLETED, 0)]
    assert end.log_tail == b"hello\n"
    await released_without_trace(world, status.run_id)


async def test_exit_code(world: KubernetesWorld) -> None:
    status, end = await run(world, world.plan("echo no such table >&2; exit 3", limits=soon_gone(), keep_log=False))
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert end.message == "ended with exit code 3 in attempt 1 of 1: no such table"
    assert attempts(status) == [(1, Reason.ERROR, 3)]
    assert end.log_tail == b"no such table\n"
    await released_without_trace(world, status.run_id)


async def test_out_of_memory(world: KubernetesWorld) -> None:
    code = "block = bytearray(512 * 1024 * 1024)\nprint(len(block))"
    status, end = await run(world, world.python(code, limits=soon_gone(memory_bytes=64 * 1024 * 1024)))
    assert (end.state, end.reason) == (State.FAILED, Reason.OUT_OF_MEMORY)
    assert end.message == "used more than its 64 MiB in attempt 1 of 1"
    assert attempts(status) == [(1, Reason.OUT_OF_MEMORY, 137)]
    await released_without_trace(world, status.run_id)


async def test_running_limit(world: KubernetesWorld) -> None:
    # Long enough for the engine to listen before it ends the run: what it then has of the log does not hang on how
    # soon a busy node answers.
    limits = soon_gone(timeout_seconds=12, backoff_limit=3, grace_seconds=2)
    status, end = await run(world, world.plan(f"echo began; {STAY}", limits=limits))
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert end.message == "ran longer than its 12 s in attempt 1 of 4"
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.TIMEOUT)]
    assert end.log_tail.startswith(b"began\n")
    await released_without_trace(world, status.run_id)


async def test_do_not_retry_exit_code(world: KubernetesWorld) -> None:
    limits = soon_gone(backoff_limit=3)
    status, end = await run(world, world.plan("exit 42", limits=limits, no_retry_exit_codes=frozenset({42, 43})))
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert end.message == "ended with exit code 42 in attempt 1 of 4"
    assert attempts(status) == [(1, Reason.ERROR, 42)]
    assert len(await world.pods(status.run_id)) == 1
    await released_without_trace(world, status.run_id)


async def test_fails_once_then_succeeds(world: KubernetesWorld) -> None:
    plan = world.plan(world.failing(1) + "; echo done", limits=soon_gone(backoff_limit=2))
    status, end = await run(world, plan)
    assert (end.state, end.reason, end.message) == (State.SUCCEEDED, Reason.COMPLETED, "")
    assert attempts(status) == [(1, Reason.ERROR, 1), (2, Reason.COMPLETED, 0)]
    assert len(await world.pods(plan.run_id)) == 2
    assert end.log_tail == b"done\n"
    await released_without_trace(world, plan.run_id)
    assert world.count(plan.run_id, Phase.ENDED) == 1


# it did not start


async def test_pending_limit(world: KubernetesWorld) -> None:
    """An init container that does not end: nothing is wrong, it only does not begin."""
    plan = settings(
        world.plan("exit 0", limits=soon_gone(pending_timeout_seconds=4, grace_seconds=1)),
        initContainers=[{"name": "slow", "image": BASE_IMAGE, "command": ["sleep", "600"], "imagePullPolicy": "Never"}],
    )
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.PENDING_TIMEOUT)
    assert end.message.startswith("had not started after 4 s: ")
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


async def test_image_that_is_not_on_the_node_and_never_pulled(world: KubernetesWorld) -> None:
    limits = soon_gone(pending_timeout_seconds=600, backoff_limit=2)
    status, end = await run(world, world.command("true", image="localhost/never-built:1", limits=limits))
    assert (end.state, end.reason) == (State.FAILED, Reason.IMAGE_PULL)
    assert end.message.startswith("cannot start: ErrImageNeverPull: ")
    assert "localhost/never-built:1" in end.message
    assert attempts(status) == []
    await released_without_trace(world, status.run_id)


async def test_image_that_its_registry_does_not_have(world: KubernetesWorld) -> None:
    async with empty_registry() as registry:
        plan = world.command("true", image=f"{registry}/missing:1", limits=soon_gone(pending_timeout_seconds=600))
        status, end = await run(world, settings(plan, imagePullPolicy="IfNotPresent"))
    assert (end.state, end.reason) == (State.FAILED, Reason.IMAGE_PULL)
    assert end.message.startswith("had not started after 3 s: ")
    assert "not found" in end.message
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


async def test_image_whose_registry_does_not_answer(world: KubernetesWorld) -> None:
    """It may come back, so only the pending limit ends that."""
    plan = world.command("true", image="localhost:9/missing:1", limits=soon_gone(pending_timeout_seconds=PULLED))
    status, end = await run(world, settings(plan, imagePullPolicy="IfNotPresent"))
    assert (end.state, end.reason) == (State.FAILED, Reason.IMAGE_PULL)
    assert end.message.startswith(f"had not started after {PULLED} s: ")
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


async def test_config_error_of_a_missing_secret(world: KubernetesWorld) -> None:
    reference = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "password"}}}
    plan = world.plan("exit 0", limits=soon_gone(pending_timeout_seconds=600), pod={"env": [reference]})
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert end.message.startswith("had not started after 2 s: CreateContainerConfigError: ")
    assert 'secret "no-such-secret" not found' in end.message
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


async def test_config_error_of_a_missing_key(world: KubernetesWorld) -> None:
    await world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "half"}, "data": {"a": "1"}})
    reference = {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "half", "key": "level"}}}
    plan = world.plan("exit 0", limits=soon_gone(), pod={"env": [reference]})
    _, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert "couldn't find key level in ConfigMap" in end.message
    await released_without_trace(world, plan.run_id)


async def test_config_error_of_a_missing_config_map_as_files(world: KubernetesWorld) -> None:
    plan = settings(
        world.plan("exit 0", limits=soon_gone(pending_timeout_seconds=600)),
        volumes=[{"name": "rules", "configMap": {"name": "no-such-rules"}}],
        volumeMounts=[{"name": "rules", "mountPath": "/etc/rules"}],
    )
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert end.message.startswith("had not started after 5 s: its volumes are not there")
    assert "ConfigMap no-such-rules" in end.message
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


async def test_config_error_of_a_missing_program(world: KubernetesWorld) -> None:
    status, end = await run(world, world.command("no-such-program", limits=soon_gone()))
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert end.message.startswith("could not be started in attempt 1 of 1: ")
    assert "no-such-program" in end.message
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.CONFIG)]
    await released_without_trace(world, status.run_id)


async def test_config_error_of_a_function_that_wants_to_be_root(world: KubernetesWorld) -> None:
    """Kubernetes would refuse that at the node only (`runAsNonRoot`); it does not come so far."""
    plan = settings(world.plan("exit 0"), securityContext={"runAsUser": 0})
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert "spec.template.spec.securityContext.runAsUser" in refusal.value.message
    assert await left_of(world, plan.run_id) == []


async def test_unschedulable(world: KubernetesWorld) -> None:
    plan = world.plan("exit 0", limits=soon_gone(pending_timeout_seconds=LOOKED_AT))
    plan = settings(plan, nodeSelector={"disk": "nobody-has-this"})
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.UNSCHEDULABLE)
    assert end.message.startswith(f"had not started after {LOOKED_AT} s: no node takes its pod: 0/")
    assert attempts(status) == []
    await released_without_trace(world, plan.run_id)


# it was taken away


async def test_evicted(world: KubernetesWorld) -> None:
    """As `kubectl drain` does it. The attempt is told and does not count: backoffLimit is 0, and there is a second."""
    plan = world.plan(staying_once(world), limits=soon_gone(grace_seconds=1))
    await running(world, plan)
    (pod,) = await world.pods(plan.run_id)
    await evict(world, pod["metadata"]["name"])
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.reason) == (State.SUCCEEDED, Reason.COMPLETED)
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.EVICTED), (2, Reason.COMPLETED)]
    assert status.attempts[0].message == "was taken from its node in attempt 1 of 1 (EvictionByEvictionAPI)"
    assert status.attempts[0].exit_code not in (None, 0)
    await released_without_trace(world, plan.run_id)


def staying_once(world: KubernetesWorld) -> str:
    """A script whose first attempt says `ready` and stays, and whose second one ends."""
    return f"{world.failing(1).replace('exit 1', f'{{ echo ready; {STAY}; }}')}; echo done"


async def test_node_lost(cluster: Cluster, module_namespace: str) -> None:
    """A node whose kubelet does not answer: the pod is told to end, and nobody says that it has."""
    async with kubernetes_world(cluster, module_namespace, NODE_LOST_SOON) as world, silent_node(world) as node:
        plan = settings(
            world.plan("exit 0", limits=soon_gone(grace_seconds=1, backoff_limit=1)),
            nodeSelector={"silent": node},
            tolerations=[
                {"key": "silent", "operator": "Exists"},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
            ],
        )
        await world.engine.start(plan)
        pod = await world.until(lambda: bound_pod(world, plan.run_id))
        await world.patch("pod", pod, {"status": RUNNING_STATUS()}, "--subresource=status")
        await world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
        await world.kubectl("delete", "pod", pod, "--wait=false")
        status, end = await ended(world, plan.run_id)
        assert (end.state, end.reason) == (State.LOST, Reason.NODE_LOST)
        assert end.message == "its node does not answer, in attempt 1 of 2"
        assert attempts(status) == [(1, Reason.NODE_LOST, None)]
        await released_without_trace(world, plan.run_id)


@pytest.mark.parametrize("cascade", ["background", "foreground"])
async def test_job_deleted_by_hand(world: KubernetesWorld, cascade: str) -> None:
    plan = world.plan(f"echo ready; {STAY}", limits=soon_gone(backoff_limit=2, grace_seconds=1))
    await running(world, plan)
    job = await world.job(plan.run_id)
    assert job is not None
    await world.kubectl("delete", "job", job["metadata"]["name"], f"--cascade={cascade}", "--wait=false")
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.reason) == (State.LOST, Reason.DELETED)
    assert end.message == f"its Job {job['metadata']['name']} was deleted (not by Invoker) in attempt 1"
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.DELETED)]
    assert not await world.alive(plan.run_id)
    await released_without_trace(world, plan.run_id)


async def test_pod_deleted_by_hand(world: KubernetesWorld) -> None:
    """An attempt like any other that failed: it counts, and the next one may succeed."""
    plan = world.plan(staying_once(world), limits=soon_gone(backoff_limit=1, grace_seconds=1))
    await running(world, plan)
    await world.kubectl("delete", "pod", "-l", f"invoker.dev/run={plan.run_id}", "--wait=false")
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.reason) == (State.SUCCEEDED, Reason.COMPLETED)
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.DELETED), (2, Reason.COMPLETED)]
    assert status.attempts[0].message == "its pod was deleted in attempt 1 of 2 (not by Invoker)"
    await released_without_trace(world, plan.run_id)


async def test_namespace_terminating(own_world: KubernetesWorld) -> None:
    """What runs in it ends, and nothing begins in it any more."""
    plan = own_world.plan(f"echo ready; {STAY}", limits=soon_gone(grace_seconds=1))
    await running(own_world, plan)
    await own_world.kubectl("delete", "namespace", own_world.namespace, "--wait=false")
    status, end = await ended(own_world, plan.run_id)
    assert (end.state, end.reason) == (State.LOST, Reason.DELETED), (status, end)
    assert "was deleted" in end.message
    assert "(not by Invoker)" in end.message
    assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.DELETED)]
    with pytest.raises(StartRefusedError) as refusal:
        await own_world.engine.start(own_world.plan("exit 0"))
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert f"the namespace {own_world.namespace} is being deleted" in refusal.value.message
    await released_without_trace(own_world, plan.run_id)


# it has to wait


async def test_quota_of_jobs_exceeded(own_world: KubernetesWorld) -> None:
    """The start says "later", in words; when the quota has room the same start succeeds."""
    await quota(own_world, {"count/jobs.batch": "0"})
    plan = own_world.plan("exit 0", limits=soon_gone())
    with pytest.raises(EngineUnavailableError, match="the namespace's quota 'full' is used up"):
        await own_world.engine.start(plan)
    assert own_world.count(plan.run_id, Phase.ENDED) == 0
    await own_world.kubectl("delete", "quota", "full")
    await own_world.until(lambda: started(own_world, plan))
    _, end = await ended(own_world, plan.run_id)
    assert end.state is State.SUCCEEDED
    await released_without_trace(own_world, plan.run_id)


async def test_quota_of_pods_exceeded(own_world: KubernetesWorld) -> None:
    """The Job is there and has no pod: no limit counts until it has one."""
    await quota(own_world, {"count/pods": "0"})
    plan = own_world.plan("exit 0", limits=soon_gone(pending_timeout_seconds=PULLED))
    await own_world.engine.start(plan)
    await own_world.until(lambda: refused_pod(own_world, plan))
    moment = datetime.now(UTC)
    await own_world.until(lambda: later_than(moment, seconds=PULLED + 1))
    assert own_world.count(plan.run_id, Phase.ENDED) == 0
    assert await own_world.pods(plan.run_id) == []
    await own_world.patch("quota", "full", {"spec": {"hard": {"count/pods": "10"}}})
    status, end = await ended(own_world, plan.run_id)
    assert (end.state, end.reason) == (State.SUCCEEDED, Reason.COMPLETED)
    assert attempts(status) == [(1, Reason.COMPLETED, 0)]
    await released_without_trace(own_world, plan.run_id)


async def started(world: KubernetesWorld, plan: RunPlan) -> bool:
    try:
        await world.engine.start(plan)
    except EngineUnavailableError:
        return False
    return True


async def refused_pod(world: KubernetesWorld, plan: RunPlan) -> bool:
    events = await world.get("events", "--field-selector=reason=FailedCreate")
    return any("exceeded quota" in one.get("message", "") for one in events)


async def later_than(moment: datetime, seconds: float) -> bool:
    return (datetime.now(UTC) - moment).total_seconds() > seconds


# it was refused


async def test_refused_by_the_role(world: KubernetesWorld, tmp_path: Path) -> None:
    """403: an account that may look, and may not make anything."""
    kubeconfig = await only_looking(world, tmp_path)
    plan = world.plan("exit 0")
    async with KubernetesEngine(
        Api(ClusterAccess(kubeconfig=kubeconfig, namespace=world.namespace)), world.options
    ) as engine:
        with pytest.raises(StartRefusedError) as refusal:
            await engine.start(plan)
        assert refusal.value.fields["reason"] == Reason.REFUSED
        account = f"system:serviceaccount:{world.namespace}:{world.instance}"
        assert f"{account} may not create jobs in namespace {world.namespace}" in refusal.value.message
        assert "its Role lacks that right" in refusal.value.message
    assert await left_of(world, plan.run_id) == []


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (
            {"resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "100m"}}},
            "must be less than or equal to cpu limit",
        ),
        ({"settings": {"volumeMounts": [{"name": "nowhere", "mountPath": "/x"}]}}, "Not found"),
    ],
    ids=["resources", "mounts"],
)
async def test_refused_as_invalid(world: KubernetesWorld, pod: dict[str, Any], words: str) -> None:
    """422: what only the API server knows to be wrong."""
    plan = world.plan("exit 0", pod=pod)
    with pytest.raises(StartRefusedError) as refusal:
        await world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert words in refusal.value.message
    assert await left_of(world, plan.run_id) == []


async def test_refused_by_what_a_namespace_allows(own_world: KubernetesWorld) -> None:
    """What violates Pod Security `restricted` is refused before there is a Job."""
    plan = own_world.code(
        Code(command=("true",), image=BASE_IMAGE),
        pod={
            "settings": {
                "initContainers": [
                    {"name": "first", "image": BASE_IMAGE, "command": ["true"], "securityContext": {"privileged": True}}
                ]
            }
        },
    )
    with pytest.raises(StartRefusedError) as refusal:
        await own_world.engine.start(plan)
    assert refusal.value.fields["reason"] == Reason.REFUSED
    assert "privileged" in refusal.value.message
    assert await left_of(own_world, plan.run_id) == []


async def test_no_pod_can_be_made_of_what_is_missing(own_world: KubernetesWorld) -> None:
    """The Job is taken, and every pod of it refused: only its events say so."""
    plan = own_world.plan("true", pod={"settings": {"priorityClassName": "nobody-made-it"}}, limits=soon_gone())
    await own_world.engine.start(plan)
    _, end = await ended(own_world, plan.run_id)
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert "no PriorityClass with name nobody-made-it was found" in end.message
    await released_without_trace(own_world, plan.run_id)


async def test_no_pod_is_allowed_by_the_namespace(own_world: KubernetesWorld) -> None:
    """Its limits are not those that Invoker knows."""
    most = {"limits": [{"type": "Container", "max": {"memory": "8Mi"}}]}
    await own_world.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": most})
    plan = own_world.plan("true", pod={"resources": {"limits": {"memory": "64Mi"}}}, limits=soon_gone())
    await own_world.engine.start(plan)
    _, end = await ended(own_world, plan.run_id)
    assert (end.state, end.reason) == (State.FAILED, Reason.REFUSED)
    assert "maximum memory usage per Container is 8Mi" in end.message
    await released_without_trace(own_world, plan.run_id)
