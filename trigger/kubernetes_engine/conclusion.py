"""What a run's end is, once nothing of it lives. Pure: what had to be read from its pods comes in as evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from invoker.result import Reason
from trigger import endings
from trigger.engine import AttemptStatus, RunEnd
from trigger.kubernetes_engine.assess import is_success
from trigger.kubernetes_engine.attempts import ended_in_time, number_allowed, ordered
from trigger.kubernetes_engine.status import TERMINATION_BYTES, JobView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms
from trigger.plan import OutputMode
from trigger.verdict import Verdict

_LOST_BEGINNING = (
    "printed more to its stdout in {which} than its node keeps of a log (containerLogMaxSize, by default 10 MiB), "
    "so its beginning is lost; outputs of that size need output.from: api"
)
_TOLD_LATE = "not tried again: its node told of its end after its limit"
_LOST_OUTPUT = "ended well, but its pod was removed before its output could be read"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read of a run's last pod: its stdout where that is the output (None: it could not be read), how long
    that was in all, and the end of its log. `is_cut`: the node no longer has the beginning; `trouble`: why the output
    could not be read though its pod was there."""

    output: bytes | None = None
    output_size: int = 0
    log_tail: bytes = b""
    is_cut: bool = False
    trouble: str = ""


def reads_output(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether stdout has to be read before the run's end can be made."""
    return job.terms.output is OutputMode.STDOUT and _did_well(job, pods)


def reads_log(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether the end of the log is kept: of failed runs always, of others when the function asks for it."""
    return job.terms.keep_log or not _did_well(job, pods)


def last_pod(pods: Sequence[PodView]) -> PodView | None:
    """The pod whose output and log count: the one that succeeded, else the latest that started."""
    inorder = ordered(pods)
    succeeded = [pod for pod in inorder if pod.phase == "Succeeded"]
    started = [pod for pod in inorder if pod.main.started_at is not None or pod.failed_init is not None]
    return next(reversed(succeeded or started), None)


def run_end(
    job: JobView, pods: Sequence[PodView], attempts: tuple[AttemptStatus, ...], evidence: Evidence, *, is_gone: bool
) -> RunEnd:
    """The end of the run. The first rule that fits decides: told to stop, succeeded, deleted, failed. A run whose last
    attempt was told to end because of its limit, and had ended before that, was not stopped."""
    in_time = _in_time(job, pods)
    if job.stop is not None and in_time is None:
        return _with_log(_stopped(job.stop, len(attempts)), evidence)
    if _did_well(job, pods):
        return _succeeded(job, pods, evidence, len(attempts))
    if in_time is not None:
        return _failed_in_time(job, pods, attempts, evidence)
    if job.end is None and (is_gone or job.is_deleting):
        text = f"its Job {job.name} was deleted (not by Invoker) {_during(len(attempts))}"
        return _end(Reason.DELETED, text, evidence)
    return _failed(job, attempts, evidence)


def _end(reason: Reason, message: str, evidence: Evidence, output: bytes | None = None) -> RunEnd:
    return RunEnd(Verdict(reason).final_state, reason, message, output, evidence.log_tail)


def _with_log(end: RunEnd, evidence: Evidence) -> RunEnd:
    return RunEnd(end.state, end.reason, end.message, end.output, evidence.log_tail)


def _during(number: int) -> str:
    return f"in attempt {number}" if number else "before its first attempt"


def _stopped(stop: Stop, number: int) -> RunEnd:
    end = endings.stopped(stop.reason, number)
    state = Verdict(end.reason).final_state
    return RunEnd(state, end.reason, stop.message or end.message)


def _succeeded(job: JobView, pods: Sequence[PodView], evidence: Evidence, number: int) -> RunEnd:
    which = endings.which_attempt(max(1, number), number_allowed(pods, job.terms))
    match job.terms.output:
        case OutputMode.API:
            return _end(Reason.COMPLETED, "", evidence)
        case OutputMode.STDOUT:
            if evidence.output_size > job.terms.output_bytes:
                text = endings.too_large_sentence(evidence.output_size, job.terms.output_bytes, "stdout", which)
                return _end(Reason.OUTPUT_TOO_LARGE, text, evidence)
            if evidence.is_cut:
                return _end(Reason.OUTPUT_TOO_LARGE, _LOST_BEGINNING.format(which=which), evidence)
            output = evidence.output
        case OutputMode.TERMINATION:
            pod = last_pod(pods)
            output = None if pod is None else pod.main.termination
            if pod is not None and output is not None and _may_be_cut(output, pod, job.terms):
                limit = pod.termination_bytes - 1
                text = endings.too_large_sentence(len(output), limit, "termination file", which)
                return _end(Reason.OUTPUT_TOO_LARGE, text, evidence)
    if output is None:
        text = f"ended well, but {evidence.trouble}" if evidence.trouble else _LOST_OUTPUT
        return _end(Reason.ENGINE, text, evidence)
    return _end(Reason.COMPLETED, "", evidence, output)


def _may_be_cut(output: bytes, pod: PodView, terms: Terms) -> bool:
    """Whether Kubernetes may have kept a part of it only: it cuts without a word. Our runtime hands in what fits or
    nothing, but does not know how many containers share the room."""
    if terms.runtime is not None and pod.termination_bytes == TERMINATION_BYTES:
        return False
    return len(output) >= pod.termination_bytes


def _in_time(job: JobView, pods: Sequence[PodView]) -> PodView | None:
    """The pod that was stopped for nothing: its container had ended by itself, within its limit."""
    last = next(reversed(ordered(pods)), None)
    return last if job.stop is not None and last is not None and ended_in_time(last, job.stop) else None


def _did_well(job: JobView, pods: Sequence[PodView]) -> bool:
    """Whether the function did what it should."""
    if job.stop is None:
        return is_success(job, pods)
    in_time = _in_time(job, pods)
    return in_time is not None and in_time.main.exit_code == 0


def _failed_in_time(
    job: JobView, pods: Sequence[PodView], attempts: tuple[AttemptStatus, ...], evidence: Evidence
) -> RunEnd:
    """The attempt's own failure; where others would have followed, why none did."""
    end = _failed(job, attempts, evidence)
    is_last = len(attempts) >= number_allowed(pods, job.terms)
    return end if is_last else replace(end, message=f"{end.message} ({_TOLD_LATE})")


def _failed(job: JobView, attempts: tuple[AttemptStatus, ...], evidence: Evidence) -> RunEnd:
    last = next((one for one in reversed(attempts) if one.reason not in (None, Reason.COMPLETED)), None)
    if last is None or last.reason is None:
        words = job.end_message or job.end_reason or "Kubernetes says no more than that"
        return _end(Reason.ERROR, f"its Job failed: {words}"[:1000], evidence)
    return _end(last.reason, last.message + _said(job, last, evidence), evidence)


def _said(job: JobView, last: AttemptStatus, evidence: Evidence) -> str:
    """The log's last line, where nothing else tells why: a function without our runtime leaves no note."""
    if last.reason is not Reason.ERROR or last.termination or job.terms.output is OutputMode.STDOUT:
        return ""
    lines = evidence.log_tail.decode("utf-8", "replace").rstrip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""
