"""A plan as its Job, part by part: labels, limits, image, input, folders, code, words, what a function may choose."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from invoker.errors import StartRefusedError
from tests.unit.kubernetes_engine.planned_jobs import (
    CODE,
    DISRUPTED,
    HARDENED,
    NOW,
    OPTIONS,
    POLICY,
    RUN_ID,
    env,
    made,
    main,
    plan,
    pod,
)
from tests.unit.test_function_pod import EVERY_SETTING
from trigger.kubernetes_engine import names, terms
from trigger.kubernetes_engine.manifest import (
    BACKSTOP_SECONDS,
    ManifestOptions,
    command_of,
    environment,
    job_body,
    job_manifest,
)
from trigger.kubernetes_engine.policy import refusals
from trigger.kubernetes_engine.status import job_view
from trigger.plan import Code, InputMode, Limits, OutputMode


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


def test_who_a_pod_runs_as_may_be_left_to_the_cluster() -> None:
    """OpenShift gives every namespace users of its own and refuses pods that name another one."""
    named = pod(made(plan()))["securityContext"]
    assert (named["runAsUser"], named["runAsGroup"], named["fsGroup"]) == (10001, 10001, 10001)
    other = pod(made(plan(), ManifestOptions("mine", user_id=2000)))["securityContext"]
    assert (other["runAsUser"], other["runAsGroup"], other["fsGroup"]) == (2000, 2000, 2000)
    for of in (plan(), plan(pod={"job": {"template": {"spec": {}}}})):
        job = made(of, ManifestOptions("mine", user_id=None))
        assert pod(job)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert refusals(job, POLICY) == []
    own = plan(pod={"settings": {"securityContext": {"runAsUser": 7}}})
    assert pod(made(own, ManifestOptions("mine", user_id=None)))["securityContext"]["runAsUser"] == 7


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
