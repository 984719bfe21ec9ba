"""A plan as its Job: what is forced whatever a function says, what it may choose, and no value leaves its place."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import InvokerError, SchemaViolationError, StartRefusedError
from invoker.request import Content, RequestRecord
from tests.unit.kubernetes_engine.objects import JOBS, recorded_job
from tests.unit.test_function_file import read
from tests.unit.test_function_pod import EVERY_SETTING
from trigger.function import Function
from trigger.kubernetes_engine import names, terms
from trigger.kubernetes_engine.admission import MAX_REMEMBERED, Admission
from trigger.kubernetes_engine.code_map import CodeFile, code_map
from trigger.kubernetes_engine.manifest import (
    BACKSTOP_SECONDS,
    UNSEALED_TTL_SECONDS,
    ManifestOptions,
    command_of,
    environment,
    escaped,
    job_body,
    job_manifest,
)
from trigger.kubernetes_engine.policy import MAX_JOB_BYTES, Policy, refusals
from trigger.kubernetes_engine.status import job_view
from trigger.plan import Code, InputMode, Limits, OutputMode, RunPlan
from trigger.planning import plan_run

NOW = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
OPTIONS = ManifestOptions("mine", {"python": "python-image:1"})
RUN_ID = wire.run_id_of("request-1", "convert")
CODE = code_map("mine", "convert", {"main.py": CodeFile(b"x"), "lib/run.sh": CodeFile(b"y", executable=True)})
POLICY = Policy("space", allowed_service_accounts=("*",))


def plan(**changes: Any) -> RunPlan:
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "request_id": "request-1",
        "function": "convert",
        "topic": "collected.gz",
        "spec_hash": "5f" * 16,
        "catalog": "ca" * 16,
        "code": Code(image="image:1"),
        "env": {"TOPIC": "collected.gz", "INVOKER_RUN_ID": RUN_ID, "INVOKER_RUN_TOKEN": "token"},
    }
    return RunPlan(**(values | changes))


def made(of: RunPlan, options: ManifestOptions = OPTIONS, code: Any = None) -> Any:
    """The Job as the API server reads it."""
    return json.loads(job_body(of, job_manifest(of, options, code, NOW)))


def pod(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def main(job: Any) -> Any:
    return next(one for one in pod(job)["containers"] if one["name"] == "function")


def env(job: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in main(job)["env"]}


# what the kubelet makes of a text

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\)?)", re.DOTALL)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """The text as a container gets it (Kubernetes, dependent environment variables): `$$` is `$`, `$(NAME)` is the
    variable where there is one."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0]) if match[0].endswith(")") else match[0]

    return _REFERENCE.sub(one, text)


# what is forced

HARD: dict[str, Any] = {
    "parallelism": 1,
    "completions": 1,
    "backoffLimit": 3,
    "ttlSecondsAfterFinished": UNSEALED_TTL_SECONDS,
    "podReplacementPolicy": "Failed",
}
HARD_POD: dict[str, Any] = {"restartPolicy": "Never", "automountServiceAccountToken": False}
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


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


# no value leaves its place

TOKEN, TOPIC = "harmless-text", "harmless-topic"
CASES: dict[str, dict[str, Any]] = {
    "settings": {
        "image": "image:1",
        "command": ["tool", "{{params.text}}"],
        "args": ["--x={{params.text}}", "$(HOME)"],
        "pod": {
            "annotations": {"note": "by {{params.text}} in {{topic}}"},
            "initContainers": [
                {
                    "name": "prepare",
                    "image": "i:1",
                    "command": ["tool", "{{params.text}}"],
                    "env": [{"name": "A", "value": "{{params.text}}"}],
                }
            ],
        },
    },
    "job": {
        "job": {
            "template": {
                "metadata": {"annotations": {"note": "{{params.text}}"}},
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": "own:1",
                            "command": ["tool"],
                            "args": ["{{params.text}}", "a{{request.id}}"],
                            "env": [{"name": "B", "value": "{{params.text}}{{topic}}"}],
                        }
                    ]
                },
            }
        },
    },
}
COMMON: dict[str, Any] = {
    "parameters": [{"name": "text", "schema": {"type": "string"}}],
    "input": {"as": "file"},
    "env": [
        {"name": "TEXT", "value": "{{params.text}}"},
        {"name": "BOTH", "value": "<{{params.text}}|{{topic}}>"},
        {"name": "PLAIN", "value": "$(HOME) $$ costs"},
    ],
}


@cache
def function(case: str) -> Function:
    """The function as it is read from its file, with a request's values wherever they may stand."""
    return read("".join(f"  {key}: {json.dumps(value)}\n" for key, value in (COMMON | CASES[case]).items()))


def planned(case: str, text: str, topic: str = TOPIC, request_id: str = "request-1") -> RunPlan:
    record = RequestRecord(
        request_id=request_id,
        topic=topic,
        received_at=NOW,
        accepted_at=NOW,
        sha256="0" * 64,
        catalog="ca" * 16,
        root_request_id=request_id,
        params={"text": text},
        headers={"X-Any": "any"},
        body=Content.inline(b"any"),
    )
    return plan_run(
        function(case),
        record,
        run_id=RUN_ID,
        body=None,
        run_url="http://10.0.0.5/run",
        run_token="secret",
        catalog="ca" * 16,
        deadline_at=NOW + timedelta(days=1),
        output_limit_bytes=5,
    )


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of the object with its place; empty containers are leaves too."""
    if tree and isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif tree and isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree


def is_expanded(path: tuple[Any, ...]) -> bool:
    return any(part in ("containers", "initContainers") for part in path)


def assert_only_that_text_differs(case: str, text: str, topic: str) -> None:
    """The Job of a request with these values is the Job of a harmless one, with the values in the harmless ones' place;
    what the kubelet makes of them is what was given."""
    harmless = dict(leaves(made(planned(case, TOKEN, TOPIC))))
    found = dict(leaves(made(planned(case, text, topic))))
    assert list(found) == list(harmless), "the same tree"
    places, parts = 0, {TOKEN: text, TOPIC: topic}
    for path, before in harmless.items():
        if not isinstance(before, str) or (TOKEN not in before and TOPIC not in before):
            assert found[path] == before
            continue
        places += 1
        here = found[path]
        if is_expanded(path):
            here, before = (expanded(one, {"HOME": "/home", "A": "leaked"}) for one in (here, before))
        if before == f'{{"text":"{TOKEN}"}}':
            assert json.loads(here) == {"text": text}
        else:
            assert here == "".join(parts.get(part, part) for part in re.split(f"({TOKEN}|{TOPIC})", before))
    assert places >= 8


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NASTY = [
    "", " ", "'", '"', "\\", "a\nb", "\r\n", "\t", "\x01\x1b[31m", "\x7f", "\u2028\u2029\u0085", "\ufeff", "\U0001f600",
    "}}", "{{topic}}", "{{params.text}}", "{{", "$(INVOKER_RUN_TOKEN)", "$$(HOME)", "$(A)", "$", "$$$", "$(", "$()",
    "- a: b\n  c: &x *x", "--- !!python/object:os.system\n...", "null", "true", "1", "~", "key: value", "# no",
    "| \n x",
    '"}],"hostNetwork":true,"x":[{"y":"', "'; rm -rf / #", "`id`", "\\u0000", "\\ud800", "%s%n", "‮abc", "e\u0301",
]  # fmt: skip
TOPICS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=60).filter(
    lambda text: _is_topic(text)
)


def _is_topic(text: str) -> bool:
    try:
        wire.check_topic(text)
    except InvokerError:
        return False
    return True


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", NASTY)
def test_nasty_values_stay_in_their_place(case: str, text: str) -> None:
    assert_only_that_text_differs(case, text, "a.b")


@settings(deadline=None)
@given(st.sampled_from(sorted(CASES)), TEXTS | st.sampled_from(NASTY), TOPICS)
@example("settings", "x", "{{params.text}}")
@example("job", "{{topic}}", "$(A).'\"{}[]&*!|")
def test_any_value_stays_in_its_place(case: str, text: str, topic: str) -> None:
    if _is_topic(topic):
        assert_only_that_text_differs(case, text, topic)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["team", "a/b", "note"]), TEXTS | st.sampled_from(NASTY)), TEXTS)
def test_environment_and_labels_of_a_plan_stay_in_their_place(labels: dict[str, str], value: str) -> None:
    """Whatever a plan holds: its labels and variables are leaves, and a label that is none is refused."""
    before = made(plan(labels=dict.fromkeys(labels, "x"), env={"A": "x"}))
    found = made(plan(labels=labels, env={"A": value}))
    assert [path for path, _ in leaves(found)] == [path for path, _ in leaves(before)]
    assert env(found)["A"] == escaped(value)
    assert labels.items() <= found["metadata"]["labels"].items()
    legal = all(label == "" or names.is_label_value(label) for label in labels.values())
    assert (refusals(found, POLICY) == []) == legal


@settings(deadline=None)
@given(st.text() | st.sampled_from(NASTY))
def test_every_text_arrives_as_it_was(text: str) -> None:
    assert expanded(escaped(text), {"HOME": "leaked", "A": "leaked", "": "leaked"}) == text


SURROGATES = ["\ud800", "a\udfffb", "\udc80"]


@pytest.mark.parametrize("text", SURROGATES)
def test_half_a_character_is_refused_in_words(text: str) -> None:
    for of in (
        plan(env={"A": text}),
        plan(code=Code(image="i", command=("a", text))),
        plan(pod={"settings": {"annotations": {"note": text}}}),
        plan(topic=text),
    ):
        with pytest.raises(StartRefusedError, match="not valid Unicode") as refused:
            made(of)
        assert refused.value.fields["reason"] == "config"
        assert refused.value.message.isprintable()
    with pytest.raises(SchemaViolationError, match="surrogates not allowed"):
        planned("settings", text)


def test_a_nul_is_refused_in_words() -> None:
    with pytest.raises(InvokerError, match="NUL"):
        planned("settings", "a\0b")
    [found] = refusals(made(plan(env={"A": "a\0b"})), POLICY)
    assert found.endswith("value: has a NUL character")


def test_a_megabyte_is_refused_in_words() -> None:
    assert "is longer than 262144 characters" in refusals(made(plan(env={"A": "x" * 300_000})), POLICY)[0]
    for of in (plan(env={"A": "x" * MAX_JOB_BYTES}), plan(env={str(n): "é" * 100_000 for n in range(6)})):
        with pytest.raises(
            StartRefusedError, match=r"the Job of function convert has 1\d+ bytes; at most 1048576 "
        ) as no:
            made(of)
        assert no.value.fields["reason"] == "refused"
    empty = len(json.dumps(made(plan(env={"A": ""})), separators=(",", ":")))
    assert made(plan(env={"A": "x" * (MAX_JOB_BYTES - empty)}))
    with pytest.raises(StartRefusedError):
        made(plan(env={"A": "x" * (MAX_JOB_BYTES - empty + 1)}))


# a version is looked at once


def test_one_requests_value_locks_no_function() -> None:
    admission = Admission()
    large, usual = plan(env={"A": "x" * 300_000}), plan()
    for of in (large, large):
        with pytest.raises(StartRefusedError, match=r"the Job of convert is not allowed here: .* is longer than") as no:
            admission.check(of, made(of), POLICY)
        assert no.value.fields["reason"] == "refused"
        assert len(no.value.message) <= 1000
    admission.check(usual, made(usual), POLICY)


def test_a_version_that_is_allowed_is_looked_at_once() -> None:
    admission = Admission()
    admission.check(plan(), made(plan()), POLICY)
    admission.check(plan(), {"not": "looked at"}, POLICY)
    for other in (plan(spec_hash="x"), plan(function="x")):
        with pytest.raises(StartRefusedError):
            admission.check(other, {"not": "a Job"}, POLICY)
    for number in range(MAX_REMEMBERED):
        admission.check(plan(spec_hash=str(number)), made(plan()), POLICY)
    with pytest.raises(StartRefusedError):
        admission.check(plan(), {"not": "a Job"}, POLICY)


# the parts


def test_ours_stand_over_what_a_function_says_of_itself() -> None:
    ours = [names.RUN, names.REQUEST, names.TOPIC, names.SPEC, names.CATALOG, names.TERMS]
    job = made(plan(pod={"settings": {"annotations": dict.fromkeys(ours, "x"), "labels": {names.RUN: "x"}}}))
    assert "x" not in job["metadata"]["annotations"].values()
    loose = {"allowPrivilegeEscalation": True, "capabilities": {"add": ["SYS_ADMIN"]}, "runAsUser": 7}
    own = [{"name": "own", "image": "i", "securityContext": loose}]
    [container] = pod(made(plan(pod={"settings": {"initContainers": own}})))["initContainers"]
    assert container["securityContext"] == {**HARDENED, "runAsUser": 7}
    assert job["metadata"]["labels"][names.RUN] == RUN_ID
    environ = env(made(plan(env={"INVOKER_WORKDIR": "/x", "INVOKER_TERMINATION_FILE": "/x", "HOME": "/own"})))
    assert (environ["INVOKER_WORKDIR"], environ["INVOKER_TERMINATION_FILE"]) == ("/work", "/dev/termination-log")
    assert (environ["HOME"], environ["TMPDIR"]) == ("/own", "/work"), "these two are only our defaults"


def test_where_labels_and_annotations_go() -> None:
    chosen = {"labels": {"team": "b", "own": "c"}, "annotations": {"note": "n"}, "queue": "q"}
    of = plan(labels={"team": "a", "size": "x"}, pod={"settings": chosen}, deadline_at=NOW)
    job = made(of)
    template = job["spec"]["template"]["metadata"]
    ours = names.labels("mine", "convert", RUN_ID, "request-1")
    assert template["labels"] == {"team": "b", "own": "c", "size": "x", **ours}
    assert job["metadata"]["labels"] == {**template["labels"], "kueue.x-k8s.io/queue-name": "q"}
    assert template["annotations"] == {"note": "n"}
    assert set(job["metadata"]["annotations"]) == {
        "note", names.RUN, names.REQUEST, names.TOPIC, names.SPEC, names.CATALOG, names.TERMS, names.DEADLINE,
    }  # fmt: skip
    assert job_view(job).deadline_at == NOW  # type: ignore[union-attr] # it is a run's
    east = datetime(2026, 1, 2, 5, 0, tzinfo=timezone(timedelta(hours=2)))
    assert made(plan(deadline_at=east))["metadata"]["annotations"][names.DEADLINE] == "2026-01-02T03:00:00+00:00"


def test_the_span_of_a_run_is_an_annotation_of_its_job() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = made(plan(traceparent=traceparent, request_id="-a-"))
    assert job["metadata"]["annotations"]["invoker.dev/traceparent"] == traceparent
    view = job_view(job)
    assert view is not None
    assert view.ids() == {
        "request_id": "-a-", "run_id": RUN_ID, "function": "convert", "job": view.name,
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
    }  # fmt: skip


def test_a_request_id_that_is_no_label_is_in_the_annotation_only() -> None:
    job = made(plan(request_id="-a-"))
    assert names.REQUEST not in job["metadata"]["labels"]
    assert job["metadata"]["annotations"][names.REQUEST] == "-a-"


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({}, []),
        ({"no_retry_exit_codes": frozenset({9, 3})}, [("function", [3, 9])]),
        ({"code": Code(runtime="python")}, [("function", [64])]),
        ({"code": Code(runtime="python"), "no_retry_exit_codes": frozenset({64, 2})}, [("function", [2, 64])]),
        ({"input": InputMode.FILE}, [("input", [64])]),
        ({"input": InputMode.FILE, "no_retry_exit_codes": frozenset({2})}, [("function", [2]), ("input", [64])]),
    ],
)
def test_exit_codes_that_end_a_run(changes: dict[str, Any], rules: list[tuple[str, list[int]]]) -> None:
    [first, *others] = made(plan(**changes))["spec"]["podFailurePolicy"]["rules"]
    assert first == DISRUPTED, "a disruption is none of them, whatever its code"
    assert others == [
        {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": codes}}
        for name, codes in rules
    ]


@pytest.mark.parametrize(
    ("deadline", "timeout", "job_seconds", "pod_seconds"),
    [
        (None, None, None, None),
        (timedelta(hours=1), None, 3600 + BACKSTOP_SECONDS, None),
        (timedelta(seconds=0.2), None, 1 + BACKSTOP_SECONDS, None),
        (timedelta(seconds=1.2), None, 2 + BACKSTOP_SECONDS, None),
        (timedelta(hours=-1), None, 1 + BACKSTOP_SECONDS, None),
        (None, 10.5, None, 600 + 11 + 5 + BACKSTOP_SECONDS),
    ],
)
def test_kubernetes_keeps_the_limits_when_no_controller_lives(
    deadline: timedelta | None, timeout: float | None, job_seconds: int | None, pod_seconds: int | None
) -> None:
    job = made(plan(deadline_at=None if deadline is None else NOW + deadline, limits=Limits(timeout_seconds=timeout)))
    assert job["spec"].get("activeDeadlineSeconds") == job_seconds
    assert pod(job).get("activeDeadlineSeconds") == pod_seconds


def test_the_functions_own_time_to_live_waits_for_the_result() -> None:
    job = made(plan(limits=Limits(ttl_seconds_after_finished=0)))
    assert job["spec"]["ttlSecondsAfterFinished"] == 7 * 86_400
    assert terms.read(job["metadata"]["annotations"][names.TERMS]).ttl_seconds == 0


@pytest.mark.parametrize(("grace", "seconds"), [(5.0, 5), (0.0, 1), (0.2, 1), (2.1, 3)])
def test_grace(grace: float, seconds: int) -> None:
    assert pod(made(plan(limits=Limits(grace_seconds=grace))))["terminationGracePeriodSeconds"] == seconds
    own = {"settings": {"terminationGracePeriodSeconds": 77}}
    assert pod(made(plan(limits=Limits(grace_seconds=grace), pod=own)))["terminationGracePeriodSeconds"] == 77


@pytest.mark.parametrize(
    ("code", "images", "image"),
    [
        (Code(image="own:1", runtime="python"), {"python": "p"}, "own:1"),
        (Code(runtime="python"), {"python": "p", "command": "c"}, "p"),
        (Code(command=("a",)), {"python": "p", "command": "c"}, "c"),
        (Code(command=("a",)), {"python": "p"}, "p"),
        (Code(runtime="python"), {"command": "c"}, "the runtime 'python'"),
        (Code(runtime="node"), {"python": "p"}, "the runtime 'node'"),
        (Code(command=("a",)), {"node": "p"}, "a command without an image"),
        (Code(), {}, "a command without an image"),
    ],
)
def test_the_image(code: Code, images: dict[str, str], image: str) -> None:
    options = ManifestOptions("mine", images)
    if " " not in image:
        assert main(made(plan(code=code), options))["image"] == image
        return
    with pytest.raises(
        StartRefusedError, match=f"function convert needs an image: none is configured for {image}"
    ) as no:
        made(plan(code=code), options)
    assert no.value.fields["reason"] == "config"
    assert no.value.hint == "give the function 'image:', or set INVOKER_RUNTIME_IMAGES=python=IMAGE"


def test_input_as_a_file() -> None:
    with pytest.raises(StartRefusedError, match="no image of the python runtime fetches it"):
        made(plan(input=InputMode.FILE), ManifestOptions("mine"))
    environ = {"INVOKER_RUN_ID": RUN_ID, "INVOKER_RUN_TOKEN": "t$", "INVOKER_RUN_URL": "u", "SECRET": "s"}
    of = plan(input=InputMode.FILE, env=environ, pod={"resources": {"limits": {"memory": "64Mi"}}})
    job = made(of, replace(OPTIONS, image_pull_policy="Never"))
    [fetch] = pod(job)["initContainers"]
    given_to_it = {one["name"] for one in fetch["env"]}
    assert given_to_it == {
        "INVOKER_RUN_ID", "INVOKER_RUN_TOKEN", "INVOKER_RUN_URL", "INVOKER_INPUT_FILE", "INVOKER_TERMINATION_FILE",
        "INVOKER_POD_UID",
    }  # fmt: skip
    assert (fetch["name"], fetch["image"], fetch["imagePullPolicy"]) == ("input", "python-image:1", "Never")
    assert fetch["resources"] == {"limits": {"memory": "64Mi"}}
    assert fetch["securityContext"] == {"readOnlyRootFilesystem": True, **HARDENED}
    assert {one["name"]: one.get("value") for one in fetch["env"]}["INVOKER_RUN_TOKEN"] == "t$$"
    assert fetch["volumeMounts"] == [{"name": "invoker-input", "mountPath": "/invoker"}]
    assert {"name": "invoker-input", "mountPath": "/invoker", "readOnly": True} in main(job)["volumeMounts"]
    assert env(job)["INVOKER_INPUT_FILE"] == "/invoker/input"
    assert "initContainers" not in pod(made(plan()))
    own = {
        "settings": {"initContainers": [{"name": "own", "image": "i"}], "sidecars": [{"name": "side", "image": "i"}]}
    }
    both = pod(made(plan(input=InputMode.FILE, pod=own)))["initContainers"]
    assert [(one["name"], one.get("restartPolicy")) for one in both] == [
        ("input", None), ("own", None), ("side", "Always"),
    ], "the input is there before anything of the function's own begins"  # fmt: skip


def test_the_work_folder() -> None:
    job = made(plan())
    assert pod(job)["volumes"] == [{"name": "invoker-work", "emptyDir": {}}]
    assert main(job)["volumeMounts"] == [{"name": "invoker-work", "mountPath": "/work"}]
    volume = {"size": "1Gi", "mountPath": "/scratch", "storageClass": "fast", "accessMode": "ReadWriteOncePod"}
    job = made(plan(pod={"volume": volume}))
    [work] = pod(job)["volumes"]
    template = work["ephemeral"]["volumeClaimTemplate"]
    assert template["metadata"]["labels"] == names.labels("mine", "convert", RUN_ID, "request-1")
    assert template["spec"] == {
        "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast",
    }  # fmt: skip
    assert main(job)["volumeMounts"] == [{"name": "invoker-work", "mountPath": "/scratch"}]
    assert [env(job)[name] for name in ("HOME", "TMPDIR", "INVOKER_WORKDIR")] == ["/scratch"] * 3
    [bare] = pod(made(plan(pod={"volume": {"size": "1", "mountPath": "/s", "storageClass": ""}})))["volumes"]
    claim = bare["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteOnce"], ""), "an empty class is one: none"
    [usual] = pod(made(plan(pod={"volume": {"size": "1", "mountPath": "/s", "storageClass": None}})))["volumes"]
    assert "storageClassName" not in usual["ephemeral"]["volumeClaimTemplate"]["spec"]


def test_code_is_mounted_read_only() -> None:
    of = plan(code=Code(runtime="python", folder=Path("/catalog/convert")))
    job = made(of, code=CODE)
    source = next(one for one in pod(job)["volumes"] if one["name"] == "invoker-code")["configMap"]
    assert (source["name"], source["defaultMode"]) == (CODE.name, 0o444)
    assert source["items"] == [dict(one) for one in CODE.items]
    assert {"name": "invoker-code", "mountPath": "/code", "readOnly": True} in main(job)["volumeMounts"]
    assert env(job)["INVOKER_CODE_DIR"] == "/code"
    assert job_view(job).terms.code == CODE.name  # type: ignore[union-attr] # it is a run's
    assert "INVOKER_CODE_DIR" not in env(made(of))


def test_commands_and_words() -> None:
    folder = Path("/catalog/convert")
    beside = Code(command=("/catalog/convert/bin/run", "/catalog/convert/x"), folder=folder)
    assert command_of(plan(code=beside)) == ["/code/bin/run", "/catalog/convert/x"]
    assert command_of(plan(code=Code(command=("sort",), folder=folder))) == ["sort"]
    assert command_of(plan(code=Code(command=("/catalog/converted/run",), folder=folder))) == ["/catalog/converted/run"]
    job = made(plan(code=Code(image="i", command=("echo", "$HOME $(A)"), args=("$$",))))
    assert (main(job)["command"], main(job)["args"]) == (["echo", "$$HOME $$(A)"], ["$$$$"])
    bare = main(made(plan()))
    assert "command" not in bare
    assert "args" not in bare
    assert "workingDir" not in bare


def test_the_root_file_system_of_a_runtimes_image_is_read_only() -> None:
    def is_read_only(code: Code, **chosen: bool) -> bool:
        context = main(made(plan(code=code, pod={"settings": chosen})))["securityContext"]
        return bool(context.get("readOnlyRootFilesystem"))

    assert is_read_only(Code(runtime="python"))
    assert not is_read_only(Code(runtime="python"), readOnlyRootFilesystem=False)
    assert not is_read_only(Code(image="own:1"))
    assert is_read_only(Code(image="own:1"), readOnlyRootFilesystem=True)
    assert main(made(plan(code=Code(runtime="python"))))["workingDir"] == "/work"


def test_what_a_function_may_choose_reaches_its_place() -> None:
    job = made(plan(pod={"settings": EVERY_SETTING, "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {}}}]}))
    for key in (
        "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "serviceAccountName",
        "priorityClassName", "runtimeClassName", "imagePullSecrets", "terminationGracePeriodSeconds",
    ):  # fmt: skip
        assert pod(job)[key] == EVERY_SETTING[key]
    assert pod(job)["securityContext"] == {**EVERY_SETTING["securityContext"]}
    assert pod(job)["volumes"][1:] == EVERY_SETTING["volumes"]
    assert main(job)["volumeMounts"][1:] == EVERY_SETTING["volumeMounts"]
    assert main(job)["envFrom"] == EVERY_SETTING["envFrom"]
    assert main(job)["imagePullPolicy"] == "IfNotPresent"
    assert env(job)["KEY"] == {"secretKeyRef": {}}
    assert main(made(plan(), replace(OPTIONS, image_pull_policy="Always")))["imagePullPolicy"] == "Always"
    assert "imagePullPolicy" not in main(made(plan()))


@pytest.mark.parametrize(
    ("output", "given_mode", "mode"),
    [
        (OutputMode.API, None, None),
        (OutputMode.STDOUT, None, "stdout"),
        (OutputMode.TERMINATION, None, "termination"),
        (OutputMode.STDOUT, "own", "own"),
    ],
)
def test_the_output_mode_is_told(output: OutputMode, given_mode: str | None, mode: str | None) -> None:
    values = {} if given_mode is None else {"INVOKER_OUTPUT_MODE": given_mode}
    found = {one["name"]: one.get("value") for one in environment(plan(output=output, env=values), None)}
    assert found.get("INVOKER_OUTPUT_MODE") == mode


def test_equal_plans_make_equal_bytes_and_change_nothing() -> None:
    settings_before = copy.deepcopy(EVERY_SETTING)
    of = plan(pod={"settings": EVERY_SETTING}, deadline_at=NOW)
    first, second = (job_body(of, job_manifest(of, OPTIONS, CODE, NOW)) for _ in range(2))
    assert first == second
    assert settings_before == EVERY_SETTING
