"""A function's own Job under the forced settings: what stays, what is ours, what is refused, for which container."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from invoker.errors import StartRefusedError
from trigger.kubernetes_engine.job_spec import HARDENED, hardened, merged

FORCED: dict[str, Any] = {
    "parallelism": 1,
    "completions": 1,
    "backoffLimit": 2,
    "ttlSecondsAfterFinished": 604800,
    "podReplacementPolicy": "Failed",
    "podFailurePolicy": {"rules": [{"action": "Ignore"}, {"action": "FailJob"}]},
    "template": {
        "metadata": {"labels": {"invoker.dev/run": "r"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001},
            "terminationGracePeriodSeconds": 5,
            "containers": [
                {
                    "name": "function",
                    "env": [{"name": "TOPIC", "value": "t"}, {"name": "INVOKER_RUN_ID", "value": "r"}],
                    "volumeMounts": [{"name": "invoker-work", "mountPath": "/work"}],
                    "securityContext": HARDENED,
                    "terminationMessagePath": "/dev/termination-log",
                }
            ],
            "initContainers": [{"name": "input", "image": "i", "securityContext": HARDENED}],
            "volumes": [{"name": "invoker-work", "emptyDir": {}}],
        },
    },
}


def job_of(*containers: Any, **pod: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(containers), **pod}}}


def pod_of(job: dict[str, Any]) -> Any:
    return merged(job, FORCED)["template"]["spec"]


def test_the_only_container_is_the_functions_and_keeps_what_is_its_own() -> None:
    job = job_of(
        {
            "name": "main",
            "image": "x",
            "args": ["a"],
            "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        },
        volumes=[{"name": "v", "emptyDir": {}}],
        nodeSelector={"a": "b"},
    )
    before = copy.deepcopy((job, FORCED))
    pod = pod_of(job)
    assert (job, FORCED) == before, "the arguments are not changed"
    [container] = pod["containers"]
    assert (container["name"], container["image"], container["args"]) == ("function", "x", ["a"])
    assert [one["name"] for one in container["env"]] == ["TOPIC", "INVOKER_RUN_ID", "A"]
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/work", "/v"]
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert [one["name"] for one in pod["volumes"]] == ["invoker-work", "v"]
    assert (pod["nodeSelector"], pod["restartPolicy"]) == ({"a": "b"}, "Never")


def test_no_init_containers_are_none() -> None:
    forced = copy.deepcopy(FORCED)
    del forced["template"]["spec"]["initContainers"]
    for none in (None, []):
        assert merged(job_of(CONTAINER, initContainers=none), forced)["template"]["spec"]["initContainers"] == []
    assert "initContainers" not in merged(job_of(CONTAINER), forced)["template"]["spec"]


def test_a_job_without_containers_gets_ours() -> None:
    assert pod_of(job_of(nodeSelector={"a": "b"}))["containers"] == FORCED["template"]["spec"]["containers"]


def test_every_container_is_hardened_whoever_wrote_it() -> None:
    pod = pod_of(
        job_of(
            {"name": "helper", "image": "y", "securityContext": {"runAsUser": 7}},
            {"name": "function", "image": "x", "securityContext": {"privileged": False}},
            initContainers=[{"name": "side", "image": "z", "restartPolicy": "Always"}],
        )
    )
    assert [one["name"] for one in pod["containers"]] == ["function", "helper"]
    assert [one["name"] for one in pod["initContainers"]] == ["input", "side"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert HARDENED.items() <= container["securityContext"].items()
    assert pod["containers"][1]["securityContext"]["runAsUser"] == 7


def test_what_is_only_our_default_is_the_functions_to_choose() -> None:
    pod = pod_of(
        job_of(
            {"name": "function", "image": "x", "env": [{"name": "TOPIC", "value": "mine"}]},
            securityContext={"runAsUser": 7, "fsGroup": 8, "supplementalGroups": [9]},
            terminationGracePeriodSeconds=60,
        )
    )
    context = {"runAsNonRoot": True, "runAsUser": 7, "fsGroup": 8, "supplementalGroups": [9]}
    assert pod["securityContext"] == context
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["containers"][0]["env"][0] == {"name": "TOPIC", "value": "mine"}


def test_what_says_the_same_is_harmless() -> None:
    job = {"parallelism": 1, "completions": 1, "suspend": False, "ttlSecondsAfterFinished": 60, "backoffLimit": 2}
    rules = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    whole = merged({**job, "podFailurePolicy": rules, **job_of({"name": "a", "image": "x"})}, FORCED)
    assert (whole["suspend"], whole["ttlSecondsAfterFinished"]) == (False, 604800)
    assert whole["podFailurePolicy"] == FORCED["podFailurePolicy"]


def test_lists_without_names_are_put_together() -> None:
    forced = copy.deepcopy(FORCED)
    forced["template"]["spec"]["tolerations"] = [{"key": "a"}]
    job = job_of({"name": "a", "image": "x"}, tolerations=[{"key": "b"}, {"key": "a"}])
    assert merged(job, forced)["template"]["spec"]["tolerations"] == [{"key": "a"}, {"key": "b"}]


CONTAINER = {"name": "function", "image": "x"}


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            {**job_of(CONTAINER), "parallelism": 2},
            "job: parallelism: is 1 on every Job of Invoker, not 2; leave it out",
        ),
        ({**job_of(CONTAINER), "parallelism": True}, "job: parallelism: is 1 on every Job of Invoker, not true"),
        ({**job_of(CONTAINER), "backoffLimit": 3}, "job: backoffLimit: is 2 on every Job"),
        (job_of(CONTAINER, restartPolicy="Always"), "job: template.spec.restartPolicy: is 'Never' on every Job"),
        (job_of(CONTAINER, automountServiceAccountToken=True), "automountServiceAccountToken: is false on every Job"),
        (job_of(CONTAINER, securityContext={"runAsNonRoot": False}), "securityContext.runAsNonRoot: is true on every"),
        (job_of(CONTAINER, securityContext=[]), "securityContext: is {'runAsNonRoot': True"),
        (job_of(CONTAINER, volumes=[{"name": "invoker-work", "hostPath": {}, "emptyDir": {"medium": "x"}}]), None),
        (
            job_of({**CONTAINER, "env": [{"name": "INVOKER_RUN_ID", "value": "x"}]}),
            "containers.function.env.INVOKER_RUN_ID.value: is 'r' on every Job of Invoker, not 'x'",
        ),
        (
            job_of({**CONTAINER, "volumeMounts": [{"name": "v", "mountPath": "/work"}]}),
            "containers.function.volumeMounts./work.name: is 'invoker-work' on every",
        ),
        (
            job_of({**CONTAINER, "securityContext": {"capabilities": {"drop": ["NET_RAW"]}}}),
            "capabilities.drop: 'NET_RAW' contradicts",
        ),
        (
            job_of(CONTAINER, initContainers=[{"name": "i", "securityContext": {"allowPrivilegeEscalation": True}}]),
            "initContainers.i.securityContext.allowPrivilegeEscalation: is false on every",
        ),
        (
            job_of({"name": "a"}, {"name": "b"}),
            "containers: has 2 containers (a, b) and none of them is named 'function'",
        ),
        (job_of(CONTAINER, {"name": "a"}, {"name": "a"}), "containers: every entry must be a mapping with a name"),
        ({"template": []}, "job: template: must be a mapping"),
        ({"template": {"spec": {"containers": ["x"]}}}, "job: template.spec.containers: must be a mapping"),
        ({"template": {"spec": {"containers": {"name": "x"}}}}, "job: template.spec.containers: must be a list"),
        (job_of(CONTAINER, initContainers="x"), "job: template.spec.initContainers: must be a list"),
        (job_of(CONTAINER, initContainers=[None, "x"]), "job: template.spec.initContainers: must be a mapping"),
        (job_of(CONTAINER, volumes=[{"name": ["v"]}]), "volumes: every entry must be a mapping with a name of its own"),
        (job_of({**CONTAINER, "env": [{"value": "v"}]}), "env: every entry must be a mapping with a name of its own"),
        (
            {**job_of(CONTAINER), "template": {"metadata": {"labels": {"invoker.dev/run": "x"}}}},
            "invoker.dev/run: is 'r'",
        ),
    ],
)
def test_what_contradicts_is_refused_with_its_place(job: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        # A second source in a volume of ours is not a contradiction here; the policy refuses two sources.
        assert len(pod_of(job)["volumes"]) == 1
        return
    with pytest.raises(StartRefusedError) as refused:
        merged(job, FORCED)
    assert sentence in refused.value.message
    assert refused.value.fields["reason"] == "config"


def test_words_of_a_command_are_all_the_same_or_refused() -> None:
    forced = copy.deepcopy(FORCED)
    forced["template"]["spec"]["containers"][0]["command"] = ["a", "b"]
    assert merged(job_of({"name": "f", "command": ["a", "b"]}), forced)["template"]["spec"]["containers"][0]["command"]
    with pytest.raises(StartRefusedError, match="contradicts"):
        merged(job_of({"name": "f", "command": ["a"]}), forced)


def test_hardening_twice_is_hardening_once() -> None:
    once = hardened({"name": "a"})
    assert hardened(once) == once == {"name": "a", "securityContext": HARDENED}
