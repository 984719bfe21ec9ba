"""Pods become attempts: which pods are one, in which order, and which of two reasons wins."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from invoker.result import Reason
from tests.unit.kubernetes_engine.objects import at, ended, failed_pod, job, made_pod, pod, running_pod
from trigger.engine import AttemptStatus
from trigger.kubernetes_engine.attempts import (
    NODE_LOST,
    NOT_STARTED,
    attempt_end,
    attempts_of,
    ended_in_time,
    is_attempt,
    number_allowed,
    ordered,
)
from trigger.kubernetes_engine.status import ContainerView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms

WHICH = "attempt 1 of 1"
STOP = Stop("cancelled", "cancelled in attempt 1")


def told(pod: PodView, terms: Terms | None = None, stop: Stop | None = None) -> tuple[Reason, str, bool] | None:
    end = attempt_end(pod, WHICH, terms or Terms(), stop)
    return None if end is None else (end.reason, end.message, end.counts)


def only(pod: PodView, terms: Terms | None = None, stop: Stop | None = None) -> AttemptStatus:
    [attempt] = attempts_of([pod], terms or Terms(), stop)
    return attempt


# which pods are attempts


@pytest.mark.parametrize(
    ("names", "tried"),
    [
        (("new", "scheduled", "creating", "starting", "never_pull", "pull_backoff", "config_error"), False),
        (("not_mounted", "unschedulable", "claim_unbound", "init_running", "init_done", "init_stuck"), False),
        (("sidecar_first",), False),
        (("running", "main_ended", "succeeded", "failed_first", "deleting", "stopped", "sidecar_running"), True),
        (("start_error", "init_failing", "init_failed", "evicting", "evicted", "over_limit"), True),
    ],
)
def test_a_pod_that_only_waited_is_no_attempt(names: tuple[str, ...], tried: bool) -> None:
    assert {name: is_attempt(pod(name)) for name in names} == dict.fromkeys(names, tried)


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        ({"phase": "Failed", "disruption": "PreemptionByScheduler"}, True),
        ({"phase": "Failed", "reason": "Evicted"}, True),
        ({"gone": True, "disruption": "DeletionByTaintManager"}, True),
        ({"disruption": "PreemptionByScheduler"}, False),  # it is still there
        ({"gone": True}, False),
        ({"phase": "Failed"}, False),
    ],
)
def test_a_pod_that_was_taken_before_it_began_is_told(changes: dict[str, Any], tried: bool) -> None:
    assert is_attempt(made_pod(**changes)) == tried


def test_a_container_that_was_lost_while_it_waited_was_no_attempt() -> None:
    lost = ContainerView(exit_code=137, end_reason="ContainerStatusUnknown", message="could not be located")
    assert not is_attempt(made_pod(phase="Failed", main=lost))
    ran = replace(lost, message="could not be located. The container used to be Running")
    assert is_attempt(made_pod(phase="Failed", main=ran))


# recorded ends


@pytest.mark.parametrize(
    ("name", "reason", "words", "exit_code"),
    [
        ("running", None, "", None),
        ("main_ended", Reason.COMPLETED, "", 0),
        ("succeeded", Reason.COMPLETED, "", 0),
        ("evicting", None, "", None),
        ("evicted", Reason.COMPLETED, "", 0),  # it was taken, and done
        ("failed_first", Reason.ERROR, "ended with exit code 3 in attempt 1 of 1", 3),
        ("out_of_memory", Reason.OUT_OF_MEMORY, "used more than its 32 MiB in attempt 1 of 1", 137),
        ("start_error", Reason.CONFIG, "could not be started in attempt 1 of 1: failed to create", 128),
        ("signalled", Reason.ERROR, "exit code 137 in attempt 1 of 1, as signal 9 (SIGKILL) gives it", 137),
        ("note", Reason.ERROR, "raised ValueError: no such word (in attempt 1 of 1)", 1),
        ("init_failed", Reason.ERROR, "the init container prepare: ended with exit code 4", 4),
        ("init_failing", Reason.ERROR, "the init container prepare: ended with exit code 4", 4),
        ("over_limit", Reason.EVICTED, "was evicted from its node in attempt 1 of 1: Usage of EmptyDir", 137),
        ("pod_overdue", Reason.TIMEOUT, "ran longer than its 2 s in attempt 1 of 1", 0),
        ("sidecar_outlives", Reason.COMPLETED, "", 0),
        ("sidecar_succeeded", Reason.COMPLETED, "", 0),
        ("sidecar_failed", Reason.ERROR, "ended with exit code 7 in attempt 1 of 1", 7),
        ("deleting", None, "", None),
        ("deleted", Reason.COMPLETED, "", 0),
    ],
)
def test_how_recorded_pods_ended(name: str, reason: Reason | None, words: str, exit_code: int | None) -> None:
    terms = {"out_of_memory": job("out_of_memory").terms, "pod_overdue": Terms(timeout_seconds=2)}.get(name, Terms())
    attempt = only(pod(name), terms)
    assert (attempt.reason, attempt.exit_code) == (reason, exit_code)
    assert words in attempt.message
    assert bool(words) == bool(attempt.message)


def test_what_an_attempt_tells() -> None:
    view = pod("note")
    attempt = only(view)
    assert (attempt.started_at, attempt.finished_at) == (view.main.started_at, view.main.finished_at)
    assert attempt.termination == b'{"type":"ValueError","message":"no such word"}'
    assert only(pod("start_error")).termination == b"", "the kubelet's words are no note"
    init = only(pod("init_failed"))
    failed = pod("init_failed").failed_init
    assert failed is not None
    assert (init.started_at, init.finished_at) == (failed[1].started_at, failed[1].finished_at)


# which of two rules wins


def test_one_that_was_told_to_stop_ended_because_of_that() -> None:
    assert told(pod("stopped"), stop=STOP) == (Reason.CANCELLED, "cancelled in attempt 1", True)
    assert told(pod("stopped")) == (Reason.COMPLETED, "", True)
    assert told(replace(pod("failed_first"), gone=True), stop=STOP) == (Reason.CANCELLED, STOP.message, True)
    assert told(pod("stopping"), stop=STOP) is None, "it still runs"


def test_one_that_ended_before_it_was_told_to_stop_keeps_its_own_end() -> None:
    attempt = only(pod("failed_first"), stop=STOP)
    assert attempt.reason is Reason.ERROR


def test_one_that_ended_within_its_limit_and_was_told_of_late_keeps_its_own_end() -> None:
    for name, reason, exit_code in (
        ("told_late_failed", Reason.ERROR, 3),
        ("told_late_done", Reason.COMPLETED, 0),
        ("over_time", Reason.TIMEOUT, 143),
    ):
        view, stop = pod(name), job(name).stop
        for one in (view, replace(view, gone=True)):
            attempt = only(one, stop=stop)
            assert (attempt.reason, attempt.exit_code) == (reason, exit_code), name
        assert stop is not None
        other = only(view, stop=replace(stop, is_limit=False))
        assert other.reason is Reason.TIMEOUT, "only that word was said for what the container seemed to do"


LIMIT = Stop("timeout", "ran longer", is_limit=True)


@pytest.mark.parametrize(
    ("finished", "exit_code", "asked", "in_time"),
    [
        (4, 0, 5, True),
        (4, 1, 5, True),
        (5, 0, 5, False),  # within one second nobody knows
        (6, 0, 5, False),  # it obeyed
        (4, 137, 5, False),  # clocks may differ, and nothing but its end by somebody else gives that
        (4, 143, 5, False),
    ],
)
def test_when_a_container_ended_by_itself(finished: float, exit_code: int, asked: float, in_time: bool) -> None:
    view = failed_pod(main=ended(exit_code, finished=finished), is_deleting_until=at(asked + 30))
    told_at, seen = replace(LIMIT, at=at(asked)), replace(view, deleted_at=at(asked))
    assert ended_in_time(view, told_at) == in_time
    assert ended_in_time(seen, LIMIT) == in_time, "before Kubernetes says since when, the pod does"
    hurried = replace(view, deleted_at=at(0))
    assert ended_in_time(hurried, told_at) == in_time, "a pod whose grace was cut short no longer says when"
    assert not ended_in_time(seen, replace(told_at, is_limit=False))


def test_what_is_not_known_of_an_end_is_not_taken_for_an_own_one() -> None:
    assert not ended_in_time(running_pod(gone=True), replace(LIMIT, at=at(5)))
    assert not ended_in_time(failed_pod(gone=True), LIMIT), "when was it asked to end?"
    assert ended_in_time(failed_pod(), LIMIT), "nobody ever asked"
    memory = failed_pod(main=ended(137, end_reason="OOMKilled"))
    assert ended_in_time(memory, replace(LIMIT, at=at(5)))


def test_what_runs_beside_it_may_fail_because_it_is_told_to_end() -> None:
    beside = failed_pod(exit_code=0, is_deleting_until=at(35))
    assert told(beside, stop=replace(LIMIT, at=at(5))) == (Reason.COMPLETED, "", True)


@pytest.mark.parametrize(
    ("stop", "reason", "words"),
    [
        (Stop("timeout", "ran longer"), Reason.TIMEOUT, "ran longer"),
        (Stop("timeout"), Reason.TIMEOUT, "given up in attempt 1 of 1: its deadline has passed"),
        (Stop("image-pull"), Reason.IMAGE_PULL, "stopped in attempt 1 of 1"),
        (Stop("whatever"), Reason.CANCELLED, "stopped in attempt 1 of 1"),
        (Stop(""), Reason.CANCELLED, "stopped in attempt 1 of 1"),
        (Stop("completed"), Reason.CANCELLED, "stopped in attempt 1 of 1"),
    ],
)
def test_the_word_it_was_stopped_with(stop: Stop, reason: Reason, words: str) -> None:
    assert told(pod("stopped"), stop=stop) == (reason, words, True)


def test_only_the_last_pod_can_have_been_stopped() -> None:
    first, second = failed_pod("a", 0, exit_code=3, gone=True), running_pod("b", 10)
    terms = Terms(backoff_limit=1)
    assert [one.reason for one in attempts_of([first, second], terms, STOP)] == [Reason.ERROR, None]
    waiting = made_pod("b", 10)
    assert [one.reason for one in attempts_of([first, waiting], terms, STOP)] == [Reason.ERROR]
    stopped = replace(second, gone=True)
    assert [one.reason for one in attempts_of([first, stopped], terms, STOP)] == [Reason.ERROR, Reason.CANCELLED]


def test_kubernetes_own_deadline_is_a_stop() -> None:
    view = job("overdue")
    attempt = only(pod("overdue"), stop=view.stop)
    assert (attempt.reason, attempt.exit_code) == (Reason.TIMEOUT, 0)
    assert attempt.message == "given up in attempt 1 of 1: its deadline has passed"


@pytest.mark.parametrize("reason", [*sorted(NODE_LOST), "EvictionByEvictionAPI", "PreemptionByScheduler"])
def test_one_that_was_taken_does_not_count(reason: str) -> None:
    expected = Reason.NODE_LOST if reason in NODE_LOST else Reason.EVICTED
    for view in (
        failed_pod(exit_code=137, disruption=reason),
        failed_pod(exit_code=137, disruption=reason, reason="Evicted"),
        failed_pod(exit_code=0, disruption=reason),  # its program ended well on SIGTERM, its pod did not
        made_pod(gone=True, disruption=reason),
        running_pod(gone=True, disruption=reason),
    ):
        end = told(view)
        assert end is not None
        assert (end[0], end[2]) == (expected, False)
        assert reason in end[1]
    assert told(running_pod(disruption=reason)) is None
    assert told(made_pod(phase="Succeeded", main=ended(0), disruption=reason)) == (Reason.COMPLETED, "", True)


def test_one_that_was_evicted_for_a_limit_of_its_own_counts() -> None:
    for view in (failed_pod(exit_code=137, reason="Evicted"), made_pod(phase="Failed", reason="Evicted")):
        assert told(view) == (Reason.EVICTED, "was evicted from its node in attempt 1 of 1", True)
    assert told(failed_pod(exit_code=0, reason="Evicted", message="too much")) == (
        Reason.EVICTED,
        "was evicted from its node in attempt 1 of 1: too much",
        True,
    )


def test_a_deleted_pod_by_when_its_container_ended() -> None:
    deleted = {"deleted_at": at(5), "is_deleting_until": at(10)}
    by_hand = (Reason.DELETED, "its pod was deleted in attempt 1 of 1 (not by Invoker)", True)
    for finished, exit_code, expected in (
        (4.999, 143, Reason.ERROR),  # before: its own end
        (5, 143, Reason.DELETED),
        (7, 0, Reason.COMPLETED),  # done in its grace
    ):
        end = told(failed_pod(main=ended(exit_code, finished=finished), phase="Running", **deleted))
        assert end is not None
        assert end[0] is expected
    assert told(running_pod(gone=True)) == by_hand
    assert told(running_pod(gone=True, **deleted)) == by_hand
    assert told(running_pod(**deleted)) is None
    oom = failed_pod(main=ended(137, finished=6, end_reason="OOMKilled"), **deleted)
    assert told(oom) == (Reason.OUT_OF_MEMORY, "ran out of memory in attempt 1 of 1", True)


def test_a_pod_that_is_gone_ended_when_its_grace_did() -> None:
    view = running_pod(gone=True, deleted_at=at(5), is_deleting_until=at(10))
    assert only(view).finished_at == at(10)
    assert only(replace(view, gone=False)).finished_at is None


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        (ended(1, end_reason="OOMKilled", message='{"type":"ValueError"}'), Reason.OUT_OF_MEMORY, "ran out of memory"),
        (ended(1, message='{"type":"MemoryError","message":"x"}'), Reason.OUT_OF_MEMORY, "ran out of memory"),
        (ended(1, message='{"type":"KeyError","message":"a"}'), Reason.ERROR, "raised KeyError: a (in"),
        (ended(64, message='{"type":"X","reason":"invalid-input","message":"m"}'), Reason.INVALID_INPUT, "X: m (in"),
        (ended(137, message='{"type":"KeyError","message":"a"}'), Reason.ERROR, "raised KeyError"),
        (ended(1, message="no note"), Reason.ERROR, "ended with exit code 1"),
        (ended(1, message="[1]"), Reason.ERROR, "ended with exit code 1"),
        (ended(128), Reason.ERROR, "exit code 128 in attempt 1 of 1"),
        (ended(129), Reason.ERROR, "as signal 1 (SIGHUP) gives it"),
        (ended(143), Reason.ERROR, "as signal 15 (SIGTERM) gives it"),
        (ended(192), Reason.ERROR, "as signal 64"),
        (ended(193), Reason.ERROR, "exit code 193 in attempt 1 of 1"),
        (ended(255), Reason.ERROR, "exit code 255 in attempt 1 of 1"),
        *((ended(128, end_reason=one, message="why"), Reason.CONFIG, "1 of 1: why") for one in sorted(NOT_STARTED)),
    ],
)
def test_what_a_container_ended_with(container: ContainerView, reason: Reason, words: str) -> None:
    end = told(failed_pod(main=container))
    assert end is not None
    assert (end[0], end[2]) == (reason, True)
    assert words in end[1]
    if "signal" not in words:
        assert "signal" not in end[1]


def test_a_pod_that_failed_while_the_function_did_well() -> None:
    assert told(failed_pod(exit_code=0)) == (
        Reason.ERROR,
        "its pod failed in attempt 1 of 1: no container says why",
        True,
    )
    assert told(failed_pod(exit_code=0, reason="DeadlineExceeded"), Terms(timeout_seconds=7)) == (
        Reason.TIMEOUT,
        "ran longer than its 7 s in attempt 1 of 1",
        True,
    )
    assert told(made_pod(phase="Succeeded")) == (Reason.COMPLETED, "", True)
    why = made_pod(phase="Failed", reason="UnexpectedAdmissionError", message="no device")
    assert told(why) == (
        Reason.ERROR,
        "its pod failed in attempt 1 of 1: UnexpectedAdmissionError: no device",
        True,
    )


def test_sentences_are_bounded() -> None:
    for view in (
        failed_pod(main=ended(128, end_reason="StartError", message="x" * 9000)),
        failed_pod(reason="Evicted", message="x" * 9000),
        made_pod(phase="Failed", reason="X", message="x" * 9000),
    ):
        end = told(view)
        assert end is not None
        assert len(end[1]) <= 1000


# order and numbers


def test_pods_are_in_the_order_of_their_creation() -> None:
    first, second = pod("failed_first"), pod("failed_second")
    for pods in ([first, second], [second, first]):
        assert [one.number for one in attempts_of(pods, Terms(backoff_limit=1), None)] == [1, 2]
        assert ordered(pods) == [first, second]


def test_pods_of_one_second() -> None:
    over_first = failed_pod("d", main=ended(1, finished=2))
    over_second = failed_pod("a", main=ended(1, finished=3))
    lost = made_pod("c", gone=True, disruption="PreemptionByScheduler")
    lives = running_pod("b")
    expected = [over_first, over_second, lost, lives]
    for pods in permutations(expected):
        assert ordered(pods) == expected


def test_pods_that_were_taken_come_on_top_of_what_is_allowed() -> None:
    taken = failed_pod("a", 0, exit_code=137, disruption="EvictionByEvictionAPI")
    pods = [taken, failed_pod("b", 10), replace(taken, name="c", created_at=at(20)), failed_pod("d", 30)]
    told = [one.message for one in attempts_of(pods, Terms(backoff_limit=1), None)]
    expected = ["attempt 1 of 2", "attempt 2 of 3", "attempt 3 of 3", "attempt 4 of 4"]
    assert all(words in message for words, message in zip(expected, told, strict=True)), told
    assert number_allowed(pods, Terms(backoff_limit=1)) == 4


def test_pods_that_waited_have_no_number() -> None:
    pods = [made_pod("a", 0, gone=True), failed_pod("b", 10), made_pod("c", 20)]
    [attempt] = attempts_of(pods, Terms(backoff_limit=1), None)
    assert attempt.number == 1
    assert attempt.message == "ended with exit code 1 in attempt 1 of 2"
    assert attempts_of([], Terms(), STOP) == ()
