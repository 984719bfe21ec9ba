"""A plan as its Job: what is forced is in every form of it, whatever a function says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.errors import StartRefusedError
from tests.unit.kubernetes_engine.objects import JOBS, recorded_job
from tests.unit.kubernetes_engine.planned_jobs import (
    CODE,
    DISRUPTED,
    HARDENED,
    POLICY,
    RUN_ID,
    env,
    made,
    main,
    plan,
    pod,
)
from tests.unit.test_function_pod import EVERY_SETTING
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.manifest import UNSEALED_TTL_SECONDS
from trigger.kubernetes_engine.policy import refusals
from trigger.kubernetes_engine.status import job_view
from trigger.plan import Code, InputMode, Limits, OutputMode

HARD: dict[str, Any] = {
    "parallelism": 1,
    "completions": 1,
    "backoffLimit": 3,
    "ttlSecondsAfterFinished": UNSEALED_TTL_SECONDS,
    "podReplacementPolicy": "Failed",
}
HARD_POD: dict[str, Any] = {"restartPolicy": "Never", "automountServiceAccountToken": False}


def assert_forced(job: Any) -> None:
    """Everything that the design forces on a Job, and Pod Security `restricted`."""
    metadata, spec = job["metadata"], job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert metadata["name"] == f"mine-{RUN_ID}"
    assert metadata["finalizers"] == ["invoker.dev/result"]
    assert HARD.items() <= spec.items()
    assert spec["podFailurePolicy"]["rules"][0] == DISRUPTED
    ours = names.labels("mine", "convert", RUN_ID, "request-1")
    assert ours.items() <= metadata["labels"].items()
    assert ours.items() <= spec["template"]["metadata"]["labels"].items()
    view = job_view(job)
    assert view is not None
    assert (view.run_id, view.spec_hash, view.catalog) == (RUN_ID, "5f" * 16, "ca" * 16)
    assert view.terms.function == "convert"
    assert HARD_POD.items() <= pod(job).items()
    assert pod(job)["securityContext"]["runAsNonRoot"] is True
    assert pod(job)["securityContext"].get("runAsUser") != 0
    assert pod(job)["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    for container in (*pod(job)["containers"], *pod(job).get("initContainers", ())):
        assert HARDENED.items() <= container["securityContext"].items()
        assert not container["securityContext"].get("privileged")
    assert [one["name"] for one in pod(job)["containers"]].count("function") == 1
    assert main(job)["terminationMessagePath"] == "/dev/termination-log"
    assert env(job)["INVOKER_TERMINATION_FILE"] == "/dev/termination-log"
    assert env(job)["INVOKER_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert env(job)["INVOKER_RUN_ID"] == RUN_ID


LIMITS = Limits(backoff_limit=3)
FULL_JOB: dict[str, Any] = {
    "suspend": False,
    "template": {
        "metadata": {"labels": {"team": "etl"}, "annotations": {"note": "n"}},
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "containers": [
                {"name": "main", "image": "own:1", "env": [{"name": "A", "value": "1"}]},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    },
}
FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "an image": ({}, None),
    "a runtime": ({"code": Code(runtime="python", handler="main.handle")}, CODE),
    "a command": ({"code": Code(command=("sort",), args=("-u",))}, None),
    "input as a file": ({"input": InputMode.FILE}, None),
    "stdout": ({"output": OutputMode.STDOUT}, None),
    "a volume": ({"pod": {"volume": {"size": "1Gi", "mountPath": "/scratch"}}}, None),
    "every setting": ({"pod": {"settings": EVERY_SETTING}}, None),
    "a Job of its own": ({"pod": {"job": FULL_JOB}, "code": Code()}, None),
    "labels and exit codes": ({"labels": {"team": "etl"}, "no_retry_exit_codes": frozenset({7, 3})}, None),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_forced_is_in_every_form_of_a_job(form: str) -> None:
    changes, code = FORMS[form]
    job = made(plan(limits=LIMITS, **changes), code=code)
    assert_forced(job)
    assert refusals(job, POLICY) == []


@pytest.mark.parametrize("name", [one for one in JOBS if one not in ("released", "stopped", "stopping")])
def test_the_recorded_jobs_still_are_what_a_plan_makes(name: str) -> None:
    """What the API server stored, beside its own defaults, is what this module makes."""
    stored = recorded_job(name)
    view = job_view(stored)
    assert view is not None
    forced = {**HARD, "backoffLimit": view.terms.backoff_limit}
    assert forced.items() <= stored["spec"].items()
    assert HARD_POD.items() <= pod(stored).items()
    assert stored["spec"]["podFailurePolicy"]["rules"][0] == DISRUPTED
    assert HARDENED.items() <= main(stored)["securityContext"].items()


def wrong(path: str, value: Any) -> dict[str, Any]:
    """A Job that says something else in one place."""
    job = copy.deepcopy(FULL_JOB)
    target: Any = job
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        target = target[part] if isinstance(target, list) else target.setdefault(part, {})
    target[last] = value
    return job


CONTAINER = "template/spec/containers/0"
CONTRADICTIONS = [
    ("parallelism", 2), ("completions", 5), ("backoffLimit", 0), ("podReplacementPolicy", "TerminatingOrFailed"),
    ("template/spec/restartPolicy", "OnFailure"), ("template/spec/automountServiceAccountToken", True),
    ("template/spec/securityContext", {"runAsNonRoot": False}), (f"{CONTAINER}/terminationMessagePath", "/x"),
    (f"{CONTAINER}/securityContext", {"allowPrivilegeEscalation": True}),
    (f"{CONTAINER}/securityContext", {"capabilities": {"drop": []}, "privileged": True}),
    (f"{CONTAINER}/securityContext", {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
    (f"{CONTAINER}/env", [{"name": "INVOKER_RUN_ID", "value": "other"}]),
    (f"{CONTAINER}/env", [{"name": "INVOKER_POD_UID", "value": "other"}]),
    ("template/metadata/labels", {"invoker.dev/run": "other"}),
    ("template/metadata/labels", {"app.kubernetes.io/managed-by": "other"}),
    ("template/spec/volumes", [{"name": "invoker-work", "hostPath": {"path": "/"}}]),
    ("template/spec/hostNetwork", True), ("template/spec/hostPID", True), ("template/spec/nodeName", "n"),
    ("template/spec/securityContext", {"runAsUser": 0}), ("completionMode", "Indexed"), ("suspend", True),
    ("selector", {}), ("managedBy", "me"), ("successPolicy", {}), ("activeDeadlineSeconds", 0),
    (f"{CONTAINER}/restartPolicy", "Always"), (f"{CONTAINER}/lifecycle", {}), ("template/spec/serviceAccount", "a"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), CONTRADICTIONS)
def test_a_job_that_contradicts_what_is_forced_is_refused(path: str, value: Any) -> None:
    of = plan(limits=LIMITS, code=Code(), pod={"job": wrong(path, value)})
    try:
        job = made(of)
    except StartRefusedError as error:
        assert error.message.startswith("job: ")  # noqa: PT017 - either this module or the policy says no
    else:
        assert refusals(job, POLICY), "nobody refused it"


KEYS = st.sampled_from(
    [*HARD, *HARD_POD, "template", "spec", "metadata", "containers", "initContainers", "volumes", "securityContext",
     "labels", "annotations", "finalizers", "name", "env", "value", "invoker.dev/run", "invoker.dev/terms", "image",
     "invoker.dev/instance", "hostNetwork", "runAsNonRoot", "privileged", "podFailurePolicy", "queue", "sidecars"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "x", "Always", "function", "0"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=4), st.dictionaries(KEYS, TREES, max_size=4))
def test_whatever_job_a_function_gives_it_is_forced_or_refused(job: dict[str, Any], inner: dict[str, Any]) -> None:
    own = {"template": {"spec": {"containers": [{"name": "main", "image": "own:1"}], **inner}}, **job}
    of = plan(limits=LIMITS, code=Code(), pod={"job": own})
    before = copy.deepcopy(own)
    try:
        found = made(of)
    except StartRefusedError as error:
        assert error.fields["reason"] == "config"  # noqa: PT017 - the other outcome is looked at below
    else:
        if not refusals(found, POLICY):
            assert_forced(found)
    assert own == before, "what was given is not changed"


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(st.sampled_from([*names.labels("a", "b", "c", "d"), "team"]), st.just("x")),
        "annotations": st.dictionaries(
            st.sampled_from(["note", names.RUN, names.TERMS, names.SPEC, names.CATALOG, names.STOP]), st.just("x")
        ),
        "securityContext": st.dictionaries(st.sampled_from(["runAsUser", "runAsNonRoot", "fsGroup"]), SCALARS),
        "initContainers": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["a", "function", "input"]), "image": st.just("i:1")},
                optional={
                    "securityContext": st.dictionaries(
                        st.sampled_from(["privileged", "allowPrivilegeEscalation", "capabilities"]), SCALARS
                    )
                },
            ),
            max_size=2,
        ),
        "volumes": st.just([{"name": "invoker-work", "emptyDir": {}}]),
        "terminationGracePeriodSeconds": st.integers(0, 5),
        "readOnlyRootFilesystem": st.booleans(),
        "restartPolicy": st.just("Always"),
        "hostNetwork": st.just(True),
        "containers": st.just([{"name": "other"}]),
        "automountServiceAccountToken": st.just(True),
    },
)


@settings(deadline=None)
@given(SETTINGS)
def test_whatever_settings_a_function_has_the_job_is_forced_or_refused(given_settings: dict[str, Any]) -> None:
    job = made(plan(limits=LIMITS, pod={"settings": given_settings}))
    assert "hostNetwork" not in pod(job)
    assert len(pod(job)["containers"]) == 1
    if not refusals(job, POLICY):
        stop = names.STOP in given_settings.get("annotations", {})
        assert stop or names.STOP not in job["metadata"]["annotations"]
        assert_forced(job)
