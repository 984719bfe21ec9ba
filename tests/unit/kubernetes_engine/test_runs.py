"""The table of runs and the mirrors, fed by hand: orders of news that a cluster gives now and then, in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from invoker.result import State
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Kind
from trigger.kubernetes_engine.background import Background
from trigger.kubernetes_engine.failures import no_answer
from trigger.kubernetes_engine.runs import Care, Runs
from trigger.kubernetes_engine.status import Stop
from trigger.kubernetes_engine.terms import Terms, write
from trigger.kubernetes_engine.watch import Mirror
from trigger.kubernetes_engine.watching import WatchEvent

RUN = "a" * 26


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(
    run_id: str = RUN, *, complete: bool = False, held: bool = True, version: int = 100, **notes: str
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"inv-{run_id}", "uid": "u", "resourceVersion": str(version), "creationTimestamp": at(-55),
            "labels": {names.INSTANCE: "inv", names.RUN: run_id},
            "annotations": {names.RUN: run_id, names.TERMS: write(Terms(function="f", backoff_limit=1)), **notes},
            "finalizers": [names.RESULT_FINALIZER] if held else [],
        },
        "spec": {},
        "status": {"conditions": [{"type": "Complete", "status": "True"}]} if complete else {},
    }  # fmt: skip


def pod(name: str, created: float, exit_code: int | None, run_id: str = RUN) -> dict[str, Any]:
    running: dict[str, Any] = {"running": {"startedAt": at(created + 1)}}
    ended = {"terminated": {"exitCode": exit_code, "startedAt": at(created + 1), "finishedAt": at(created + 2)}}
    phase = "Running" if exit_code is None else "Failed" if exit_code else "Succeeded"
    return {
        "metadata": {
            "name": f"inv-{run_id}-{name}", "uid": name, "resourceVersion": "90", "creationTimestamp": at(created),
            "labels": {names.INSTANCE: "inv", names.RUN: run_id, names.JOB: f"inv-{run_id}"},
        },
        "spec": {"containers": [{"name": names.FUNCTION_CONTAINER}]},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {"name": names.FUNCTION_CONTAINER, "state": running if exit_code is None else ended}
            ],
        },
    }  # fmt: skip


class Cluster:
    """The little of an API server that a table of runs asks for; `hold` keeps its answers back."""

    namespace = "ns"

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.patches: list[bytes] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def list(self, kind: Kind, selector: str) -> AsyncIterator[dict[str, Any]]:
        await self.answering.wait()
        for one in self.pods:
            yield one

    async def patch_job(self, name: str, patch: bytes) -> dict[str, Any] | None:
        await self.answering.wait()
        self.patches.append(patch)
        return job(version=101, **{names.STOP: '{"reason":"cancelled","message":""}'})

    async def delete_pod(self, name: str, **_: Any) -> bool:
        return True


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def runs(cluster: Cluster) -> AsyncIterator[Runs]:
    background = Background()
    table = Runs(cluster, Care("inv"), background, lambda: datetime.now(UTC))  # type: ignore[arg-type]  # what it asks for
    yield table
    table.close()
    await background.close(patience_seconds=0)


async def until(fits: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not fits():
            await asyncio.sleep(0.005)


async def test_all_attempts_are_told_whatever_order_the_pods_are_listed_in(runs: Runs, cluster: Cluster) -> None:
    """A list gives pods by name: the second attempt may come before the first, and the Job is complete already."""
    first, second = pod("zzzzz", -50, 1), pod("aaaaa", -30, 0)
    cluster.pods = [second, first]
    runs.job_seen(job(complete=True))
    run = runs.get(RUN)
    assert run is not None
    runs.claim(run)
    runs.pod_seen(second)
    runs.pod_seen(first)
    runs.pods_listed({one["metadata"]["name"] for one in (first, second)})
    await until(lambda: run.end is not None)
    assert run.end is not None
    assert run.told is not None
    assert run.end.state is State.SUCCEEDED
    assert [one.exit_code for one in run.told.attempts] == [1, 0]


async def test_nothing_is_kept_of_runs_that_were_released(runs: Runs) -> None:
    for number in range(50):
        run_id = f"{number:026d}"
        runs.job_seen(job(run_id))
        if number % 2:  # its pod goes before the release
            runs.pod_seen(pod("p", -5, 0, run_id))
            runs.pod_seen(pod("p", -5, 0, run_id), is_gone=True)
        runs.release(run_id)
        runs.job_seen(job(run_id, held=False, version=101), is_gone=True)
    assert (len(runs._runs), len(runs._pods), len(runs._released)) == (0, 0, 0)


async def test_code_is_doubted_when_a_run_misses_what_it_mounts(cluster: Cluster) -> None:
    doubted: list[str] = []
    background = Background()
    runs = Runs(cluster, Care("inv"), background, lambda: datetime.now(UTC), doubted.append)  # type: ignore[arg-type]
    missed = job(**{
        names.TERMS: write(Terms(function="f", code="inv-code-x")),
        names.STOP: '{"reason":"config","message":"its volumes are not there"}',
    })  # fmt: skip
    missed["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    runs.pods_listed(set())
    runs.job_seen(missed)
    run = runs.get(RUN)
    assert run is not None
    runs.claim(run)
    await until(lambda: run.end is not None)
    assert doubted == ["inv-code-x"]
    runs.close()
    await background.close(patience_seconds=0)


async def test_a_stop_is_remembered_while_something_else_is_under_way(runs: Runs, cluster: Cluster) -> None:
    runs.pods_listed(set())
    runs.job_seen(job(complete=False))
    run = runs.get(RUN)
    assert run is not None
    cluster.answering.clear()
    runs._begin(run, cluster.answering.wait)
    runs.stop(run, Stop("cancelled"))
    assert cluster.patches == []
    cluster.answering.set()
    await until(lambda: bool(cluster.patches))


class Watched:
    """An API whose watches the test ends as it likes."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.broken = True
        self.end: Callable[[], bool] = lambda: False

    def list(self, kind: Kind, selector: str) -> Any:
        class Listing:
            resource_version = "1"

            def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
                return self._none()

            async def _none(self) -> AsyncIterator[dict[str, Any]]:
                return
                yield {}

        return Listing()

    async def watch(
        self, kind: Kind, selector: str, version: str, opened: Callable[[], None]
    ) -> AsyncIterator[WatchEvent]:
        self.begun.append(asyncio.get_running_loop().time())
        if self.broken:
            raise no_answer("cut")
        opened()
        while not self.end():
            await asyncio.sleep(0.005)
        return
        yield WatchEvent("BOOKMARK", {})


@pytest.fixture
async def mirrored() -> AsyncIterator[tuple[Watched, Mirror]]:
    api = Watched()
    mirror = Mirror(api, Kind.JOB, "", lambda item, *, is_gone=False: None, lambda there: None)  # type: ignore[arg-type]
    task = asyncio.create_task(mirror.follow())
    yield api, mirror
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_mirror_is_well_as_soon_as_its_watch_is_open(mirrored: tuple[Watched, Mirror]) -> None:
    """And not at the first event, which in a quiet cluster is a bookmark a minute later."""
    api, mirror = mirrored
    await until(lambda: bool(api.begun) and mirror.problem is not None)
    api.broken = False
    await until(lambda: mirror.problem is None)


async def test_watches_that_end_at_once_are_not_begun_without_a_pause(mirrored: tuple[Watched, Mirror]) -> None:
    api, mirror = mirrored
    api.broken, api.end = False, lambda: True
    await until(lambda: len(api.begun) > 3)
    assert api.begun[3] - api.begun[2] > 0.1, "the pause has grown by then"
    assert mirror.problem is not None
