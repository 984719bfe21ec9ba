"""One look at a run: its level, what is to be done, and when to look again; every limit exactly at its edge."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from invoker.result import Reason
from tests.unit.kubernetes_engine.objects import (
    JOBS,
    at,
    ended,
    failed_pod,
    job,
    made_job,
    made_pod,
    pod,
    running_pod,
)
from trigger.engine import Phase
from trigger.kubernetes_engine.assess import CLOCK_SECONDS, Assessment, Rules, Todo, assess, is_success
from trigger.kubernetes_engine.status import ContainerView, JobEnd, JobView, PodView, Stop
from trigger.kubernetes_engine.terms import Terms

RULES = Rules()
TICK = timedelta(microseconds=1)


def look(
    view: JobView, *pods: PodView, now: datetime | None = None, is_gone: bool = False, rules: Rules = RULES
) -> Assessment:
    return assess(view, pods, is_gone=is_gone, now=view.created_at if now is None else now, rules=rules)


def limits(view: JobView, moment: datetime, *pods: PodView, rules: Rules = RULES) -> Stop:
    """The stop that is due at exactly this moment and not before; until then the moment is the next look."""
    before = look(view, *pods, now=moment - TICK, rules=rules)
    assert (before.todo, before.look_again_at) == (Todo.NOTHING, moment)
    found = look(view, *pods, now=moment, rules=rules)
    assert found.todo is Todo.STOP
    assert found.stop is not None
    return found.stop


# levels


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("new", Phase.PENDING),
        ("creating", Phase.PENDING),
        ("unschedulable", Phase.PENDING),
        ("start_error", Phase.PENDING),  # nothing of it ever ran
        ("init_running", Phase.PENDING),
        ("init_failed", Phase.RUNNING),
        ("running", Phase.RUNNING),
        ("main_ended", Phase.RUNNING),
        ("failed_first", Phase.RUNNING),
    ],
)
def test_the_level(name: str, phase: Phase) -> None:
    found = look(job("active"), pod(name))
    assert found.phase is phase
    assert (found.stop, found.pods) == (None, ())


def test_a_run_between_two_attempts_is_running() -> None:
    found = look(made_job(Terms(backoff_limit=1)), failed_pod(), made_pod("b", 10))
    assert (found.phase, len(found.attempts)) == (Phase.RUNNING, 1)


# its end


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_has_ended_is_concluded(name: str) -> None:
    view = job(name)
    found = look(view, pod("running"))
    if view.end is not None:
        assert (found.todo, found.look_again_at) == (Todo.CONCLUDE, None)
    else:
        assert found.todo is not Todo.CONCLUDE


def test_it_is_concluded_a_moment_before_kubernetes_has_counted_its_pod() -> None:
    assert look(job("active"), pod("succeeded")).todo is Todo.CONCLUDE
    assert look(job("counted"), pod("succeeded")).todo is Todo.CONCLUDE
    assert look(job("active"), pod("main_ended")).todo is Todo.NOTHING, "its pod lives"
    assert look(job("active"), pod("sidecar_outlives")).todo is Todo.NOTHING
    another = replace(made_pod("b"), created_at=job("active").created_at)
    assert look(job("active"), pod("succeeded"), another).todo is Todo.NOTHING, "another pod lives"
    assert look(job("stopping"), pod("stopped")).todo is Todo.NOTHING, "Kubernetes is about to say that it failed"


def test_failed_pods_alone_end_nothing() -> None:
    assert look(job("active"), pod("failed_first")).todo is Todo.NOTHING
    assert look(job("failing"), pod("failed_second")).todo is Todo.NOTHING


@pytest.mark.parametrize(("is_gone", "is_deleting"), [(True, False), (False, True), (True, True)])
def test_a_job_that_was_deleted(is_gone: bool, is_deleting: bool) -> None:
    view = made_job(is_deleting=is_deleting)
    lives, ending = running_pod("a"), running_pod("b", is_deleting_until=at(10))
    found = look(view, lives, ending, failed_pod("c"), is_gone=is_gone)
    assert (found.todo, found.pods) == (Todo.DELETE_PODS, (lives,)), "one that is ending is left alone"
    assert look(view, ending, is_gone=is_gone).todo is Todo.NOTHING
    assert look(view, replace(ending, gone=True), is_gone=is_gone).todo is Todo.CONCLUDE
    assert look(view, is_gone=is_gone).todo is Todo.CONCLUDE
    assert look(replace(view, end=JobEnd.COMPLETE), lives, is_gone=is_gone).todo is Todo.CONCLUDE


def test_the_recorded_job_that_was_deleted() -> None:
    view = pod("running")
    assert look(job("deleted"), view).pods == (view,)


def test_a_run_that_a_queue_holds_back() -> None:
    assert look(job("suspended")).todo is Todo.NOTHING
    assert look(job("suspended_stopped")).todo is Todo.CONCLUDE
    assert look(job("suspended_stopped"), running_pod()).todo is not Todo.CONCLUDE
    assert look(made_job(stop=Stop("cancelled"))).todo is Todo.NOTHING, "Kubernetes ends it"


# limits


def test_the_deadline_of_the_whole_run() -> None:
    view = made_job(deadline_at=at(50))
    assert limits(view, at(50)) == Stop(Reason.TIMEOUT, "given up before its first attempt: its deadline has passed")
    stop = limits(view, at(50), failed_pod())
    assert stop == Stop(Reason.TIMEOUT, "given up in attempt 1: its deadline has passed")
    assert look(replace(view, stop=Stop("cancelled")), now=at(200)).todo is Todo.NOTHING, "one word is enough"


def test_the_limit_of_an_attempt() -> None:
    view = made_job(Terms(timeout_seconds=5))
    stop = limits(view, at(1 + 5 + CLOCK_SECONDS), running_pod())
    assert stop == Stop(Reason.TIMEOUT, "ran longer than its 5 s in attempt 1 of 1", is_limit=True)
    assert look(made_job(), running_pod(), now=at(10**6)) == look(made_job(), running_pod(), now=at(2))


def test_every_attempt_has_its_own_limit_and_number() -> None:
    view = made_job(Terms(timeout_seconds=5, backoff_limit=1))
    first, second = failed_pod("a", 0), running_pod("b", 100)
    assert limits(view, at(107), first, second).message == "ran longer than its 5 s in attempt 2 of 2"
    taken = replace(first, disruption="EvictionByEvictionAPI")
    assert limits(view, at(107), taken, second).message == "ran longer than its 5 s in attempt 2 of 3"


def test_a_limit_beyond_all_calendars_is_none() -> None:
    for seconds in (1e12, 1e300, float("inf")):
        view = made_job(Terms(timeout_seconds=seconds, pending_timeout_seconds=seconds))
        assert look(view, running_pod(), now=at(10**9)).todo is Todo.NOTHING
        assert look(view, made_pod(), now=at(10**9)).todo is Todo.NOTHING


def test_what_runs_beside_the_function_has_a_little_longer() -> None:
    view = made_job(Terms(timeout_seconds=5))
    words = "ran longer than its 5 s in attempt 1 of 1: another container of its pod runs on"
    for exit_code in (0, 1):
        beside = made_pod(phase="Running", main=ended(exit_code, finished=3))
        assert look(view, beside, now=at(7)).look_again_at == at(3 + RULES.others_seconds)
        assert look(view, beside, now=at(62.999)).todo is Todo.NOTHING
        assert look(view, beside, now=at(63)).stop == Stop(Reason.TIMEOUT, words)
    long = made_job(Terms(timeout_seconds=500))
    beside = made_pod(phase="Running", main=ended(0, finished=3))
    assert limits(long, at(502), beside).message.startswith("ran longer than its 500 s")
    assert look(made_job(), beside, now=at(10**6)).todo is Todo.NOTHING


def test_a_moment_before_its_phase_says_so_nothing_is_limited() -> None:
    now = at(10**6)
    assert look(made_job(), made_pod(main=ContainerView(exit_code=128, end_reason="StartError")), now=now).stop is None
    assert look(made_job(), made_pod(failed_init=("input", ended(1))), now=now).stop is None


WAITING: list[tuple[str, float, Reason, str]] = [
    ("new", 600, Reason.PENDING_TIMEOUT, "had not started after 600 s: its pod is pending"),
    ("scheduled", 600, Reason.PENDING_TIMEOUT, "had not started after 600 s: its pod is pending"),
    ("creating", 600, Reason.PENDING_TIMEOUT, "had not started after 600 s: ContainerCreating"),
    ("starting", 600, Reason.PENDING_TIMEOUT, "had not started after 600 s: ContainerCreating"),
    ("init_running", 600, Reason.PENDING_TIMEOUT, "had not started after 600 s: PodInitializing"),
    ("unschedulable", 600, Reason.UNSCHEDULABLE, "had not started after 600 s: no node takes its pod: 0/1 nodes"),
    ("claim_unbound", 600, Reason.UNSCHEDULABLE, "had not started after 600 s: no node takes its pod: "),
    ("pull_failed", 600, Reason.IMAGE_PULL, "had not started after 600 s: ErrImagePull: failed to pull"),
    ("pull_backoff", 600, Reason.IMAGE_PULL, "had not started after 600 s: ImagePullBackOff: Back-off pulling"),
    ("config_error", 10, Reason.CONFIG, 'had not started after 10 s: CreateContainerConfigError: secret "absent"'),
]


@pytest.mark.parametrize(("name", "seconds", "reason", "words"), WAITING)
def test_how_long_a_pod_may_wait(name: str, seconds: float, reason: Reason, words: str) -> None:
    view = pod(name)
    stop = limits(job("active"), view.created_at + timedelta(seconds=seconds), view)
    assert stop.reason is reason
    assert stop.message.startswith(words)
    assert len(stop.message) <= 1000


@pytest.mark.parametrize("name", [one[0] for one in WAITING])
def test_no_trouble_lasts_longer_than_the_function_allows(name: str) -> None:
    view = pod(name)
    terms = Terms(pending_timeout_seconds=3)
    stop = limits(made_job(terms), view.created_at + timedelta(seconds=3), view)
    assert stop.message.startswith("had not started after 3 s: ")


@pytest.mark.parametrize("name", ["never_pull", "init_stuck"])
def test_an_image_that_is_never_pulled_is_not_waited_for(name: str) -> None:
    view = pod(name)
    found = look(job("active"), view, now=view.created_at)
    assert found.stop is not None
    assert found.stop.reason == Reason.IMAGE_PULL
    assert found.stop.message.startswith('cannot start: ErrImageNeverPull: Container image "localhost/nothing:1"')


@pytest.mark.parametrize(
    ("reason", "message", "seconds", "expected"),
    [
        ("InvalidImageName", "", 0, Reason.IMAGE_PULL),
        ("ErrImagePull", "registry: not found", 60, Reason.IMAGE_PULL),
        ("ImagePullBackOff", "manifest unknown", 60, Reason.IMAGE_PULL),
        ("ErrImagePull", "pull access DENIED", 60, Reason.IMAGE_PULL),
        ("ErrImagePull", "401 Unauthorized", 60, Reason.IMAGE_PULL),
        ("ErrImagePull", "i/o timeout", 600, Reason.IMAGE_PULL),
        ("RegistryUnavailable", "", 600, Reason.IMAGE_PULL),
        ("ImageInspectError", "", 600, Reason.IMAGE_PULL),
        ("CreateContainerError", "", 10, Reason.CONFIG),
        ("RunContainerError", "", 10, Reason.CONFIG),
        ("CrashLoopBackOff", "", 600, Reason.PENDING_TIMEOUT),
    ],
)
def test_what_a_container_waits_for(reason: str, message: str, seconds: float, expected: Reason) -> None:
    waiting = ContainerView(waiting_reason=reason, waiting_message=message)
    for view in (made_pod(main=waiting), made_pod(stuck_init=waiting, main=ContainerView("PodInitializing"))):
        stop = limits(made_job(), at(seconds), view)
        assert stop.reason is expected
        assert reason in stop.message


def test_volumes_that_are_not_there() -> None:
    view = pod("not_mounted")
    terms = Terms(mounts="Secret absent")
    stop = limits(made_job(terms), view.created_at + timedelta(seconds=60), view)
    assert stop.reason is Reason.CONFIG
    assert "they need Secret absent" in stop.message
    later = view.created_at + timedelta(seconds=600)
    assert limits(made_job(replace(terms, has_volume=True)), later, view).reason is Reason.CONFIG, "a claim takes time"
    assert limits(made_job(), later, view).reason is Reason.PENDING_TIMEOUT, "it needs nothing"
    assert job("active").terms.mounts == ""


def test_an_unschedulable_pod_is_told_as_such_whatever_its_containers_say() -> None:
    view = made_pod(unschedulable="no node", main=ContainerView("ErrImageNeverPull"), is_mounting=True)
    assert limits(made_job(Terms(mounts="x")), at(600), view).reason is Reason.UNSCHEDULABLE


def test_the_next_look_is_at_the_first_of_all_limits() -> None:
    view = made_job(Terms(timeout_seconds=50, pending_timeout_seconds=20), deadline_at=at(30))
    assert look(view, made_pod(), now=at(0)).look_again_at == at(20)
    assert look(view, running_pod(), now=at(0)).look_again_at == at(30)
    assert look(replace(view, deadline_at=at(90)), running_pod(), now=at(0)).look_again_at == at(52)
    assert look(made_job(), running_pod()).look_again_at is None
    assert look(made_job(), now=at(0)).look_again_at == at(60), "why has it no pod?"


def test_a_job_without_a_pod_is_asked_about_again_and_again() -> None:
    created = made_job().created_at
    due = created + timedelta(seconds=RULES.podless_seconds)
    assert look(made_job(), now=due - TICK).todo is Todo.NOTHING
    assert look(made_job(), now=due).todo is Todo.EXPLAIN
    hurried = made_job(Terms(pending_timeout_seconds=5))
    assert look(hurried, now=created + timedelta(seconds=5)).todo is Todo.EXPLAIN
    for quiet in (made_job(is_suspended=True), made_job(stop=Stop("cancelled"))):
        assert look(quiet, now=due).todo is not Todo.EXPLAIN
    assert look(made_job(), made_pod("a", gone=True), now=due).todo is Todo.NOTHING, "it had one"
    asked = assess(made_job(), [], is_gone=False, now=due, rules=RULES, asked_at=due)
    assert (asked.todo, asked.look_again_at) == (Todo.NOTHING, due + timedelta(seconds=RULES.podless_seconds))


def test_pods_that_are_over_have_no_limits() -> None:
    assert look(made_job(), failed_pod(), made_pod("b", gone=True), now=at(10**6)).todo is Todo.NOTHING


# nodes that do not answer


def test_a_pod_whose_node_does_not_answer() -> None:
    ending = running_pod(is_deleting_until=at(10))
    view = made_job(Terms(timeout_seconds=1))
    stop = limits(view, at(10 + RULES.node_lost_seconds), ending)
    assert stop == Stop(Reason.NODE_LOST, "its node does not answer, in attempt 1 of 1")
    waiting = made_pod(is_deleting_until=at(10), main=ContainerView("ErrImageNeverPull"))
    assert limits(view, at(70), waiting).reason is Reason.NODE_LOST, "one that is ending waits for nothing"


def test_its_pod_is_removed_by_force_once_it_was_told_to_stop() -> None:
    view = made_job(stop=Stop("cancelled"))
    ending, lives = running_pod(is_deleting_until=at(10)), running_pod("b")
    before = look(view, ending, lives, now=at(70) - TICK)
    assert (before.todo, before.look_again_at) == (Todo.NOTHING, at(70))
    found = look(view, ending, lives, now=at(70))
    assert (found.todo, found.pods) == (Todo.FORCE_PODS, (ending,))
    assert look(view, replace(ending, gone=True), now=at(70)).todo is Todo.NOTHING


@pytest.mark.parametrize(
    ("changes", "seconds", "view"),
    [
        ({"config_seconds": 1}, 1, made_pod(main=ContainerView("CreateContainerConfigError"))),
        ({"image_seconds": 2}, 2, made_pod(main=ContainerView("ErrImagePull", "not found"))),
        ({"mount_seconds": 3}, 3, made_pod(is_mounting=True)),
        ({"node_lost_seconds": 4}, 14, running_pod(is_deleting_until=at(10))),
    ],
)
def test_the_rules_are_settings(changes: dict[str, Any], seconds: float, view: PodView) -> None:
    limits(made_job(Terms(mounts="Secret s")), at(seconds), view, rules=Rules(**changes))


@pytest.mark.parametrize(
    ("end", "phases", "expected"),
    [
        (JobEnd.COMPLETE, (), True),
        (JobEnd.FAILED, ("Succeeded",), False),
        (None, ("Failed", "Succeeded"), True),
        (None, ("Failed", "Running"), False),
        (None, (), False),
    ],
)
def test_success(end: JobEnd | None, phases: tuple[str, ...], expected: bool) -> None:
    assert is_success(made_job(end=end), [made_pod(phase=phase) for phase in phases]) == expected
