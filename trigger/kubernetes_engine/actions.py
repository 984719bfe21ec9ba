"""What is done to a run's Job and pods at the API server. Every action may be repeated; "not there" is done.

Each is a few calls in an order that matters, so that it can be broken off anywhere and begun again, by this controller
or by another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Api, Kind
from trigger.kubernetes_engine.conclusion import Evidence, last_pod, reads_log, reads_output
from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_engine.log import read_output, read_tail
from trigger.kubernetes_engine.status import JobView, PodView, pod_view, stop_annotation
from trigger.kubernetes_engine.status import Stop as StopWord

STOPPED_DEADLINE_SECONDS = 1
_UNREADABLE = {400, 404, 410, 422, 500, 502}
"""Answers to a question for a log that will not become better: the container never ran, or its node is gone."""


async def stop_job(api: Api, job: JobView | None, name: str, pods: Iterable[PodView], stop: StopWord) -> Any:
    """Leave word on the Job that it is to end, and make Kubernetes end it. Returns the Job, None when it is not there.

    The pods that run are held first: ended, they would be gone before their log could be read.
    """
    if job is None or job.end is None:
        for pod in pods:
            if (
                pod.main.started_at is not None
                and not pod.is_over
                and not pod.is_held
                and pod.is_deleting_until is None
            ):
                await _hold(api, pod)
    patch = {
        "metadata": {"annotations": {names.STOP: stop_annotation(stop)}},
        "spec": {"activeDeadlineSeconds": STOPPED_DEADLINE_SECONDS},
    }
    return await api.patch_job(name, _body(patch))


async def release_job(api: Api, job: JobView, pods: Iterable[PodView]) -> None:
    """Let go of a Job whose result is sealed: its finalizer goes, and the function's own TTL begins to count.

    Pods first: what another controller would read from them must not outlive the word that it was read. A pod with a
    volume is deleted, so that its claim is free now and not after the TTL.
    """
    for pod in pods:
        if pod.is_held:
            await free_pod(api, pod.name)
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
        if by_force and pod.is_held:
            await free_pod(api, pod.name)
        await api.delete_pod(pod.name, uid=pod.uid, grace_seconds=0 if by_force else None)


async def free_pod(api: Api, name: str) -> None:
    """Let go of a pod whose log was read."""
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": [names.LOG_FINALIZER]}}
    await api.patch_pod(name, _body(patch))


async def read_pods(api: Api, selector: str) -> list[PodView]:
    """The pods of a run as they are now."""
    views = [pod_view(item) async for item in api.list(Kind.POD, selector)]
    return [view for view in views if view is not None]


async def read_evidence(api: Api, job: JobView, pods: list[PodView]) -> Evidence:
    """What the run's end needs from its last pod: nothing for most runs that succeed."""
    wants_output, wants_log = reads_output(job, pods), reads_log(job, pods)
    pod = last_pod(pods)
    if pod is None or pod.gone or not (wants_output or wants_log):
        return Evidence()
    container = names.FUNCTION_CONTAINER if pod.failed_init is None else pod.failed_init[0]
    output, size = None, 0
    if wants_output:
        try:
            output, size = await read_output(api, pod.name, container, job.terms.output_bytes)
        except ApiFailure as failure:
            if failure.status not in _UNREADABLE:
                raise
    tail = b""
    if wants_log:
        try:
            tail = await read_tail(api, pod.name, container, job.terms.log_tail_bytes)
        except ApiFailure as failure:
            if failure.status not in _UNREADABLE:
                raise
    return Evidence(output, size, tail)


async def _hold(api: Api, pod: PodView) -> None:
    try:
        await api.patch_pod(pod.name, _body({"metadata": {"finalizers": [names.LOG_FINALIZER]}}))
    except ApiFailure as failure:
        if failure.status not in (403, 409, 422):  # it is being deleted already: its log is lost, its run is not
            raise


def _body(patch: dict[str, Any]) -> bytes:
    return json.dumps(patch, ensure_ascii=False).encode()
