"""Volumes of runs: one claim for each attempt, freed when the result is sealed; secrets and configuration as files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from invoker.result import Reason, State
from tests.cluster.account import make_account
from tests.cluster.aftermath import left_of, released_without_trace, soon_gone
from tests.cluster.engine_world import KubernetesWorld, host, kubernetes_world
from tests.cluster.facts import Cluster
from tests.conformance.engine_suite import STAY, ended, run, running
from trigger.plan import Limits, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SCRATCH = {"size": "16Mi", "mountPath": "/scratch"}
AN_HOUR = Limits(ttl_seconds_after_finished=3600, grace_seconds=1)


@pytest.fixture
async def world(cluster: Cluster, module_namespace: str) -> AsyncIterator[KubernetesWorld]:
    async with kubernetes_world(cluster, module_namespace) as found:
        yield found


async def claims(world: KubernetesWorld, plan: RunPlan) -> list[dict[str, Any]]:
    return await world.get("persistentvolumeclaims", "-l", f"invoker.dev/run={plan.run_id}")


async def no_claims(world: KubernetesWorld, plan: RunPlan) -> bool:
    return not await claims(world, plan)


async def kinds_left(world: KubernetesWorld, plan: RunPlan) -> list[str]:
    return sorted(one.partition("/")[0] for one in await left_of(world, plan.run_id))


async def test_each_attempt_has_a_fresh_volume_that_it_can_write(world: KubernetesWorld) -> None:
    script = (
        'test "$INVOKER_WORKDIR" = /scratch && test "$HOME" = /scratch && test "$(id -u)" = 10001 || exit 9; '
        'test -z "$(ls -A /scratch | grep -v lost+found)" || exit 8; echo mine > /scratch/file && exit 1'
    )
    plan = world.plan(script, pod={"volume": SCRATCH}, limits=soon_gone(backoff_limit=1))
    status, _ = await run(world, plan)
    assert [one.exit_code for one in status.attempts] == [1, 1]
    assert len(await claims(world, plan)) == 2
    await released_without_trace(world, plan.run_id)


async def test_size_class_and_access_mode_are_the_functions(world: KubernetesWorld) -> None:
    volume = {**SCRATCH, "size": "24Mi", "storageClass": "invoker-test", "accessMode": "ReadWriteOncePod"}
    plan = world.plan("exit 0", pod={"volume": volume}, limits=soon_gone())
    await world.engine.start(plan)
    (claim,) = await world.until(lambda: claims(world, plan))
    assert claim["spec"]["resources"]["requests"] == {"storage": "24Mi"}
    assert claim["spec"]["storageClassName"] == "invoker-test"
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    await ended(world, plan.run_id)
    await released_without_trace(world, plan.run_id)


async def test_a_claim_is_freed_with_the_release_and_not_after_the_ttl(world: KubernetesWorld) -> None:
    plan = world.plan("echo kept > /scratch/file", pod={"volume": SCRATCH}, limits=AN_HOUR)
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED
    assert len(await claims(world, plan)) == 1
    await world.engine.release(plan.run_id)
    await world.until(lambda: no_claims(world, plan))
    assert await kinds_left(world, plan) == ["Job"]


async def test_a_pod_without_a_volume_is_kept_for_the_ttl(world: KubernetesWorld) -> None:
    plan = world.plan("exit 0", limits=AN_HOUR)
    await run(world, plan)
    await world.engine.release(plan.run_id)
    await world.until(lambda: is_released(world, plan))
    assert await kinds_left(world, plan) == ["Job", "Pod"]


async def is_released(world: KubernetesWorld, plan: RunPlan) -> bool:
    job = await world.job(plan.run_id)
    return job is None or not job["metadata"].get("finalizers")


async def test_keep_pod_keeps_pod_and_claim_until_the_ttl(world: KubernetesWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=3600)
    plan = world.plan("exit 0", pod={"volume": SCRATCH, "keepPod": True}, limits=limits)
    await run(world, plan)
    await world.engine.release(plan.run_id)
    await world.until(lambda: is_released(world, plan))
    assert await kinds_left(world, plan) == ["Job", "PersistentVolumeClaim", "Pod"]
    job = await world.job(plan.run_id)
    assert job is not None
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    await world.patch("job", job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": 0}})  # its hour has passed
    await world.until(lambda: nothing_left(world, plan))


async def nothing_left(world: KubernetesWorld, plan: RunPlan) -> bool:
    return not await left_of(world, plan.run_id)


async def test_no_claim_of_a_cancelled_run_stays(world: KubernetesWorld) -> None:
    plan = world.plan(f"echo ready; {STAY}", pod={"volume": SCRATCH}, limits=AN_HOUR)
    await running(world, plan)
    await world.engine.stop(plan.run_id, "cancelled")
    _, end = await ended(world, plan.run_id)
    assert end.reason is Reason.CANCELLED
    await world.engine.release(plan.run_id)
    await world.until(lambda: no_claims(world, plan))


async def test_no_claim_of_a_failed_run_stays(world: KubernetesWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=3600, backoff_limit=1)
    plan = world.plan("exit 1", pod={"volume": SCRATCH}, limits=limits)
    _, end = await run(world, plan)
    assert end.reason is Reason.ERROR
    await world.engine.release(plan.run_id)
    await world.until(lambda: no_claims(world, plan))


async def test_no_claim_stays_when_the_engine_goes_in_between(
    cluster: Cluster, module_namespace: str, tmp_path: Path
) -> None:
    """It goes while the run runs; another one sees its end and releases it."""
    account = await asyncio.to_thread(make_account, cluster, module_namespace, tmp_path)
    async with host(cluster) as server:
        world = KubernetesWorld(cluster, module_namespace, server, account.kubeconfig)
        plan = world.plan("sleep 1; exit 0", pod={"volume": SCRATCH}, limits=AN_HOUR)
        async with world.another_engine() as first:
            await first.start(plan)
        async with world.another_engine() as second:
            await second.start(plan)
            async for status in second.watch():
                if status.run_id == plan.run_id and status.end is not None:
                    break
            await second.release(plan.run_id)
            await world.until(lambda: no_claims(world, plan))


async def test_no_claim_stays_after_the_ttl(world: KubernetesWorld) -> None:
    plan = world.plan("exit 0", pod={"volume": SCRATCH, "keepPod": True}, limits=Limits(ttl_seconds_after_finished=1))
    await run(world, plan)
    await world.engine.release(plan.run_id)
    await world.until(lambda: nothing_left(world, plan))


async def test_a_claim_that_no_class_provides_ends_the_run_in_words(world: KubernetesWorld) -> None:
    volume = {**SCRATCH, "storageClass": "no-such-class"}
    plan = world.plan("exit 0", pod={"volume": volume}, limits=soon_gone(pending_timeout_seconds=15))
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.UNSCHEDULABLE)
    assert "unbound immediate PersistentVolumeClaims" in end.message
    assert status.attempts == ()
    await released_without_trace(world, plan.run_id)


# secrets and configuration


async def test_secrets_and_configuration_as_environment_and_as_files(world: KubernetesWorld) -> None:
    await world.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mail"},
            "stringData": {"password": "a$(b)c", "key": "k"},
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tuning"}, "data": {"level": "7", "notes": "n"}},
    )
    references = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mail", "key": "password"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "tuning", "key": "level"}}},
    ]
    settings = {
        "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "tuning"}}],
        "volumes": [
            {"name": "mail", "secret": {"secretName": "mail", "defaultMode": 0o440}},
            {"name": "tuning", "configMap": {"name": "tuning", "items": [{"key": "notes", "path": "deep/notes.txt"}]}},
        ],
        "volumeMounts": [
            {"name": "mail", "mountPath": "/etc/mail", "readOnly": True},
            {"name": "tuning", "mountPath": "/etc/tuning", "readOnly": True},
        ],
    }
    script = 'printf "%s|" "$PASSWORD" "$LEVEL" "$ALL_notes"; cd /etc; cat mail/password mail/key tuning/deep/notes.txt'
    pod = {"env": references, "settings": settings}
    plan = world.plan(script, pod=pod, output=OutputMode.STDOUT, limits=soon_gone())
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED, end
    assert end.output == b"a$(b)c|7|n|a$(b)ckn"
    await released_without_trace(world, plan.run_id)
