"""What is done to a run's Job and pods at the API server. Every action may be repeated; "not there" is done.

Each is a few calls in an order that matters, so that it can be broken off anywhere and begun again, by this controller
or by another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import structlog

from invoker.result import Reason
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Api, Kind
from trigger.kubernetes_engine.failures import ApiFailure, refused_for_good, sentence
from trigger.kubernetes_engine.status import JobView, PodView, pod_view, stop_annotation
from trigger.kubernetes_engine.status import Stop as StopWord

log = structlog.get_logger(component="kubernetes")

STOPPED_DEADLINE_SECONDS = 1


async def stop_job(api: Api, name: str, stop: StopWord) -> Any:
    """Leave word on the Job that it is to end, and make Kubernetes end it. Returns the Job, None if it is not there."""
    patch = {
        "metadata": {"annotations": {names.STOP: stop_annotation(stop)}},
        "spec": {"activeDeadlineSeconds": STOPPED_DEADLINE_SECONDS},
    }
    return await api.patch_job(name, _body(patch))


async def remember_printed(api: Api, name: str, printed: str) -> None:
    """Leave word on the Job how its output begins."""
    await api.patch_job(name, _body({"metadata": {"annotations": {names.PRINTED: printed}}}))


async def release_job(api: Api, job: JobView, pods: Iterable[PodView]) -> None:
    """Let go of a Job whose result is sealed: its finalizer goes, and the function's own TTL begins to count.

    Pods first, while another controller would still find the Job and do the same: a pod with a volume is deleted, so
    that its claim is free now and not after the TTL.
    """
    for pod in pods:
        if job.terms.has_volume and not job.terms.keep_pod and not pod.gone:
            await api.delete_pod(pod.name, uid=pod.uid, grace_seconds=None)
    patch = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": [names.RESULT_FINALIZER]},
        "spec": {"ttlSecondsAfterFinished": job.terms.ttl_seconds},
    }
    await api.patch_job(job.name, _body(patch))
    if job.stop is not None and job.is_suspended:
        await api.delete_job(job.name, uid=job.uid)  # or its queue would let it begin one day


async def delete_pods(api: Api, pods: Iterable[PodView], *, by_force: bool) -> None:
    """End pods: with their grace, or `by_force` where the node does not answer and will not either."""
    for pod in pods:
        await api.delete_pod(pod.name, uid=pod.uid, grace_seconds=0 if by_force else None)


async def read_pods(api: Api, selector: str) -> list[PodView]:
    """The pods of a run as they are now."""
    views = [pod_view(item) async for item in api.list(Kind.POD, selector)]
    return [view for view in views if view is not None]


async def read_refusal(api: Api, job: JobView) -> StopWord | None:
    """Why the cluster makes no pods of the Job, as the word to end it with; None while it may make some yet.

    An account that may not list events is told of in the log, and the run waits.
    """
    try:
        messages = await api.messages_of(job.uid, "FailedCreate")
    except ApiFailure as failure:
        if failure.status != 403:
            raise
        log.warning(
            "why a Job has no pods is not known",
            **job.ids(),
            error_message=sentence(failure, f"the pods of {job.name}"),
        )
        return None
    refusals = [refused_for_good(message) for message in messages]
    refusal = refusals[0] if refusals else None
    if refusal is None or None in refusals:
        return None  # the newest is not marked as such: while some may pass, all may
    is_missing = any(words in refusal.message for words in ("not found", "was found"))
    return StopWord(Reason.CONFIG if is_missing else Reason.REFUSED, sentence(refusal, "no pod of it can be made"))


def _body(patch: dict[str, Any]) -> bytes:
    return json.dumps(patch, ensure_ascii=False).encode()
