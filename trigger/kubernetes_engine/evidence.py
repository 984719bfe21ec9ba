"""What a run's end needs of its last pod, read from the API server: its whole stdout, the end of its log.

An output is read until two readings agree, or one agrees with what was counted while it was printed. One that cannot
be shown to be whole is none.
"""

from __future__ import annotations

from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.conclusion import Evidence, last_pod, reads_log, reads_output
from trigger.kubernetes_engine.failures import ApiFailure, LogTrouble, log_trouble, no_answer, sentence
from trigger.kubernetes_engine.hearing import LATE_SECONDS, Heard, Hearing
from trigger.kubernetes_engine.log import read_output, read_tail
from trigger.kubernetes_engine.status import JobView, PodView
from trigger.kubernetes_engine.wholeness import Verdict, judge, mark_of, read_mark, tail_of

MOST_READINGS = 4
_ANSWERS = {400, 404, 410, 422, 500, 502}
"""Of the API server to a question for a log, where the node or its container runtime may be the cause."""


async def read_evidence(api: Api, job: JobView, pods: list[PodView], hearing: Hearing, *, is_patient: bool) -> Evidence:
    """Nothing for most runs that succeed. Raises `ApiFailure` while it may be had later: when the node does not answer
    only if `is_patient`."""
    wants_output, wants_log = reads_output(job, pods), reads_log(job, pods)
    pod = last_pod(pods)
    if pod is None or not (wants_output or wants_log):
        return Evidence()
    heard = await hearing.heard(pod.name)
    if pod.gone or (job.stop is not None and heard.tail is not None and not wants_output):
        return Evidence(log_tail=heard.tail or b"")
    try:
        found = await _output(api, job, pod, heard) if wants_output else Evidence()
    except ApiFailure as failure:
        if not is_final(failure, is_patient=is_patient):
            raise
        is_gone = log_trouble(failure) is LogTrouble.GONE
        found = Evidence(trouble="" if is_gone else sentence(failure, "its log could not be read"))
    tail = await _tail(api, job, pod, heard, is_patient=is_patient) if wants_log else b""
    return Evidence(found.output, found.output_size, tail, found.is_cut, found.trouble)


def is_final(failure: ApiFailure, *, is_patient: bool) -> bool:
    """Whether a log that could not be read is given up: it is not there any more, or its node has not given it out for
    long. An API server that is busy or away is waited for. Pure."""
    if failure.status not in _ANSWERS:
        return False
    return log_trouble(failure) is LogTrouble.GONE or not is_patient


def may_have_lost_all(content: bytes, pod: PodView, heard: Heard) -> bool:
    """Whether a log without a line may be the new file of one that was full: it lived long enough for that, and nobody
    listened from its start on. Pure."""
    started_at, finished_at = pod.main.started_at, pod.main.finished_at
    if content or heard.is_from_start or started_at is None or finished_at is None:
        return False
    return (finished_at - started_at).total_seconds() >= LATE_SECONDS


async def _output(api: Api, job: JobView, pod: PodView, heard: Heard) -> Evidence:
    limit, before = job.terms.output_bytes, None
    marks = heard.marks + read_mark(job.printed, pod.name)
    for _ in range(MOST_READINGS):
        content, size = await read_output(api, pod.name, names.FUNCTION_CONTAINER, limit)
        if max(size, heard.size) > limit:
            return Evidence(output_size=max(size, heard.size))
        match judge(content, marks, before):
            case Verdict.WHOLE:
                return Evidence(content, size, is_cut=may_have_lost_all(content, pod, heard))
            case Verdict.CUT:
                return Evidence(is_cut=True)
        before = mark_of(content)
    raise no_answer("its log is another one each time it is read")


async def _tail(api: Api, job: JobView, pod: PodView, heard: Heard, *, is_patient: bool) -> bytes:
    container = names.FUNCTION_CONTAINER if pod.failed_init is None else pod.failed_init[0]
    read: bytes | None = None
    try:
        read = await read_tail(api, pod.name, container, job.terms.log_tail_bytes)
    except ApiFailure as failure:
        if log_trouble(failure) is not LogTrouble.NOT_YET and not is_final(failure, is_patient=is_patient):
            raise
    return tail_of(read, heard.tail, job.terms.log_tail_bytes)
