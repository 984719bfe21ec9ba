"""A Job stays until its run's result is sealed: also when nobody is there as it ends, and its TTL is 0."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from invoker.result import Reason, State
from tests.cluster.account import make_account
from tests.cluster.aftermath import attempts, left_of, released_without_trace, soon_gone
from tests.cluster.engine_world import KubernetesWorld, build_python_image, host
from tests.cluster.facts import Cluster
from tests.conformance.engine_suite import STAY
from tests.conformance.reports import Reports
from trigger.engine import Phase, RunEnd, RunStatus
from trigger.kubernetes_engine import KubernetesEngine
from trigger.plan import Code, OutputMode, RunPlan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OUTPUTS = {OutputMode.API: None, OutputMode.STDOUT: b"printed\n", OutputMode.TERMINATION: b"left"}
WORK = 'echo printed; printf left > "$INVOKER_TERMINATION_FILE"'

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


@dataclass(frozen=True)
class Controller:
    """A controller that comes and goes."""

    engine: KubernetesEngine
    reports: Reports

    async def ended(self, plan: RunPlan) -> tuple[RunStatus, RunEnd]:
        """What a run's message, coming back to this controller, leads to."""
        await self.engine.start(plan)
        status = await self.reports.status(plan.run_id, lambda one: one.phase is Phase.ENDED)
        assert status.end is not None
        return status, status.end


@asynccontextmanager
async def controller(world: KubernetesWorld) -> AsyncIterator[Controller]:
    reports = Reports(patience_seconds=120)
    async with world.another_engine() as engine:
        following = asyncio.create_task(reports.follow(engine))
        try:
            yield Controller(engine, reports)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
async def unattended(cluster: Cluster, module_namespace: str, tmp_path: Path) -> AsyncIterator[KubernetesWorld]:
    """A world whose own engine never runs."""
    account = await asyncio.to_thread(make_account, cluster, module_namespace, tmp_path)
    async with host(cluster) as server:
        yield KubernetesWorld(cluster, module_namespace, server, account.kubeconfig)


async def end_alone(world: KubernetesWorld, plan: RunPlan) -> str:
    """The run begins, its controller goes, and its Job ends with nobody there; gives the Job's name."""
    async with controller(world) as first:
        await first.engine.start(plan)
    return await finished_job(world, plan)


async def finished_job(world: KubernetesWorld, plan: RunPlan) -> str:
    async def finished() -> str | None:
        job = await world.job(plan.run_id)
        assert job is not None, "the Job went before its result was sealed"
        conditions = {one["type"] for one in job["status"].get("conditions", ()) if one["status"] == "True"}
        return job["metadata"]["name"] if conditions & {"Complete", "Failed"} else None

    return str(await world.until(finished, 120))


async def let_go(world: KubernetesWorld, second: Controller, plan: RunPlan) -> None:
    world.engine = second.engine
    await released_without_trace(world, plan.run_id)


@pytest.mark.parametrize("output", OutputMode)
async def test_a_job_that_succeeded_alone_gives_its_output(unattended: KubernetesWorld, output: OutputMode) -> None:
    plan = unattended.plan(WORK, output=output, limits=soon_gone())
    await end_alone(unattended, plan)
    async with controller(unattended) as second:
        status, end = await second.ended(plan)
        assert (end.state, end.reason, end.message) == (State.SUCCEEDED, Reason.COMPLETED, "")
        assert end.output == OUTPUTS[output]
        assert attempts(status) == [(1, Reason.COMPLETED, 0)]
        assert status.attempts[0].termination == b"left"
        assert end.log_tail == b"printed\n"
        await let_go(unattended, second, plan)


@pytest.mark.parametrize("output", OutputMode)
async def test_a_job_that_failed_alone_gives_its_attempts_and_its_log(
    unattended: KubernetesWorld, output: OutputMode
) -> None:
    plan = unattended.plan(
        "echo no such table; exit 3", output=output, limits=soon_gone(backoff_limit=1), keep_log=False
    )
    await end_alone(unattended, plan)
    async with controller(unattended) as second:
        status, end = await second.ended(plan)
        assert (end.state, end.reason, end.output) == (State.FAILED, Reason.ERROR, None)
        assert end.message.startswith("ended with exit code 3 in attempt 2 of 2")
        assert attempts(status) == [(1, Reason.ERROR, 3), (2, Reason.ERROR, 3)]
        assert end.log_tail == b"no such table\n"
        await let_go(unattended, second, plan)


async def test_a_limit_that_passed_while_nobody_was_there_is_kept_later(unattended: KubernetesWorld) -> None:
    plan = unattended.plan(f"echo ready; {STAY}", limits=soon_gone(timeout_seconds=1, grace_seconds=1))
    async with controller(unattended) as first:
        await first.engine.start(plan)
    await unattended.until(lambda: unattended.alive(plan.run_id))
    async with controller(unattended) as second:
        status, end = await second.ended(plan)
        assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
        assert [(one.number, one.reason) for one in status.attempts] == [(1, Reason.TIMEOUT)]
        await let_go(unattended, second, plan)


async def test_the_end_is_the_same_for_every_controller_that_asks(unattended: KubernetesWorld) -> None:
    plan = unattended.plan(WORK, output=OutputMode.STDOUT, limits=soon_gone())
    await end_alone(unattended, plan)
    async with controller(unattended) as second, controller(unattended) as third:
        ends = await asyncio.gather(second.ended(plan), third.ended(plan))
        assert ends[0] == ends[1]
        await third.engine.release(plan.run_id)
        await let_go(unattended, second, plan)


async def test_a_release_that_was_cut_short_is_done_by_the_next(unattended: KubernetesWorld) -> None:
    """A controller dies between the ack and the release: whoever is asked next still finds the Job, and lets it go."""
    plan = unattended.plan(WORK, limits=soon_gone())
    async with controller(unattended) as first:
        await first.ended(plan)
    assert await left_of(unattended, plan.run_id) != []
    async with controller(unattended) as second:
        await second.ended(plan)
        await let_go(unattended, second, plan)


@pytest.mark.parametrize("output", OutputMode)
async def test_a_ttl_set_to_zero_by_hand_takes_the_pods_and_not_the_verdict(
    unattended: KubernetesWorld, output: OutputMode
) -> None:
    plan = unattended.plan(WORK, output=output, limits=soon_gone())
    await hurry(unattended, plan, await end_alone(unattended, plan))
    async with controller(unattended) as second:
        _, end = await second.ended(plan)
        if output is OutputMode.API:
            assert (end.state, end.reason) == (State.SUCCEEDED, Reason.COMPLETED)
        else:
            assert (end.state, end.reason, end.output) == (State.LOST, Reason.ENGINE, None)
            assert end.message == "ended well, but its pod was removed before its output could be read"
        await let_go(unattended, second, plan)


async def test_a_ttl_set_to_zero_by_hand_after_a_failure(unattended: KubernetesWorld) -> None:
    plan = unattended.plan("exit 3", limits=soon_gone())
    await hurry(unattended, plan, await end_alone(unattended, plan))
    async with controller(unattended) as second:
        _, end = await second.ended(plan)
        assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
        assert end.message == "its Job failed: Job has reached the specified backoff limit"
        await let_go(unattended, second, plan)


async def test_a_ttl_set_to_zero_by_hand_while_the_engine_watches(unattended: KubernetesWorld) -> None:
    """It remembers what the pod was."""
    plan = unattended.plan("echo no such table; exit 3", limits=soon_gone())
    async with controller(unattended) as only:
        status, end = await only.ended(plan)
        await hurry(unattended, plan, await finished_job(unattended, plan))
        again, same = await only.ended(plan)
        assert (again, same) == (status, end)
        assert attempts(status) == [(1, Reason.ERROR, 3)]
        await let_go(unattended, only, plan)


async def hurry(world: KubernetesWorld, plan: RunPlan, job: str) -> None:
    """Somebody sets the Job's TTL to 0; waits until its pods are gone. The Job is still there then."""
    await world.patch("job", job, {"spec": {"ttlSecondsAfterFinished": 0}})

    async def no_pods() -> bool:
        return not await world.pods(plan.run_id)

    await world.until(no_pods)
    assert await world.job(plan.run_id) is not None


async def test_what_an_uninstalled_invoker_left_is_removed_by_one_command(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """Jobs that wait for a controller, running ones, and code: by the command of docs/kubernetes.md."""
    await asyncio.to_thread(build_python_image, cluster)
    account = await asyncio.to_thread(make_account, cluster, namespace, tmp_path)
    async with host(cluster) as server:
        world = KubernetesWorld(cluster, namespace, server, account.kubeconfig)
        other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "somebody-elses"}}
        await world.apply(other)
        over, live = world.plan("exit 0"), world.plan(STAY)
        inline = world.code(Code(runtime="python", handler="main.handle", inline="def handle(e, c): pass"))
        async with controller(world) as only:
            for plan in (over, live, inline):
                await only.engine.start(plan)
        await finished_job(world, over)
        await world.until(lambda: world.alive(live.run_id))
        command = PAGE.read_text().split("<!-- command: remove-all -->\n```sh\n")[1].split("```")[0]
        await asyncio.to_thread(in_a_shell, cluster, command, namespace)

        async def nothing() -> bool:
            return not await world.get("jobs,pods,configmaps", "-l", "app.kubernetes.io/managed-by=invoker")

        await world.until(nothing)
        assert "somebody-elses" in await world.kubectl("get", "configmaps", "-o", "name")


def in_a_shell(cluster: Cluster, command: str, namespace: str) -> None:
    path = f"{cluster.kubectl_path.parent}:{os.environ['PATH']}"
    environ = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path, "NAMESPACE": namespace}
    subprocess.run(["sh", "-c", command], env=environ, check=True, timeout=120)
