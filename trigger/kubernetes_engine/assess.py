"""A run's Job and pods → its level, what to do about it, and when to look again. Pure: the clock comes in.

This is the engine's one decision, made anew from what is there whenever something changed or a time has come. It keeps
nothing: whichever controller looks at a Job comes to the same conclusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from invoker.result import Reason
from trigger import endings
from trigger.engine import AttemptStatus, Phase
from trigger.kubernetes_engine.attempts import attempts_of, number_allowed
from trigger.kubernetes_engine.status import ContainerView, JobEnd, JobView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms

CLOCK_SECONDS = 1.0
"""The API server tells the start of a container in whole seconds, rounded down."""
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"}
_IMAGE_FOR_EVER = {"InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


class Todo(Enum):
    """What is to be done about a run now."""

    NOTHING = auto()
    STOP = auto()
    """Leave the word `stop` on its Job: a limit was passed."""
    DELETE_PODS = auto()
    """Its Job was deleted: `pods` must not work on."""
    FORCE_PODS = auto()
    """`pods` should long be gone, and their node does not answer."""
    EXPLAIN = auto()
    """It has no pod: ask why, and end it when it never will have one."""
    CONCLUDE = auto()
    """Nothing of it lives: make its end."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long trouble may last before it ends a run, in seconds, where the function sets no limit of its own."""

    config_seconds: float = 10.0
    image_seconds: float = 60.0
    mount_seconds: float = 60.0
    node_lost_seconds: float = 60.0
    podless_seconds: float = 60.0
    """A Job without a pod is asked about after so long, and then again."""
    others_seconds: float = 60.0
    """Other containers than the function's may end so much later than that, whatever its own limit is."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The level of a run (`phase` is never ENDED here: an end has to be made first) and what follows from it."""

    phase: Phase
    attempts: tuple[AttemptStatus, ...]
    todo: Todo = Todo.NOTHING
    stop: Stop | None = None
    pods: tuple[PodView, ...] = ()
    look_again_at: datetime | None = None


def assess(
    job: JobView,
    pods: Sequence[PodView],
    *,
    is_gone: bool,
    now: datetime,
    rules: Rules,
    asked_at: datetime | None = None,
) -> Assessment:
    """The level of a run whose Job was last seen as `job`; `is_gone`: it is no longer there; `asked_at`: when it was
    asked last why it has no pod."""
    attempts = attempts_of(pods, job.terms, job.stop)
    phase = Phase.RUNNING if any(one.started_at is not None for one in attempts) else Phase.PENDING
    live = tuple(pod for pod in pods if not pod.is_over)
    todo = _ended(job, pods, live, is_gone=is_gone)
    if todo is not None:
        return Assessment(phase, attempts, todo[0], pods=todo[1])
    moment = _Moment(now)
    if job.stop is None:
        stop = _limit(job, pods, live, len(attempts), moment, rules)
        if stop is not None:
            return Assessment(phase, attempts, Todo.STOP, stop)
        if not pods and not job.is_suspended and moment.after(asked_at or job.created_at, _podless(job, rules)):
            return Assessment(phase, attempts, Todo.EXPLAIN, look_again_at=moment.next)
    else:
        hung = tuple(pod for pod in live if _is_hung(pod, moment, rules))
        if hung:
            return Assessment(phase, attempts, Todo.FORCE_PODS, pods=hung)
    return Assessment(phase, attempts, look_again_at=moment.next)


def _ended(
    job: JobView, pods: Sequence[PodView], live: tuple[PodView, ...], *, is_gone: bool
) -> tuple[Todo, tuple[PodView, ...]] | None:
    if job.end is not None:
        return Todo.CONCLUDE, ()
    if is_gone or job.is_deleting:
        # Its pods are nobody's: the Job's controller makes no others, and ours is the finalizer that keeps it.
        spared = tuple(pod for pod in live if pod.is_deleting_until is None)
        if spared:
            return Todo.DELETE_PODS, spared
        return (Todo.NOTHING, ()) if live else (Todo.CONCLUDE, ())
    if job.stop is not None and job.is_suspended and not live:
        return Todo.CONCLUDE, ()  # a queue holds it back, so it never began; its release deletes it
    if job.stop is None and not live and any(pod.phase == "Succeeded" for pod in pods):
        return Todo.CONCLUDE, ()  # before Kubernetes has counted it: a second sooner
    return None


def _podless(job: JobView, rules: Rules) -> float:
    return min(rules.podless_seconds, max(1.0, job.terms.pending_timeout_seconds))


class _Moment:
    """Now, and the first of the instants that were asked for and are still to come."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.next: datetime | None = None

    def has_come(self, at: datetime) -> bool:
        if at <= self.now:
            return True
        self.next = at if self.next is None else min(self.next, at)
        return False

    def after(self, start: datetime, seconds: float) -> bool:
        try:
            return self.has_come(start + timedelta(seconds=seconds))
        except OverflowError:
            return False  # a limit beyond the end of all calendars is none


def _limit(
    job: JobView, pods: Sequence[PodView], live: tuple[PodView, ...], number: int, moment: _Moment, rules: Rules
) -> Stop | None:
    """The limit that the run has passed, as the word to leave on its Job."""
    if job.deadline_at is not None and moment.has_come(job.deadline_at):
        end = endings.stopped(Reason.TIMEOUT, number)
        return Stop(Reason.TIMEOUT, end.message)
    which = endings.which_attempt(max(number, 1), number_allowed(pods, job.terms))
    for pod in live:
        stop = _pod_limit(pod, job.terms, which, moment, rules)
        if stop is not None:
            return stop
    return None


def _pod_limit(pod: PodView, terms: Terms, which: str, moment: _Moment, rules: Rules) -> Stop | None:
    if pod.is_deleting_until is not None:
        if _is_hung(pod, moment, rules):
            return Stop(Reason.NODE_LOST, f"its node does not answer, in {which}")
        return None
    if pod.main.started_at is not None:
        return _running_limit(pod.main, pod.main.started_at, terms.timeout_seconds, which, moment, rules)
    if pod.main.has_ended or pod.failed_init is not None:
        return None  # a moment before its phase says so
    reason, words, seconds = _trouble(pod, terms, rules)
    limit = terms.pending_timeout_seconds
    patience = limit if seconds is None else min(limit, seconds)
    if moment.after(pod.created_at, patience):
        since = f"had not started after {patience:g} s" if patience else "cannot start"
        return Stop(reason, f"{since}: {words}"[:1000])
    return None


def _running_limit(
    main: ContainerView, started_at: datetime, limit: float | None, which: str, moment: _Moment, rules: Rules
) -> Stop | None:
    if limit is None or not moment.after(started_at, limit + CLOCK_SECONDS):
        return None
    if not main.has_ended:
        # As far as is known: a kubelet may tell late of an end that was in time (`attempts.ended_in_time`).
        return Stop(Reason.TIMEOUT, endings.timeout_sentence(limit, which), is_limit=True)
    if moment.after(main.finished_at or started_at, rules.others_seconds):
        return Stop(Reason.TIMEOUT, f"{endings.timeout_sentence(limit, which)}: another container of its pod runs on")
    return None  # sidecars are given their time to end


def _is_hung(pod: PodView, moment: _Moment, rules: Rules) -> bool:
    return pod.is_deleting_until is not None and moment.after(pod.is_deleting_until, rules.node_lost_seconds)


def _trouble(pod: PodView, terms: Terms, rules: Rules) -> tuple[Reason, str, float | None]:
    """Why a pod has not started, in words, and how long that may last; None: as long as anything may."""
    if pod.unschedulable is not None:
        return Reason.UNSCHEDULABLE, f"no node takes its pod: {pod.unschedulable}", None
    waiting = pod.stuck_init or pod.main
    words = f"{waiting.waiting_reason}: {waiting.waiting_message}".rstrip(": ")
    if waiting.waiting_reason in _IMAGE_FOR_EVER:
        return Reason.IMAGE_PULL, words, 0.0
    if waiting.waiting_reason in _IMAGE:
        return Reason.IMAGE_PULL, words, rules.image_seconds if _is_missing(waiting) else None
    if waiting.waiting_reason in _CONFIG:
        return Reason.CONFIG, words, rules.config_seconds
    if pod.is_mounting and terms.mounts:
        text = f"its volumes are not there; they need {terms.mounts}: does each of them exist in its namespace?"
        return Reason.CONFIG, text, None if terms.has_volume else rules.mount_seconds
    return Reason.PENDING_TIMEOUT, words or "its pod is pending", None


def _is_missing(waiting: ContainerView) -> bool:
    """Whether a registry said for certain that it has no such image, or not for us."""
    text = waiting.waiting_message.lower()
    return any(word in text for word in ("not found", "manifest unknown", "denied", "unauthorized"))


def is_success(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether the run did what it should, as Kubernetes sees it."""
    return job.end is JobEnd.COMPLETE or (job.end is None and any(pod.phase == "Succeeded" for pod in pods))
