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


async def stop_job(api: Api, name: str, stop: StopWord) -> Any:
    """Leave word on the Job that it is to end, and make Kubernetes end it. Returns the Job, None if it is not there."""
    patch = {
        "metadata": {"annotations": {names.STOP: stop_annotation(stop)}},
        "spec": {"activeDeadlineSeconds": STOPPED_DEADLINE_SECONDS},
    }
    return await api.patch_job(name, _body(patch))


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


async def read_evidence(api: Api, job: JobView, pods: list[PodView], heard: bytes | None) -> Evidence:
    """What the run's end needs from its last pod: nothing for most runs that succeed. `heard` is the end of its log
    where somebody listened until it ended."""
    wants_output, wants_log = reads_output(job, pods), reads_log(job, pods)
    if heard is not None:
        return Evidence(log_tail=heard)
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


def _body(patch: dict[str, Any]) -> bytes:
    return json.dumps(patch, ensure_ascii=False).encode()
