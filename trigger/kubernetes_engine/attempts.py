"""Pods → attempts, each with its reason and a sentence. Pure.

An attempt is a pod whose container ran, or failed to. A pod that only waited was none; one that Kubernetes took away
(drain, preemption, a node that went) is told, but does not count against `backoffLimit`, as in the Job itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from invoker.result import Reason
from trigger import endings
from trigger.engine import AttemptStatus
from trigger.kubernetes_engine.status import ContainerView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms

NODE_LOST = {"DeletionByTaintManager", "DeletionByPodGC"}
"""Reasons of the pod condition `DisruptionTarget` that tell of a node that is gone (Kubernetes, Pod disruptions)."""
NOT_STARTED = {"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError"}
"""Why a container ended that never ran: its program is not there, or cannot be executed."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_UNKNOWN, _RAN_ONCE = "ContainerStatusUnknown", "used to be Running"
"""What the kubelet says of a container that it cannot find when its pod ends: with these words it had run, without them
it was still waiting."""
_TOLD_TO_END = {128 + 9, 128 + 15}
"""Exit codes of a process that was killed, or that a SIGTERM ended."""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended; `counts` says whether it used up one of those that `backoffLimit` allows."""

    reason: Reason
    message: str
    counts: bool = True


def is_attempt(pod: PodView) -> bool:
    """Whether the pod tried: its container ran or could not be started, an init container failed, or it was taken."""
    return pod.main.started_at is not None or _has_ended(pod.main) or pod.failed_init is not None or _was_taken(pod)


def _was_stopped_before_it_tried(pod: PodView, stop: Stop) -> bool:
    """Whether its init container ended only because the whole pod was told to: it was no failure of its own."""
    if pod.main.started_at is not None or pod.failed_init is None or pod.deleted_at is None:
        return False
    finished_at = pod.failed_init[1].finished_at
    return finished_at is None or finished_at >= (stop.at or pod.deleted_at)


def _has_ended(container: ContainerView) -> bool:
    """Whether the container ended, and not only its waiting."""
    return container.has_ended and (container.end_reason != _UNKNOWN or _RAN_ONCE in container.message)


def ordered(pods: Sequence[PodView]) -> list[PodView]:
    """The pods of a run in the order of their creation, which is told in whole seconds: within one, a pod that is over
    comes before one that lives, and of two that are over the one that ended first."""
    return sorted(pods, key=_place)


def _place(pod: PodView) -> tuple[datetime, bool, datetime, str]:
    return pod.created_at, not pod.is_over, pod.main.finished_at or _NEVER, pod.name


def number_allowed(pods: Sequence[PodView], terms: Terms) -> int:
    """How many attempts the run may have by now: those that were taken away come on top."""
    return terms.attempts_allowed + sum(_is_uncounted(pod) for pod in pods)


def attempts_of(pods: Sequence[PodView], terms: Terms, stop: Stop | None) -> tuple[AttemptStatus, ...]:
    """The attempts so far, numbered from 1 in the order of their pods."""
    found: list[AttemptStatus] = []
    inorder = ordered(pods)
    for position, pod in enumerate(inorder):
        # Pods of a run follow each other, so only the last one can have ended because the run was told to.
        told = stop if position == len(inorder) - 1 else None
        if not is_attempt(pod) or (told is not None and _was_stopped_before_it_tried(pod, told)):
            continue
        number = len(found) + 1
        which = endings.which_attempt(number, number_allowed(inorder[:position], terms))
        end = attempt_end(pod, which, terms, told)
        found.append(_status(number, pod, end))
    return tuple(found)


def attempt_end(pod: PodView, which: str, terms: Terms, stop: Stop | None) -> AttemptEnd | None:
    """What the pod's end means, None while it runs. The first rule that fits decides."""
    if not pod.is_over and not pod.main.has_ended and pod.failed_init is None:
        return None
    if stop is not None and (pod.is_deleting_until is not None or pod.gone):
        return _main_ended(pod.main, which, terms) if ended_in_time(pod, stop) else _stopped(stop, which)
    if _is_uncounted(pod):
        return _taken(pod, which)
    if pod.reason == "Evicted":
        return AttemptEnd(Reason.EVICTED, f"was evicted from its node in {which}: {pod.message}".rstrip(" :")[:500])
    if pod.reason == "DeadlineExceeded":
        return AttemptEnd(Reason.TIMEOUT, endings.timeout_sentence(terms.timeout_seconds, which))
    if pod.failed_init is not None:
        return _init_failed(*pod.failed_init, which, terms)
    if pod.main.has_ended and not _failed_without_main(pod):
        end = _main_ended(pod.main, which, terms)
        return _deleted(which) if end.reason is Reason.ERROR and _ended_by_deletion(pod) else end
    if pod.gone or pod.is_deleting_until is not None:
        return _deleted(which)
    if pod.phase == "Succeeded":
        return AttemptEnd(Reason.COMPLETED, "")
    words = ": ".join(part for part in (pod.reason, pod.message) if part) or "no container says why"
    return AttemptEnd(Reason.ERROR, f"its pod failed in {which}: {words}"[:500])


def ended_in_time(pod: PodView, stop: Stop) -> bool:
    """Whether a pod that was told to end because of its limit had ended by itself before that, which only came to be
    known later: a busy node tells late. Moments are told in whole seconds; within one it is taken to have been told."""
    finished_at, asked_at = pod.main.finished_at, stop.at or pod.deleted_at
    may_be_told = pod.main.exit_code in _TOLD_TO_END and pod.main.end_reason != "OOMKilled"
    if not stop.is_limit or finished_at is None or may_be_told:
        return False
    return finished_at < asked_at if asked_at is not None else not pod.gone


def _is_uncounted(pod: PodView) -> bool:
    """Whether it was taken away before it was done, which Kubernetes does not count."""
    if pod.disruption is None or not (pod.is_over or pod.main.has_ended):
        return False
    return pod.main.exit_code != 0 or pod.phase == "Failed"


def _failed_without_main(pod: PodView) -> bool:
    """Whether the function's container ended well and its pod did not: another container of it failed."""
    return pod.main.exit_code == 0 and pod.phase == "Failed"


def _ended_by_deletion(pod: PodView) -> bool:
    """Whether the container ended after somebody had asked for the end of its pod, and so because of that."""
    finished_at = pod.main.finished_at
    return pod.deleted_at is not None and (finished_at is None or finished_at >= pod.deleted_at)


def _deleted(which: str) -> AttemptEnd:
    return AttemptEnd(Reason.DELETED, f"its pod was deleted in {which} (not by Invoker)")


def _was_taken(pod: PodView) -> bool:
    return pod.is_over and (pod.disruption is not None or pod.reason == "Evicted")


def _status(number: int, pod: PodView, end: AttemptEnd | None) -> AttemptStatus:
    container = pod.main if pod.failed_init is None else pod.failed_init[1]
    is_note = container.end_reason not in NOT_STARTED
    return AttemptStatus(
        number=number,
        started_at=container.started_at,
        finished_at=container.finished_at or (pod.is_deleting_until if pod.gone else None),
        exit_code=container.exit_code,
        reason=end.reason if end else None,
        message=end.message if end else "",
        termination=container.termination if is_note else b"",
    )


def _stopped(stop: Stop, which: str) -> AttemptEnd:
    reason = endings.stopped(stop.reason, 0).reason
    words = endings.deadline_sentence(which) if reason is Reason.TIMEOUT else f"stopped in {which}"
    return AttemptEnd(reason, stop.message or words)


def _taken(pod: PodView, which: str) -> AttemptEnd:
    if pod.disruption in NODE_LOST:
        return AttemptEnd(Reason.NODE_LOST, f"its node was lost in {which} ({pod.disruption})", counts=False)
    return AttemptEnd(Reason.EVICTED, f"was taken from its node in {which} ({pod.disruption})", counts=False)


def _init_failed(name: str, container: ContainerView, which: str, terms: Terms) -> AttemptEnd:
    end = _main_ended(container, which, terms)
    return AttemptEnd(end.reason, f"the init container {name}: {end.message}")


def _main_ended(container: ContainerView, which: str, terms: Terms) -> AttemptEnd:
    exit_code = container.exit_code or 0
    if exit_code == 0:
        return AttemptEnd(Reason.COMPLETED, "")
    if container.end_reason in NOT_STARTED:
        return AttemptEnd(Reason.CONFIG, f"could not be started in {which}: {container.message}"[:1000])
    note = endings.read_note(container.termination)
    if container.end_reason == "OOMKilled" or endings.noted_out_of_memory(note):
        return AttemptEnd(Reason.OUT_OF_MEMORY, endings.memory_sentence(terms.memory_bytes, which))
    if note:
        return AttemptEnd(*endings.noted(note, which))
    if 128 < exit_code <= 128 + 64:
        return AttemptEnd(Reason.ERROR, _signalled(exit_code, which))
    return AttemptEnd(Reason.ERROR, endings.exit_sentence(exit_code, which))


def _signalled(exit_code: int, which: str) -> str:
    return f"{endings.exit_sentence(exit_code, which)}, as {endings.signal_name(exit_code - 128)} gives it"
