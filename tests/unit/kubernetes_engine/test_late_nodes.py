"""A busy node tells late that a pod has ended that was told to: what the pod was told, and when, is as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from invoker.result import Reason
from tests.unit.kubernetes_engine.objects import at, ended, made_pod, recorded_pod
from trigger.kubernetes_engine.attempts import attempts_of
from trigger.kubernetes_engine.status import PodView, Stop, pod_view, still
from trigger.kubernetes_engine.terms import Terms


def deleted(asked: float, until: float, grace: int) -> PodView:
    """A recorded pod whose container ended at second 12, told to end with a grace of 1 s, as a version of it shows."""
    item: dict[str, Any] = recorded_pod("failed_second")
    stamps = {"deletionTimestamp": at(until).isoformat(), "deletionGracePeriodSeconds": grace}
    item["metadata"] |= stamps
    item["spec"]["terminationGracePeriodSeconds"] = 1
    found = pod_view(item)
    assert found is not None
    return replace(found, main=ended(143, started=1, finished=12))


def test_the_moment_at_which_its_end_was_asked_for_stays_the_first() -> None:
    first, last = deleted(10, until=11, grace=1), deleted(10, until=16, grace=0)
    assert first.deleted_at == at(10)
    assert last.deleted_at == at(15), "the API server has forgotten it"
    assert still(last, first).deleted_at == at(10)
    assert still(last, None) == last
    assert still(last, replace(first, uid="another pod of that name")) == last


def test_a_pod_that_somebody_deleted_is_an_attempt_that_was_deleted() -> None:
    (attempt,) = attempts_of([still(deleted(10, until=16, grace=0), deleted(10, until=11, grace=1))], Terms(), None)
    assert attempt.reason is Reason.DELETED


def test_an_init_container_that_was_stopped_is_no_attempt() -> None:
    """Also for a controller that has seen the last version only: the Job has when it was told to end."""
    late = made_pod(
        phase="Failed", failed_init=("slow", ended(137, started=1, finished=12)), deleted_at=at(15),
        is_deleting_until=at(16), gone=True,
    )  # fmt: skip
    assert attempts_of([late], Terms(), Stop(str(Reason.PENDING_TIMEOUT), at=at(10))) == ()
    by_itself = replace(late, failed_init=("slow", ended(4, started=1, finished=8)))
    assert len(attempts_of([by_itself], Terms(), Stop(str(Reason.PENDING_TIMEOUT), at=at(10)))) == 1
