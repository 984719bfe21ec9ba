"""The end of a run: which rule decides, what has to be read for it, and its words, from recorded Jobs and pods."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.result import Reason, State
from tests.unit.kubernetes_engine.objects import (
    JOBS,
    PODS,
    at,
    ended,
    failed_pod,
    job,
    made_job,
    made_pod,
    pod,
    running_pod,
)
from trigger.engine import RunEnd
from trigger.kubernetes_engine.attempts import attempts_of
from trigger.kubernetes_engine.conclusion import Evidence, last_pod, reads_log, reads_output, run_end
from trigger.kubernetes_engine.status import JobEnd, JobView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms
from trigger.plan import OutputMode

LOG = Evidence(log_tail=b"first\nlast words\n\n")
DONE = made_pod(phase="Succeeded", main=ended(0))
LOST_OUTPUT = "ended well, but its pod was removed before its output could be read"


def end_of(view: JobView, *pods: PodView, evidence: Evidence = LOG, is_gone: bool = False) -> RunEnd:
    return run_end(view, pods, attempts_of(pods, view.terms, view.stop), evidence, is_gone=is_gone)


def words(view: JobView, *pods: PodView, evidence: Evidence = LOG, is_gone: bool = False) -> tuple[Reason, str]:
    found = end_of(view, *pods, evidence=evidence, is_gone=is_gone)
    return found.reason, found.message


# which rule decides


@pytest.mark.parametrize(
    ("name", "pods", "state", "reason", "message"),
    [
        ("complete", ["succeeded"], State.SUCCEEDED, Reason.COMPLETED, ""),
        ("active", ["succeeded"], State.SUCCEEDED, Reason.COMPLETED, ""),
        ("released", ["succeeded"], State.SUCCEEDED, Reason.COMPLETED, ""),
        ("complete", ["failed_first", "succeeded"], State.SUCCEEDED, Reason.COMPLETED, ""),
        (
            "failed",
            ["failed_second", "failed_first"],
            State.FAILED,
            Reason.ERROR,
            "ended with exit code 3 in attempt 2 of 2: last words",
        ),
        (
            "failed_by_policy",
            ["no_retry"],
            State.FAILED,
            Reason.ERROR,
            "ended with exit code 42 in attempt 1 of 4: last words",
        ),
        (
            "out_of_memory",
            ["out_of_memory"],
            State.FAILED,
            Reason.OUT_OF_MEMORY,
            "used more than its 32 MiB in attempt 1 of 1",
        ),
        (
            "failed",
            ["note"],
            State.FAILED,
            Reason.ERROR,
            "raised ValueError: no such word (in attempt 1 of 2)",
        ),
        (
            "failed",
            ["init_failed"],
            State.FAILED,
            Reason.ERROR,
            "the init container prepare: ended with exit code 4 in attempt 1 of 2: last words",
        ),
        ("stopped", ["stopped"], State.CANCELLED, Reason.CANCELLED, "cancelled in attempt 1"),
        (
            "suspended_stopped",
            [],
            State.CANCELLED,
            Reason.CANCELLED,
            "cancelled before its first attempt",
        ),
        ("overdue", ["overdue"], State.TIMED_OUT, Reason.TIMEOUT, "given up in attempt 1: its deadline has passed"),
        ("failed", [], State.FAILED, Reason.ERROR, "its Job failed: Job has reached the specified backoff limit"),
    ],
)
def test_the_ends_of_recorded_runs(name: str, pods: list[str], state: State, reason: Reason, message: str) -> None:
    found = end_of(job(name), *(pod(one) for one in pods))
    assert (found.state, found.reason, found.message) == (state, reason, message)
    assert (found.output, found.log_tail) == (None, LOG.log_tail)


def test_a_job_that_was_deleted() -> None:
    view = job("deleted")
    assert words(view, pod("failed_first")) == (
        Reason.DELETED,
        f"its Job {view.name} was deleted (not by Invoker) in attempt 1",
    )
    assert words(view)[1].endswith("before its first attempt")
    assert words(made_job(), is_gone=True) == (
        Reason.DELETED,
        "its Job invoker-run was deleted (not by Invoker) before its first attempt",
    )
    assert end_of(view).state is State.LOST
    assert words(replace(view, end=JobEnd.FAILED), failed_pod())[0] is Reason.ERROR, "it had ended before"
    assert words(view, DONE)[0] is Reason.COMPLETED, "its work was done"


def test_the_first_rule_that_fits_decides() -> None:
    """Told to stop before all else, success before deletion, deletion before failure; a Job's own end before its pods'
    and before its deletion."""
    for end, is_gone, is_stopped, pods in product(
        (None, *JobEnd), (False, True), (False, True), ((), (DONE,), (failed_pod(),))
    ):
        view = made_job(end=end, stop=Stop("cancelled") if is_stopped else None)
        if is_stopped:
            expected = Reason.CANCELLED
        elif end is JobEnd.COMPLETE or (end is None and pods == (DONE,)):
            expected = Reason.COMPLETED
        elif end is None and is_gone:
            expected = Reason.DELETED
        else:
            expected = Reason.ERROR
        assert end_of(view, *pods, is_gone=is_gone).reason is expected, view


@pytest.mark.parametrize(
    ("stop", "pods", "state", "reason", "message"),
    [
        (Stop("timeout", "ran longer"), (DONE,), State.TIMED_OUT, Reason.TIMEOUT, "ran longer"),
        (Stop("pending-timeout", "waited"), (), State.TIMED_OUT, Reason.PENDING_TIMEOUT, "waited"),
        (Stop("node-lost", "no answer"), (), State.LOST, Reason.NODE_LOST, "no answer"),
        (Stop("image-pull"), (), State.FAILED, Reason.IMAGE_PULL, "stopped before its first attempt (image-pull)"),
        (Stop("completed"), (), State.CANCELLED, Reason.CANCELLED, "cancelled before its first attempt"),
        (Stop("because"), (DONE,), State.CANCELLED, Reason.CANCELLED, "stopped in attempt 1: because"),
        (Stop(""), (), State.CANCELLED, Reason.CANCELLED, "stopped before its first attempt"),
    ],
)
def test_a_run_that_was_told_to_stop(
    stop: Stop, pods: tuple[PodView, ...], state: State, reason: Reason, message: str
) -> None:
    found = end_of(made_job(stop=stop), *pods)
    assert found == RunEnd(state, reason, message, None, LOG.log_tail)


@pytest.mark.parametrize(
    ("name", "state", "reason", "message"),
    [
        (
            "told_late_failed",
            State.FAILED,
            Reason.ERROR,
            "ended with exit code 3 in attempt 1 of 2: last words "
            "(not tried again: its node told of its end after its limit)",
        ),
        ("told_late_done", State.SUCCEEDED, Reason.COMPLETED, ""),
        ("over_time", State.TIMED_OUT, Reason.TIMEOUT, "ran longer than its 4 s in attempt 1 of 1"),
    ],
)
def test_a_run_is_judged_by_when_it_ended_and_not_by_when_that_was_told(
    name: str, state: State, reason: Reason, message: str
) -> None:
    view = job(name)
    view = replace(view, terms=replace(view.terms, output=OutputMode.API))
    for one in (pod(name), replace(pod(name), gone=True)):
        assert end_of(view, one) == RunEnd(state, reason, message, None, LOG.log_tail)
        assert (end_of(view, one, is_gone=True)).reason is reason


def test_an_output_that_was_told_of_late_is_one() -> None:
    view, one = job("told_late_done"), pod("told_late_done")
    assert view.terms.output is OutputMode.STDOUT
    assert (reads_output(view, [one]), reads_log(replace(view, terms=Terms()), [one])) == (True, False)
    assert end_of(view, one, evidence=Evidence(b"out", 3)).output == b"out"
    lost = end_of(view, one, evidence=Evidence())
    assert (lost.reason, lost.message) == (Reason.ENGINE, LOST_OUTPUT)
    assert not reads_output(job("over_time"), [pod("over_time")])


def test_only_the_last_attempt_can_have_been_stopped_for_nothing() -> None:
    stop = Stop("timeout", "ran longer", is_limit=True, at=at(60))
    view = made_job(Terms(backoff_limit=1), stop=stop, end=JobEnd.FAILED)
    first, second = failed_pod("a", 0, 7), failed_pod("b", 10, 8, is_deleting_until=at(90))
    assert words(view, first, second) == (Reason.ERROR, "ended with exit code 8 in attempt 2 of 2: last words")
    killed = failed_pod("b", 10, 8, main=ended(8, 11, 61), is_deleting_until=at(90))
    assert words(view, first, killed) == (Reason.TIMEOUT, "ran longer")
    taken = failed_pod("a", 0, 0, disruption="EvictionByEvictionAPI")
    assert words(view, taken, killed) == (Reason.TIMEOUT, "ran longer"), "what the one before it did is past"
    assert words(view, first, running_pod("b", 10, gone=True)) == (Reason.TIMEOUT, "ran longer")
    assert words(view) == (Reason.TIMEOUT, "ran longer"), "nothing is known of it"
    for other in (replace(stop, is_limit=False), Stop("cancelled", at=at(60))):
        assert end_of(replace(view, stop=other), first, second).reason in (Reason.TIMEOUT, Reason.CANCELLED)


# outputs


def stdout_job(limit: int = 100) -> JobView:
    return made_job(Terms(output=OutputMode.STDOUT, output_bytes=limit))


def termination_job(**terms: object) -> JobView:
    return made_job(replace(Terms(output=OutputMode.TERMINATION), **terms))  # type: ignore[arg-type] # names of fields


def test_stdout_is_the_output_up_to_its_limit() -> None:
    view = stdout_job(5)
    assert end_of(view, DONE, evidence=Evidence(b"12345", 5)).output == b"12345"
    empty = end_of(view, DONE, evidence=Evidence(b"", 0))
    assert (empty.reason, empty.output) == (Reason.COMPLETED, b""), "nothing said is an output"
    large = end_of(view, DONE, evidence=Evidence(b"12345", 6, b"log"))
    assert large == RunEnd(
        State.FAILED,
        Reason.OUTPUT_TOO_LARGE,
        "wrote 6 bytes to its stdout in attempt 1 of 1, at most 5 are allowed",
        None,
        b"log",
    )
    lost = end_of(view, DONE, evidence=Evidence())
    assert (lost.state, lost.reason, lost.message, lost.output) == (State.LOST, Reason.ENGINE, LOST_OUTPUT, None)


def test_an_output_that_is_not_whole_is_none() -> None:
    cut = end_of(stdout_job(), DONE, evidence=Evidence(b"the rest", 8, is_cut=True))
    assert (cut.reason, cut.output) == (Reason.OUTPUT_TOO_LARGE, None)
    assert "in attempt 1 of 1 than its node keeps of a log (containerLogMaxSize" in cut.message
    unread = end_of(stdout_job(), DONE, evidence=Evidence(trouble="its log could not be read: why"))
    assert (unread.state, unread.message) == (State.LOST, "ended well, but its log could not be read: why")


def test_the_termination_message_is_the_output() -> None:
    view = job("termination")
    assert end_of(view, pod("termination")).output == b"the output"
    assert end_of(view, pod("succeeded")).output == b""
    assert end_of(view, pod("termination_no_text")).output == b"a\xef\xbf\xbd\x00b\xef\xbf\xbd"
    assert words(view) == (Reason.ENGINE, LOST_OUTPUT)
    gone = replace(pod("termination"), gone=True)
    assert end_of(view, gone).output == b"the output", "it was seen before its pod went"


@pytest.mark.parametrize("name", ["termination_4096", "termination_5000"])
def test_a_termination_message_that_may_have_been_cut_is_no_output(name: str) -> None:
    found = end_of(job("termination"), pod(name))
    assert found.reason is Reason.OUTPUT_TOO_LARGE
    assert found.message == "wrote more than 4095 bytes (4096 or more) to its termination file in attempt 1 of 1"
    assert found.output is None


@pytest.mark.parametrize(
    ("size", "room", "runtime", "is_whole"),
    [
        (4095, 4096, None, True),
        (4096, 4096, None, False),
        (4096, 4096, "python", True),  # our runtime hands in what fits, or nothing
        (3071, 3072, "python", True),
        (3072, 3072, "python", False),  # and does not know that others share the room
        (3071, 3072, None, True),
        (3072, 3072, None, False),
    ],
)
def test_where_a_termination_message_may_be_cut(size: int, room: int, runtime: str | None, is_whole: bool) -> None:
    view = termination_job(runtime=runtime)
    one = made_pod(phase="Succeeded", main=ended(0, message="x" * size), termination_bytes=room)
    found = end_of(view, one)
    assert (found.reason is Reason.COMPLETED, found.output is not None) == (is_whole, is_whole)


def test_what_the_run_api_takes_is_not_taken_here() -> None:
    assert end_of(made_job(), made_pod(phase="Succeeded", main=ended(0, message="x")), evidence=Evidence(b"y", 1)) == (
        RunEnd(State.SUCCEEDED, Reason.COMPLETED)
    )


def test_the_attempt_that_succeeded_is_named() -> None:
    view = replace(stdout_job(1), terms=Terms(output=OutputMode.STDOUT, output_bytes=1, backoff_limit=2))
    second = made_pod("b", 10, phase="Succeeded", main=ended(0, 11, 12))
    found = words(view, failed_pod("a"), second, evidence=Evidence(b"x", 2))
    assert "in attempt 2 of 3," in found[1]
    taken = failed_pod("a", disruption="EvictionByEvictionAPI")
    assert "in attempt 2 of 4," in words(view, taken, second, evidence=Evidence(b"x", 2))[1], "that one did not count"


# what has to be read


@pytest.mark.parametrize(
    ("output", "keep_log", "end", "pods", "is_stopped", "reads"),
    [
        (OutputMode.API, False, JobEnd.COMPLETE, (DONE,), False, (False, False)),
        (OutputMode.API, True, JobEnd.COMPLETE, (DONE,), False, (False, True)),
        (OutputMode.TERMINATION, False, JobEnd.COMPLETE, (DONE,), False, (False, False)),
        (OutputMode.STDOUT, False, JobEnd.COMPLETE, (DONE,), False, (True, False)),
        (OutputMode.STDOUT, False, None, (DONE,), False, (True, False)),
        (OutputMode.STDOUT, False, JobEnd.COMPLETE, (DONE,), True, (False, True)),
        (OutputMode.STDOUT, False, JobEnd.FAILED, (failed_pod(),), False, (False, True)),
        (OutputMode.API, False, JobEnd.FAILED, (failed_pod(),), False, (False, True)),
        (OutputMode.API, False, None, (), False, (False, True)),
        (OutputMode.API, False, None, (DONE,), True, (False, True)),
    ],
)
def test_what_is_read_for_an_end(
    output: OutputMode,
    keep_log: bool,
    end: JobEnd | None,
    pods: tuple[PodView, ...],
    is_stopped: bool,
    reads: tuple[bool, bool],
) -> None:
    stop = Stop("cancelled") if is_stopped else None
    view = made_job(Terms(output=output, keep_log=keep_log), end=end, stop=stop)
    assert (reads_output(view, pods), reads_log(view, pods)) == reads


def test_the_pod_whose_output_and_log_count() -> None:
    first, second, waits = failed_pod("a", 0), failed_pod("b", 10), made_pod("c", 20)
    assert last_pod([second, waits, first]) == second, "the latest that started"
    done = made_pod("d", 5, phase="Succeeded", main=ended(0))
    assert last_pod([first, done, second]) == done, "success before all later ones"
    again = made_pod("e", 7, phase="Succeeded", main=ended(0))
    assert last_pod([again, done]) == again
    init = made_pod("f", 30, phase="Failed", failed_init=("prepare", ended(4)))
    assert last_pod([second, init]) == init
    assert last_pod([waits]) is None
    assert last_pod([]) is None
    assert last_pod([pod("start_error")]) is None, "it has no log: nothing of it ran"


# why it failed


def test_the_last_attempt_that_ended_badly_says_why() -> None:
    view = made_job(Terms(backoff_limit=1), end=JobEnd.FAILED)
    assert words(view, failed_pod("a", 0, 7), running_pod("b", 10))[1].startswith("ended with exit code 7 in attempt 1")
    lost = failed_pod("b", 10, 1, disruption="DeletionByTaintManager")
    found = end_of(view, failed_pod("a", 0, 7), lost)
    assert (found.state, found.reason) == (State.LOST, Reason.NODE_LOST)
    assert found.message == "its node was lost in attempt 2 of 2 (DeletionByTaintManager)"


def test_the_logs_last_line_stands_where_nothing_else_says_why() -> None:
    view = made_job(end=JobEnd.FAILED)
    plain = "ended with exit code 1 in attempt 1 of 1"
    assert words(view, failed_pod())[1] == f"{plain}: last words"
    assert words(view, failed_pod(), evidence=Evidence())[1] == plain
    assert words(view, failed_pod(), evidence=Evidence(log_tail=b"\n \n"))[1] == plain
    assert words(view, failed_pod(), evidence=Evidence(log_tail=b"\xff" + b"y" * 400))[1] == f"{plain}: �{'y' * 299}"
    noted = failed_pod(main=ended(1, message="left behind"))
    assert words(view, noted)[1] == plain, "it says so itself, in its termination file"
    memory = failed_pod(main=ended(137, end_reason="OOMKilled"))
    assert words(view, memory)[1] == "ran out of memory in attempt 1 of 1"
    assert words(replace(view, terms=Terms(output=OutputMode.STDOUT)), failed_pod())[1] == plain, "that is its output"


def test_a_job_that_failed_without_an_attempt() -> None:
    assert words(made_job(end=JobEnd.FAILED, end_message="a" * 2000))[1] == f"its Job failed: {'a' * 984}"
    assert words(made_job(end=JobEnd.FAILED, end_reason="Why"))[1] == "its Job failed: Why"
    assert words(made_job(end=JobEnd.FAILED))[1] == "its Job failed: Kubernetes says no more than that"
    assert words(made_job(end=JobEnd.FAILED), DONE)[1] == "its Job failed: Kubernetes says no more than that"


# whatever was recorded

EVIDENCE = st.builds(
    Evidence, output=st.none() | st.binary(max_size=5), output_size=st.integers(0, 10), log_tail=st.binary(max_size=9)
)


@settings(deadline=None)
@given(
    st.sampled_from(JOBS),
    st.lists(st.sampled_from(PODS), max_size=4, unique=True),
    st.sampled_from(OutputMode),
    EVIDENCE,
    st.booleans(),
)
def test_every_end_is_whole(name: str, pods: list[str], output: OutputMode, evidence: Evidence, is_gone: bool) -> None:
    """An end never lacks its words, and never has an output that nobody read or that is not its success."""
    view = job(name)
    view = replace(view, terms=replace(view.terms, output=output, output_bytes=5))
    found = end_of(view, *(pod(one) for one in pods), evidence=evidence, is_gone=is_gone)
    assert (found.state is State.SUCCEEDED) == (found.reason is Reason.COMPLETED)
    assert bool(found.message) == (found.reason is not Reason.COMPLETED)
    assert found.log_tail == evidence.log_tail
    has_output = found.reason is Reason.COMPLETED and output is not OutputMode.API
    assert (found.output is not None) == has_output
    if output is OutputMode.STDOUT and has_output:
        assert found.output == evidence.output
        assert evidence.output_size <= 5
