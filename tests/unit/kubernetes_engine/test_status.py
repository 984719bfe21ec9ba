"""What is read from Jobs and pods: every state as a real cluster told it, and nothing raises for what is broken."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.result import Reason
from tests.unit.kubernetes_engine.objects import JOBS, PODS, at, job, pod, recorded_job, recorded_pod
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.assess import Rules, assess
from trigger.kubernetes_engine.attempts import attempts_of
from trigger.kubernetes_engine.conclusion import Evidence, last_pod, reads_log, reads_output, run_end
from trigger.kubernetes_engine.status import JobEnd, Stop, instant, job_view, pod_view, run_job, stop_annotation

NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)


# Jobs


@pytest.mark.parametrize(
    ("name", "end", "reason"),
    [
        ("new", None, ""),
        ("active", None, ""),
        ("counted", None, ""),  # SuccessCriteriaMet: its pod is not counted yet
        ("failing", None, ""),  # FailureTarget: its pods may live
        ("stopping", None, ""),
        ("complete", JobEnd.COMPLETE, "CompletionsReached"),
        ("failed", JobEnd.FAILED, "BackoffLimitExceeded"),
        ("failed_by_policy", JobEnd.FAILED, "PodFailurePolicy"),
        ("overdue", JobEnd.FAILED, "DeadlineExceeded"),
        ("stopped", JobEnd.FAILED, "DeadlineExceeded"),
        ("suspended", None, ""),
        ("deleted", None, ""),
    ],
)
def test_the_end_of_a_job(name: str, end: JobEnd | None, reason: str) -> None:
    view = job(name)
    assert (view.end, view.end_reason) == (end, reason)


def test_what_else_a_job_tells() -> None:
    view = job("complete")
    assert view.name == f"invoker-{view.run_id}"
    assert (view.terms.function, view.terms.backoff_limit) == ("complete", 0)
    assert (view.spec_hash, view.catalog) == ("5f" * 16, "ca" * 16)
    assert view.deadline_at is not None
    assert view.deadline_at - view.created_at > timedelta(hours=23)
    assert view.version > job("new").version > 0
    assert job("failed").terms.backoff_limit == 1
    assert job("failed_by_policy").terms.attempts_allowed == 4
    assert job("out_of_memory").terms.memory_bytes == 32 << 20
    assert job("volume").terms.has_volume


@pytest.mark.parametrize("name", JOBS)
def test_held_deleting_suspended(name: str) -> None:
    view = job(name)
    assert view.is_held == (name != "released")
    assert view.is_deleting == (name == "deleted")
    assert view.is_suspended == name.startswith("suspended")


def test_the_word_left_on_a_job() -> None:
    assert job("active").stop is None
    for name in ("stopping", "stopped"):
        begun = datetime(2026, 11, 21, 14, 19, 45, tzinfo=UTC)  # its pods' end
        assert job(name).stop == Stop("cancelled", "cancelled in attempt 1", at=begun)
    assert job("suspended_stopped").stop == Stop("cancelled", "cancelled before its first attempt")
    overdue = job("overdue").stop
    assert overdue is not None
    assert replace(overdue, at=None) == Stop(Reason.TIMEOUT), "Kubernetes stopped it, with nobody there to say so"
    late = job("told_late_failed").stop
    assert late is not None
    assert (late.is_limit, late.at) == (True, pod("told_late_failed").deleted_at), "as long as nobody hurries it"


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        (stop_annotation(Stop("timeout", 'a "quoted"\nsentence – ü')), Stop("timeout", 'a "quoted"\nsentence – ü')),
        ("cancelled", Stop("cancelled")),
        ("", Stop("")),
        ("x" * 500, Stop("x" * 200)),
        ('"text"', Stop('"text"')),
        ("[1]", Stop("[1]")),
        ("null", Stop("null")),
        ("{}", Stop("")),
        ('{"reason": null, "message": 7}', Stop("")),
        ('{"reason": "timeout"}', Stop("timeout")),
        ('{"reason": "timeout", "limit": 1}', Stop("timeout")),
        (stop_annotation(Stop("timeout", "m", is_limit=True)), Stop("timeout", "m", is_limit=True)),
        (json.dumps({"reason": "r" * 500, "message": "m" * 5000}), Stop("r" * 200, "m" * 2000)),
        ("[" * 100_000, Stop("[" * 200)),
        (7, None),
        (None, None),
    ],
)
def test_a_stop_that_somebody_wrote_by_hand(text: Any, stop: Stop | None) -> None:
    item = recorded_job("active")
    item["metadata"]["annotations"][names.STOP] = text
    view = job_view(item)
    assert view is not None
    assert view.stop == stop


def test_the_annotation_wins_over_kubernetes_own_deadline() -> None:
    item = recorded_job("overdue")
    item["metadata"]["annotations"][names.STOP] = stop_annotation(Stop("cancelled", "by hand"))
    view = job_view(item)
    assert view is not None
    assert view.stop is not None
    assert replace(view.stop, at=None) == Stop("cancelled", "by hand")


@pytest.mark.parametrize(
    ("reason", "status", "moments", "expected"),
    [
        ("DeadlineExceeded", "True", ["2026-01-02T03:04:06Z", "2026-01-02T03:04:05Z"], at(0)),
        ("DeadlineExceeded", "True", ["soon", "2026-01-02T03:04:06Z"], at(1)),
        ("DeadlineExceeded", "True", [None], None),
        ("DeadlineExceeded", "False", ["2026-01-02T03:04:05Z"], None),
        ("BackoffLimitExceeded", "True", ["2026-01-02T03:04:05Z"], None),
    ],
)
def test_when_kubernetes_began_to_end_its_pods(
    reason: str, status: str, moments: list[str | None], expected: datetime | None
) -> None:
    item = recorded_job("active")
    item["metadata"]["annotations"][names.STOP] = stop_annotation(Stop("cancelled"))
    item["status"]["conditions"] = [
        {"type": "FailureTarget", "reason": reason, "status": status, "lastTransitionTime": moment}
        for moment in moments
    ]
    view = job_view(item)
    assert view is not None
    assert view.stop == Stop("cancelled", at=expected)
    del item["metadata"]["annotations"][names.STOP]
    view = job_view(item)
    assert view is not None
    assert view.stop is None


@pytest.mark.parametrize("kind", ["job", "pod"])
@pytest.mark.parametrize("run_id", [None, "", 7, ["a"]])
def test_an_object_of_no_run(kind: str, run_id: Any) -> None:
    item = recorded_job("active") if kind == "job" else recorded_pod("running")
    place = item["metadata"]["annotations" if kind == "job" else "labels"]
    if run_id is None:
        del place[names.RUN]
    else:
        place[names.RUN] = run_id
    assert (job_view(item) if kind == "job" else pod_view(item)) is None


def test_whose_a_job_is() -> None:
    """Its run's, by name, label and annotation together: a copy has the last two, and a stranger's Job the first."""
    item = recorded_job("active")
    instance, run_id = item["metadata"]["labels"][names.INSTANCE], item["metadata"]["annotations"][names.RUN]
    assert run_job(item, instance) == run_job(item, instance, run_id) == job_view(item)
    assert run_job(item, instance, "another") is None
    assert run_job(item, "another") is None
    copied = copy.deepcopy(item)
    copied["metadata"]["name"] = f"copy-of-{item['metadata']['name']}"
    assert run_job(copied, instance, run_id) is None
    del item["metadata"]["annotations"][names.RUN]
    assert run_job(item, instance, run_id) is None


def test_a_pod_of_a_copied_job_is_no_runs() -> None:
    item = recorded_pod("running")
    assert item["metadata"]["labels"][names.JOB].endswith(item["metadata"]["labels"][names.RUN])
    item["metadata"]["labels"][names.JOB] = "copied-by-hand"
    assert pod_view(item) is None
    del item["metadata"]["labels"][names.JOB]
    assert pod_view(item) is not None, "an older Kubernetes does not say whose it is"


def test_a_condition_counts_when_it_is_true() -> None:
    item = recorded_job("complete")
    for condition in item["status"]["conditions"]:
        condition["status"] = "Unknown"
    view = job_view(item)
    assert view is not None
    assert view.end is None


# pods


@pytest.mark.parametrize(
    ("name", "phase", "waiting", "started", "exit_code"),
    [
        ("new", "Pending", "", False, None),
        ("scheduled", "Pending", "", False, None),
        ("creating", "Pending", "ContainerCreating", False, None),
        ("starting", "Pending", "ContainerCreating", False, None),
        ("running", "Running", "", True, None),
        ("main_ended", "Running", "", True, 0),
        ("succeeded", "Succeeded", "", True, 0),
        ("failed_first", "Failed", "", True, 3),
        ("no_retry", "Failed", "", True, 42),
        ("out_of_memory", "Failed", "", True, 137),
        ("signalled", "Failed", "", True, 137),
        ("start_error", "Failed", "", False, 128),
        ("never_pull", "Pending", "ErrImageNeverPull", False, None),
        ("pull_failed", "Pending", "ErrImagePull", False, None),
        ("pull_backoff", "Pending", "ImagePullBackOff", False, None),
        ("config_error", "Pending", "CreateContainerConfigError", False, None),
        ("init_failed", "Failed", "PodInitializing", False, None),
        ("stopping", "Running", "", True, None),
        ("stopped", "Succeeded", "", True, 0),
        ("over_limit", "Failed", "", True, 137),
        ("pod_overdue", "Failed", "", True, 0),
    ],
)
def test_the_functions_container(name: str, phase: str, waiting: str, started: bool, exit_code: int | None) -> None:
    view = pod(name)
    assert view.phase == phase
    assert (view.main.waiting_reason, view.main.exit_code) == (waiting, exit_code)
    assert (view.main.started_at is not None) == started
    assert view.main.has_ended == (exit_code is not None) == (view.main.finished_at is not None)
    assert view.is_over == (phase in ("Succeeded", "Failed"))


def test_words_of_the_kubelet_are_kept() -> None:
    assert "no-such-program" in pod("start_error").main.message
    assert pod("start_error").main.end_reason == "StartError"
    assert pod("out_of_memory").main.end_reason == "OOMKilled"
    assert pod("config_error").main.waiting_message == 'secret "absent" not found'
    assert pod("over_limit").reason == "Evicted"
    assert "exceeds the limit" in pod("over_limit").message
    assert pod("pod_overdue").reason == "DeadlineExceeded"


@pytest.mark.parametrize("name", PODS)
def test_only_these_are_unschedulable_being_mounted_taken_or_deleted(name: str) -> None:
    view = pod(name)
    assert (view.unschedulable is not None) == (name in ("unschedulable", "claim_unbound"))
    assert (view.disruption is not None) == (name in ("evicting", "evicted", "evicted_gone"))
    deleting = ("evicting", "evicted", "evicted_gone", "deleting", "deleted", "overdue", "stopping", "stopped")
    deleting += ("told_late_failed", "told_late_done", "over_time")
    assert (view.is_deleting_until is not None) == (view.deleted_at is not None) == (name in deleting)
    if not view.is_over:
        mounting = ("creating", "not_mounted", "init_waiting")
        assert view.is_mounting == (name in (*mounting, "sidecar_ended"))


def test_why_no_node_takes_a_pod() -> None:
    assert "didn't match" in str(pod("unschedulable").unschedulable)
    assert pod("evicted").disruption == "EvictionByEvictionAPI"


@pytest.mark.parametrize("name", PODS)
def test_an_init_container_that_failed_or_is_stuck(name: str) -> None:
    view = pod(name)
    assert (view.failed_init is not None) == (name in ("init_failing", "init_failed"))
    assert (view.stuck_init is not None) == (name == "init_stuck")


def test_the_init_container_that_failed() -> None:
    failed = pod("init_failed").failed_init
    assert failed is not None
    assert (failed[0], failed[1].exit_code) == ("prepare", 4)
    stuck = pod("init_stuck").stuck_init
    assert stuck is not None
    assert stuck.waiting_reason == "ErrImageNeverPull"


def test_a_sidecar_that_ends_badly_is_no_failed_init_container() -> None:
    item = recorded_pod("sidecar_failed")
    assert item["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 9
    assert pod("sidecar_failed").failed_init is None
    assert pod("sidecar_failed").main.exit_code == 7


def test_a_sidecar_that_ended_before_the_function_began_is_started_again() -> None:
    item = recorded_pod("sidecar_first")
    item["status"]["initContainerStatuses"][0]["state"] = {"terminated": {"exitCode": 1}}
    view = pod_view(item)
    assert view is not None
    assert view.failed_init is None
    del item["spec"]["initContainers"][0]["restartPolicy"]
    view = pod_view(item)
    assert view is not None
    assert view.failed_init is not None, "the same of an ordinary one"


def test_other_containers_are_not_the_functions() -> None:
    item = recorded_pod("succeeded")
    helper = copy.deepcopy(item["status"]["containerStatuses"][0])
    helper["name"], helper["state"] = "helper", {"terminated": {"exitCode": 9}}
    item["status"]["containerStatuses"].insert(0, helper)
    view = pod_view(item)
    assert view is not None
    assert view.main.exit_code == 0


def test_a_container_that_never_ran_has_no_start() -> None:
    assert (
        recorded_pod("start_error")["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"][:4] == "1970"
    )
    assert pod("start_error").main.started_at is None


@pytest.mark.parametrize("value", [None, "7", 1.5, {}])
def test_an_exit_code_that_is_none_is_a_bad_one(value: Any) -> None:
    item = recorded_pod("succeeded")
    item["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] = value
    view = pod_view(item)
    assert view is not None
    assert view.main.exit_code == 255


# termination messages


def test_a_termination_message_is_cut_without_a_word() -> None:
    assert pod("termination").main.termination == b"the output"
    assert pod("termination_4096").main.termination == b"a" * 4096
    assert pod("termination_5000").main.termination == b"a" * 4096


def test_bytes_that_are_no_text_are_lost() -> None:
    assert pod("termination_no_text").main.termination == "a\ufffd\0b\ufffd".encode()


def test_half_a_character_does_not_raise() -> None:
    item = recorded_pod("termination")
    item["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = "a\ud800b"
    view = pod_view(item)
    assert view is not None
    assert view.main.termination == b"a?b"


@pytest.mark.parametrize(
    ("containers", "initial", "share"), [(1, 0, 4096), (1, 2, 4096), (2, 2, 3072), (1, 11, 1024), (0, 0, 4096)]
)
def test_containers_share_the_room_for_termination_messages(containers: int, initial: int, share: int) -> None:
    item = recorded_pod("termination")
    item["spec"]["containers"] = [{"name": f"c{number}"} for number in range(containers)]
    item["spec"]["initContainers"] = [{"name": f"i{number}"} for number in range(initial)]
    view = pod_view(item)
    assert view is not None
    assert view.termination_bytes == share


# times and versions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678901Z", datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
        ("2026-01-02T04:04:05+01:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05", None),
        ("2026-01-02", None),
        ("soon", None),
        ("", None),
        (None, None),
        (1767322445, None),
    ],
)
def test_instants(text: Any, expected: datetime | None) -> None:
    assert instant(text) == expected


@pytest.mark.parametrize(
    ("text", "version"), [("17", 17), ("", 0), ("x", 0), ("²", 0), ("٣", 0), ("-1", 0), ("9" * 5000, 0), (17, 0)]
)
def test_versions(text: Any, version: int) -> None:
    item = recorded_pod("running")
    item["metadata"]["resourceVersion"] = text
    view = pod_view(item)
    assert view is not None
    assert view.version == version


def test_when_a_pod_was_asked_to_end() -> None:
    view = pod("deleting")
    assert view.deleted_at is not None
    assert view.is_deleting_until is not None
    assert view.is_deleting_until - view.deleted_at == timedelta(seconds=5)
    item = recorded_pod("deleting")
    item["metadata"]["deletionGracePeriodSeconds"] = 10**12
    far = pod_view(item)
    assert far is not None
    assert far.deleted_at == view.is_deleting_until


# whatever is broken

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["True", "²"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
INSTANTS = st.sampled_from(
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-21T14:19:46", "2026-13-01T00:00:00Z"]
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in paths(one, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The object with what is at the path replaced, or gone when `new` is `...`."""
    *parents, last = path
    place = value
    for key in parents:
        place = place[key]
    if new is ...:
        del place[last]
    else:
        place[last] = new
    return value


def everything_made_of(item: Any, other: Any) -> None:
    """All that the engine computes from a Job and a pod."""
    one, two = job_view(item), pod_view(other)
    pods = [] if two is None else [two, pod("failed_first")]
    if one is None:
        one = job("active")
    attempts = attempts_of(pods, one.terms, one.stop)
    assess(one, pods, is_gone=False, now=NOW, rules=Rules())
    reads_log(one, pods), reads_output(one, pods), last_pod(pods)
    run_end(one, pods, attempts, Evidence(), is_gone=True)


@settings(deadline=None)
@given(st.data())
def test_an_object_with_any_of_its_parts_replaced_or_gone_raises_nothing(data: st.DataObject) -> None:
    item, other = recorded_job(data.draw(st.sampled_from(JOBS))), recorded_pod(data.draw(st.sampled_from(PODS)))
    del item["spec"]["template"]  # nothing reads it, and it has most of the places
    for one in (item, other):
        for _ in range(data.draw(st.integers(0, 3))):
            path = data.draw(st.sampled_from(paths(one)[1:]))
            changed(one, path, data.draw(JUNK | INSTANTS | st.just(...)))
    everything_made_of(item, other)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "kind"]), JUNK), JUNK)
def test_objects_of_any_shape_raise_nothing(item: dict[str, Any], junk: Any) -> None:
    everything_made_of(item, item)
    labelled = {"metadata": {"labels": {names.RUN: "r"}, "annotations": {names.RUN: "r", names.TERMS: junk}}} | {
        "status": {"conditions": junk, "containerStatuses": junk, "initContainerStatuses": junk, "phase": junk},
        "spec": junk,
    }
    everything_made_of(labelled, labelled)
