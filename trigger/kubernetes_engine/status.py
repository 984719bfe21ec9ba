"""Jobs and pods of the API server as small values: what the engine decides from, and nothing else of them. Pure.

Whatever an object lacks or has in another shape reads as "not there": a status is often incomplete, and a controller
must not end for an object that somebody wrote by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from invoker import wire
from invoker.result import Reason
from trigger.kubernetes_engine import names, terms
from trigger.kubernetes_engine.terms import Terms

Object = Mapping[str, Any]

TERMINATION_BYTES, POD_TERMINATION_BYTES = 4096, 12 * 1024
"""What the kubelet keeps of one container's termination message, and of those of all containers of a pod, in equal
shares."""
_MAX_STOP_CHARACTERS, _MAX_DIGITS = 2000, 30


class JobEnd(StrEnum):
    """The condition a finished Job has."""

    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Stop:
    """Word left on a Job that its run is to end, and why; any controller may have left it. `is_limit`: an attempt was
    taken to have run longer than it may; `at`: Kubernetes began to end the Job's pods then."""

    reason: str
    message: str = ""
    is_limit: bool = False
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """One Job. `is_held`: our finalizer is on it, so its result is not sealed; `is_deleting`: somebody deleted it.
    `is_suspended`: a queue holds it back. `printed` is how its output begins, where it is large. `version` grows with
    every change of the object."""

    name: str
    uid: str
    run_id: str
    terms: Terms
    created_at: datetime
    end: JobEnd | None = None
    end_reason: str = ""
    end_message: str = ""
    deadline_at: datetime | None = None
    is_held: bool = True
    is_deleting: bool = False
    is_suspended: bool = False
    stop: Stop | None = None
    spec_hash: str = ""
    catalog: str = ""
    printed: str = ""
    version: int = 0
    request_id: str = ""
    function: str = ""
    traceparent: str | None = None

    def ids(self) -> dict[str, str]:
        """For log lines: which run's Job this is, and its trace where it has one."""
        found = {"request_id": self.request_id, "run_id": self.run_id, "function": self.function, "job": self.name}
        return found | wire.trace_ids(self.traceparent)


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container: waiting for a reason, running since, or ended with an exit code."""

    waiting_reason: str = ""
    waiting_message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    end_reason: str = ""
    message: str = ""

    @property
    def has_ended(self) -> bool:
        return self.exit_code is not None

    @property
    def termination(self) -> bytes:
        """What it left in its termination file; Kubernetes keeps that as text, whatever the bytes were."""
        return self.message.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod, that is one attempt. `failed_init` is the init container that ended badly, so that the function's own
    never began, `stuck_init` the first one that waits for more than its turn; `is_mounting`: its node has it, and its
    volumes or its network are not ready. `termination_bytes`: a termination message so long may have been cut.
    `deleted_at`: somebody asked for its end then, which has time `is_deleting_until`; `gone`: the object is no longer
    there."""

    name: str
    uid: str
    run_id: str
    created_at: datetime
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    main: ContainerView = ContainerView()
    failed_init: tuple[str, ContainerView] | None = None
    stuck_init: ContainerView | None = None
    unschedulable: str | None = None
    is_mounting: bool = False
    disruption: str | None = None
    deleted_at: datetime | None = None
    is_deleting_until: datetime | None = None
    termination_bytes: int = TERMINATION_BYTES
    gone: bool = False
    version: int = 0

    @property
    def is_over(self) -> bool:
        """Nothing of it runs any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def started_at(self) -> datetime | None:
        return self.main.started_at


def job_view(job: Object) -> JobView | None:
    """The Job as a value; None for one that is no run's."""
    metadata = _map(job.get("metadata"))
    annotations = _map(metadata.get("annotations"))
    run_id = annotations.get(names.RUN)
    if not isinstance(run_id, str) or not run_id:
        return None
    status = _map(job.get("status"))
    end = _job_end(status)
    finalizers = metadata.get("finalizers")
    return JobView(
        name=_text(metadata, "name"),
        uid=_text(metadata, "uid"),
        run_id=run_id,
        terms=terms.read(_text(annotations, names.TERMS)),
        created_at=instant(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        end=end[0] if end else None,
        end_reason=end[1] if end else "",
        end_message=end[2] if end else "",
        deadline_at=instant(annotations.get(names.DEADLINE)),
        is_held=isinstance(finalizers, list) and names.RESULT_FINALIZER in finalizers,
        is_deleting=metadata.get("deletionTimestamp") is not None,
        is_suspended=_map(job.get("spec")).get("suspend") is True,
        stop=_told(_stop(annotations.get(names.STOP)) or _overdue(end), status),
        spec_hash=sys.intern(_text(annotations, names.SPEC)),
        catalog=sys.intern(_text(annotations, names.CATALOG)),
        printed=_text(annotations, names.PRINTED),
        version=_version(metadata),
        request_id=_text(annotations, names.REQUEST),
        function=sys.intern(_text(_map(metadata.get("labels")), names.FUNCTION)),
        traceparent=_text(annotations, names.TRACEPARENT) or None,
    )


def run_job(job: Object, instance: str, run_id: str | None = None) -> JobView | None:
    """The Job as a value, if it is that of a run of this instance (of this very run): not one that merely has the
    name, nor a copy of it under another name."""
    view = job_view(job)
    if view is None or view.run_id != (run_id or view.run_id):
        return None
    owner = _map(_map(job.get("metadata")).get("labels")).get(names.INSTANCE)
    return view if owner == instance and view.name == names.job_name(instance, view.run_id) else None


def stop_annotation(stop: Stop) -> str:
    word = {"reason": stop.reason, "message": stop.message} | ({"limit": True} if stop.is_limit else {})
    return json.dumps(word, ensure_ascii=False, separators=(",", ":"))


def pod_view(pod: Object) -> PodView | None:
    """The pod as a value; None for one that belongs to no run."""
    metadata, status = _map(pod.get("metadata")), _map(pod.get("status"))
    labels = _map(metadata.get("labels"))
    run_id = labels.get(names.RUN)
    if not isinstance(run_id, str) or not run_id:
        return None
    job = _text(labels, names.JOB)
    if job and not job.endswith(f"-{run_id}"):
        return None  # of a copy that somebody made of the run's Job
    conditions = {_text(one, "type"): one for one in _list(status.get("conditions"))}
    scheduled, target = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    initial = [(_text(one, "name"), _container(one)) for one in _list(status.get("initContainerStatuses"))]
    main, spec = _main(status), _map(pod.get("spec"))
    return PodView(
        name=_text(metadata, "name"),
        uid=_text(metadata, "uid"),
        run_id=run_id,
        created_at=instant(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        phase=_text(status, "phase") or "Pending",
        reason=_text(status, "reason"),
        message=_text(status, "message"),
        main=main,
        failed_init=_failed_init(main, initial, _sidecars(spec)),
        stuck_init=next((one for _, one in initial if one.waiting_reason not in ("", "PodInitializing")), None),
        unschedulable=_unschedulable(scheduled),
        is_mounting=conditions.get("PodReadyToStartContainers", {}).get("status") == "False",
        disruption=_text(target, "reason") if target.get("status") == "True" else None,
        deleted_at=_deleted_at(pod),
        is_deleting_until=instant(metadata.get("deletionTimestamp")),
        termination_bytes=_share_of_termination(spec),
        version=_version(metadata),
    )


def _version(metadata: Object) -> int:
    """The resource version as a number, which it is in every API server, and comparable by its contract since 1.35."""
    text = _text(metadata, "resourceVersion")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0


def _deleted_at(pod: Object) -> datetime | None:
    """When its end was asked for: `deletionTimestamp` is when its grace ends. Once its node has told that its
    containers have ended, the grace is 0 and the timestamp that of this news: a guess then, and too late where the node
    is (`still`)."""
    metadata = _map(pod.get("metadata"))
    until = instant(metadata.get("deletionTimestamp"))
    grace = metadata.get("deletionGracePeriodSeconds") or _map(pod.get("spec")).get("terminationGracePeriodSeconds")
    try:
        return until - timedelta(seconds=grace) if until is not None and isinstance(grace, int) else until
    except OverflowError:
        return until


def still(pod: PodView, before: PodView | None) -> PodView:
    """The pod, asked to end when that was told first: later versions of it tell of a later moment."""
    if before is None or before.deleted_at is None or before.uid != pod.uid:
        return pod
    return replace(pod, deleted_at=before.deleted_at)


def instant(text: Any) -> datetime | None:
    """A timestamp of the API server; None when it is none. One without a zone is none: nobody knows which it meant."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _job_end(status: Object) -> tuple[JobEnd, str, str] | None:
    for condition in _list(status.get("conditions")):
        if condition.get("type") in tuple(JobEnd) and condition.get("status") == "True":
            return JobEnd(condition["type"]), _text(condition, "reason"), _text(condition, "message")
    return None


def _overdue(end: tuple[JobEnd, str, str] | None) -> Stop | None:
    """The word that no controller was there to leave: Kubernetes ended the Job itself, and told its pods to end."""
    return Stop(Reason.TIMEOUT) if end is not None and end[1] == "DeadlineExceeded" else None


def _told(stop: Stop | None, status: Object) -> Stop | None:
    """The word with the moment at which Kubernetes acted upon it: its deadline is how a Job is told to end."""
    moments = [
        instant(condition.get("lastTransitionTime"))
        for condition in _list(status.get("conditions"))
        if condition.get("reason") == "DeadlineExceeded" and condition.get("status") == "True"
    ]
    return stop and replace(stop, at=min((moment for moment in moments if moment is not None), default=None))


def _stop(text: Any) -> Stop | None:
    if not isinstance(text, str):
        return None
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return Stop(text[:200])
    if not isinstance(given, dict):
        return Stop(text[:200])
    is_limit = given.get("limit") is True
    return Stop(_text(given, "reason")[:200], _text(given, "message")[:_MAX_STOP_CHARACTERS], is_limit)


def _main(status: Object) -> ContainerView:
    for one in _list(status.get("containerStatuses")):
        if one.get("name") == names.FUNCTION_CONTAINER:
            return _container(one)
    return ContainerView()


def _container(status: Object) -> ContainerView:
    state = _map(status.get("state"))
    waiting, running, ended = (_map(state.get(key)) for key in ("waiting", "running", "terminated"))
    if ended:
        return ContainerView(
            started_at=_since_epoch(ended.get("startedAt")),
            finished_at=_since_epoch(ended.get("finishedAt")),
            exit_code=_exit_code(ended.get("exitCode")),
            end_reason=_text(ended, "reason"),
            message=_text(ended, "message"),
        )
    if running:
        return ContainerView(started_at=instant(running.get("startedAt")))
    return ContainerView(waiting_reason=_text(waiting, "reason"), waiting_message=_text(waiting, "message"))


def _failed_init(
    main: ContainerView, initial: list[tuple[str, ContainerView]], sidecars: set[str]
) -> tuple[str, ContainerView] | None:
    if main.started_at is not None or main.has_ended:
        return None  # one that ended badly now is a sidecar that was told to end
    return next(((name, one) for name, one in initial if one.exit_code and name not in sidecars), None)


def _sidecars(spec: Object) -> set[str]:
    """Init containers that run beside the function: one that ends is started again."""
    return {_text(one, "name") for one in _list(spec.get("initContainers")) if one.get("restartPolicy") == "Always"}


def _share_of_termination(spec: Object) -> int:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    number = sum(len(_list(spec.get(kind))) for kind in kinds)
    return min(TERMINATION_BYTES, POD_TERMINATION_BYTES // max(1, number))


def _since_epoch(text: Any) -> datetime | None:
    """A container that could not be started has the beginning of time as its start."""
    found = instant(text)
    return found if found is not None and found.year > 1971 else None


def _exit_code(value: Any) -> int:
    return value if isinstance(value, int) else 255


def _unschedulable(condition: Object) -> str | None:
    if condition.get("status") != "False" or condition.get("reason") != "Unschedulable":
        return None
    return _text(condition, "message")


def _text(value: Object, name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _map(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Object]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
