"""What a run leaves in the cluster, for tests that it is nothing."""

from __future__ import annotations

from tests.cluster.engine_world import KubernetesWorld
from trigger.engine import RunStatus
from trigger.plan import Limits

TOLD = list[tuple[int, str | None, int | None]]


def soon_gone(**limits: object) -> Limits:
    """Limits with which a Job goes as soon as it is released."""
    return Limits(**({"ttl_seconds_after_finished": 0.0} | limits))  # type: ignore[arg-type] # checked by the tests


def attempts(status: RunStatus) -> TOLD:
    """Number, reason and exit code of each attempt."""
    return [(one.number, one.reason, one.exit_code) for one in status.attempts]


async def left_of(world: KubernetesWorld, run_id: str) -> list[str]:
    """Job, pods and claims of a run that are still there."""
    found = await world.get("jobs,pods,persistentvolumeclaims", "-l", f"invoker.dev/run={run_id}")
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


async def released_without_trace(world: KubernetesWorld, run_id: str) -> None:
    """Release a run; afterwards nothing of it is there, and that soon."""
    await world.engine.release(run_id)
    left: list[str] = []

    async def nothing() -> bool:
        left[:] = await left_of(world, run_id)
        return not left

    try:
        await world.until(nothing)
    except TimeoutError:
        raise AssertionError(f"still there after the release: {left}") from None
