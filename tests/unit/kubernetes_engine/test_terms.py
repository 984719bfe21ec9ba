"""What a Job carries along of its plan: read back as it was written, and what somebody broke falls back to defaults."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.kubernetes_engine.objects import JOBS, job, made_job, recorded_job
from trigger.kubernetes_engine import names, terms
from trigger.kubernetes_engine.assess import Rules, assess
from trigger.kubernetes_engine.attempts import attempts_of
from trigger.kubernetes_engine.status import ContainerView, PodView
from trigger.kubernetes_engine.terms import MAX_INT32, MAX_INT64, Terms, read, terms_of, write
from trigger.plan import Code, Limits, OutputMode, RunPlan

SECONDS = st.integers(0, 2_592_000) | st.floats(0, 2_592_000)
WHOLE = st.integers(0, MAX_INT64)
TERMS = st.builds(
    Terms,
    function=st.text(),
    backoff_limit=st.integers(0, 100),
    timeout_seconds=st.none() | SECONDS,
    pending_timeout_seconds=SECONDS,
    ttl_seconds=st.integers(0, MAX_INT32),
    memory_bytes=st.none() | WHOLE,
    output=st.sampled_from(OutputMode),
    output_bytes=WHOLE,
    log_tail_bytes=WHOLE,
    runtime=st.none() | st.text(),
    keep_log=st.booleans(),
    keep_pod=st.booleans(),
    has_volume=st.booleans(),
    code=st.none() | st.text(),
    mounts=st.text(),
)
DEFAULTS = Terms()


def plan(**changes: Any) -> RunPlan:
    values: dict[str, Any] = {"code": Code(image="x"), "env": {}} | changes
    return RunPlan("run", "request", "convert", "topic", "spec", "catalog", **values)


@settings(deadline=None)
@given(TERMS)
@example(Terms(function="\ud800\0\n\"'}{", mounts="\U0001f600"))
def test_terms_are_read_back_as_they_were_written(given_terms: Terms) -> None:
    text = write(given_terms)
    assert read(text) == given_terms
    assert text.isascii(), "an annotation is what every tool can show"
    assert text.isprintable()


def test_only_what_differs_is_written() -> None:
    assert write(DEFAULTS) == '{"version":1}'
    assert write(Terms(function="f", keep_log=True)) == '{"function":"f","keep_log":true,"version":1}'


@pytest.mark.parametrize("name", JOBS)
def test_the_terms_of_recorded_jobs_are_what_would_be_written(name: str) -> None:
    text = recorded_job(name)["metadata"]["annotations"][names.TERMS]
    assert write(job(name).terms) == text


def test_everything_a_verdict_needs_comes_from_the_plan() -> None:
    limits = Limits(
        backoff_limit=3,
        timeout_seconds=4.5,
        pending_timeout_seconds=6.0,
        ttl_seconds_after_finished=7.6,
        memory_bytes=8,
        output_bytes=9,
        log_tail_bytes=10,
    )
    pod = {
        "keepPod": True,
        "volume": {"size": "1Gi"},
        "settings": {"volumes": [{"secret": {"secretName": "s"}}, {"configMap": {"name": "c"}}, {"emptyDir": {}}]},
    }
    whole = plan(limits=limits, code=Code(runtime="python"), output=OutputMode.STDOUT, keep_log=True, pod=pod)
    found = terms_of(whole, "invoker-code-x")
    assert found == Terms(
        "convert", 3, 4.5, 6.0, 8, 8, OutputMode.STDOUT, 9, 10, "python", True, True, True, "invoker-code-x",
        "ConfigMap invoker-code-x, Secret s, ConfigMap c",
    )  # fmt: skip
    different = [one.name for one in fields(Terms) if getattr(found, one.name) == getattr(DEFAULTS, one.name)]
    assert different == [], "a field that is not looked at here would be forgotten"
    assert read(write(found)) == found
    assert terms_of(plan(), None) == Terms(function="convert"), "the defaults of both are the same"
    assert found.attempts_allowed == 4


@pytest.mark.parametrize(("seconds", "ttl"), [(0.0, 0), (0.4, 0), (0.6, 1), (60.0, 60), (-1.0, 0)])
def test_the_time_to_live_is_whole_seconds(seconds: float, ttl: int) -> None:
    assert terms_of(plan(limits=Limits(ttl_seconds_after_finished=seconds)), None).ttl_seconds == ttl


MOUNTED: list[tuple[Any, str]] = [
    (None, ""),
    ([], ""),
    ([{"secret": {"secretName": "s"}}], "Secret s"),
    ([{"configMap": {"name": "a"}}, {"secret": {"secretName": "b"}}], "ConfigMap a, Secret b"),
    ([{"secret": None}, {"secret": {}}, {"secret": {"secretName": ""}}, {"secret": "s"}, None, 3], ""),
    ({"secret": {"secretName": "s"}}, ""),
]


@pytest.mark.parametrize(("volumes", "mounts"), MOUNTED)
def test_what_the_volumes_need_is_named(volumes: Any, mounts: str) -> None:
    assert terms_of(plan(pod={"settings": {"volumes": volumes}}), None).mounts == mounts
    own = {"template": {"spec": {"volumes": volumes}}}
    assert terms_of(plan(pod={"job": own}), None).mounts == mounts
    for broken in (None, [], {"template": None}, {"template": {"spec": [volumes]}}):
        assert terms_of(plan(pod={"job": broken}), None).mounts == ""


# what somebody broke by hand

TEXTS = ["", "no", "[]", "null", "3", '"x"', "[" * 100_000, '{"a":', "\ud800", "{}", '{"version":99}', "9" * 5000]


@pytest.mark.parametrize("text", TEXTS)
def test_what_are_no_terms_are_the_defaults(text: str) -> None:
    assert read(text) == DEFAULTS


WRONG: list[tuple[str, Any]] = [
    ("backoff_limit", -1), ("backoff_limit", 1.5), ("backoff_limit", True), ("backoff_limit", "1"),
    ("backoff_limit", None), ("backoff_limit", MAX_INT32 + 1), ("ttl_seconds", MAX_INT32 + 1), ("ttl_seconds", 0.5),
    ("timeout_seconds", -0.1), ("timeout_seconds", "5"), ("timeout_seconds", float("nan")), ("timeout_seconds", True),
    ("timeout_seconds", float("inf")), ("pending_timeout_seconds", None), ("pending_timeout_seconds", 10**400),
    ("memory_bytes", 10**400), ("memory_bytes", -1), ("output_bytes", MAX_INT64 + 1), ("output_bytes", 1.0),
    ("log_tail_bytes", []), ("keep_log", 1), ("keep_pod", "true"), ("has_volume", None), ("function", 3),
    ("code", None), ("mounts", {}), ("runtime", ["python"]), ("output", "api2"), ("output", 3), ("output", []),
    ("attempts_allowed", 7), ("__class__", "x"), ("self", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_one_wrong_field_is_its_default_and_the_others_stay(name: str, value: Any) -> None:
    given_terms = {"function": "f", "backoff_limit": 2, "output": "stdout", "keep_log": True} | {name: value}
    expected = Terms("f", 2, output=OutputMode.STDOUT, keep_log=True)
    if name in given_terms and hasattr(DEFAULTS, name) and name in Terms.__dataclass_fields__:
        expected = replace(expected, **{name: getattr(DEFAULTS, name)})
    assert read(json.dumps(given_terms)) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from([one.name for one in fields(Terms)])


@settings(deadline=None)
@given(st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=6))
def test_a_run_can_be_judged_whatever_its_job_carries(broken: dict[str, Any]) -> None:
    """Nothing raises: neither reading, nor a limit made of it, nor a sentence."""
    found = read(json.dumps(broken))
    view = made_job(found)
    moment = view.created_at
    running = PodView("a", "u", "run", moment, phase="Running", main=ContainerView(started_at=moment))
    ended = ContainerView(started_at=moment, finished_at=moment, exit_code=137, end_reason="OOMKilled")
    failed = PodView("b", "v", "run", moment, phase="Failed", main=ended)
    for pods in ([running], [failed], [PodView("c", "w", "run", moment)], [failed, running]):
        assess(view, pods, is_gone=False, now=moment, rules=Rules())
        attempts_of(pods, found, None)
    assert 0 <= found.ttl_seconds <= MAX_INT32
    assert read(write(found)) == found


def test_terms_are_kept_once_for_each_text() -> None:
    text = write(Terms(function="kept once"))
    assert read(text) is read("".join([text])), "10,000 runs of a version share them"
    assert terms.read.cache_info().maxsize == 4096
