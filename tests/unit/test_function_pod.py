"""`spec.pod` and `spec.job`: what they become, and every refusal with its exact line, field and sentence."""

# ruff: noqa: E501 -- one row of a table per line
from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_function_file import read, refused_spec
from trigger.function import Volume
from trigger.pod_check import function_container
from trigger.pod_placeholder import filled, problem_of_pod

EVERY_SETTING: dict[str, Any] = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}}
            ]
        },
    },
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "serviceAccountName": "reader",
    "priorityClassName": "batch-low",
    "runtimeClassName": "gvisor",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "pull"}],
    "terminationGracePeriodSeconds": 30,
    "securityContext": {"runAsUser": 1000, "runAsGroup": 0, "fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch", "supplementalGroups": [7], "seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True},
    "readOnlyRootFilesystem": False,
    "envFrom": [{"secretRef": {"name": "db"}}, {"prefix": "C_", "configMapRef": {"name": "conf", "optional": True}}],
    "initContainers": [{"name": "fetch", "image": "busybox:1", "command": ["wget", "{{params.url}}"], "volumeMounts": [{"name": "data", "mountPath": "/data"}], "securityContext": {"capabilities": {"drop": ["ALL"]}, "privileged": False}}],
    "sidecars": [{"name": "proxy", "image": "proxy:1", "ports": [{"containerPort": 8080}], "startupProbe": {"httpGet": {"port": 8080, "path": "/"}}, "env": [{"name": "A", "value": "{{topic}}"}]}],
    "volumes": [
        {"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "a", "path": "b/c", "mode": 0o400}], "defaultMode": 0o440}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "keys"}}, {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}}]}},
        {"name": "me", "downwardAPI": {"items": [{"path": "cpu", "resourceFieldRef": {"containerName": "function", "resource": "limits.cpu"}}]}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared", "readOnly": True}},
        {"name": "fresh", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
    ],
    "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True, "subPath": "b"}],
    "labels": {"team": "etl", "app.kubernetes.io/name": "x"},
    "annotations": {"note": "{{request.id}}", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    "queue": "team-queue",
}  # fmt: skip


def with_pod(pod: Any, more: str = "") -> str:
    return f"  image: busybox\n{more}  pod: {json.dumps(pod)}\n"


def with_job(job: Any, more: str = "") -> str:
    return f"{more}  job: {json.dumps(job)}\n"


def job_of(*containers: Any, **pod: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(containers), **pod}}}


def test_every_pod_setting_is_kept_in_kubernetes_spelling() -> None:
    function = read(with_pod(EVERY_SETTING, "  parameters: [{name: url}]\n"))
    assert function.pod == EVERY_SETTING
    assert function.job is None


def test_keys_without_a_value_are_not_there() -> None:
    """`initContainers:` above lines that are commented out is what people write."""
    job = job_of({"name": "a", "image": "x", "env": None, "args": []}, initContainers=None, securityContext=None)
    job["template"]["metadata"] = None
    assert read(with_job(job)).job == job_of({"name": "a", "image": "x", "args": []})
    assert read(with_pod({"initContainers": None, "volumes": None})).pod == {}


def test_the_smaller_settings() -> None:
    function = read(
        "  runtime: python\n  keepPod: true\n  volume: {size: 1Gi, mountPath: /work, accessMode: ReadWriteOncePod}\n"
    )
    assert function.keep_pod is True
    assert function.volume == Volume("1Gi", "/work", None, "ReadWriteOncePod")
    plain = read("  runtime: python\n  volume: {size: 1Gi, mountPath: /v}\n")
    assert (plain.keep_pod, plain.pod) == (False, {})
    assert plain.volume == Volume("1Gi", "/v", None, "ReadWriteOnce")


def test_settings_count_for_the_spec_hash() -> None:
    def hash_of(pod: Any) -> str:
        return read(with_pod(pod)).spec_hash

    assert hash_of({"queue": "a"}) != hash_of({"queue": "b"})


REFUSED_SETTINGS: list[tuple[Any, str, str]] = [
    ({"hostNetwork": True}, "hostNetwork", "is not allowed: it shares the node's network"),
    ({"hostPID": False}, "hostPID", "is not allowed: it shows the node's processes"),
    ({"hostIPC": True}, "hostIPC", "memory segments"),
    ({"nodeName": "n"}, "nodeName", "use nodeSelector"),
    ({"containers": []}, "containers", "the function's container is the spec itself"),
    ({"restartPolicy": "Always"}, "restartPolicy", "write spec.backoffLimit"),
    ({"automountServiceAccountToken": True}, "automountServiceAccountToken", "no identity at the API server"),
    ({"activeDeadlineSeconds": 1}, "activeDeadlineSeconds", "write spec.timeoutSeconds"),
    ({"dnsConfig": {}}, "dnsConfig", "which addresses names have"),
    ({"nodeSelektor": {}}, "nodeSelektor", "did you mean 'nodeSelector'?"),
    ({"nodeSelector": {"a": 1}}, "nodeSelector.a", "must be text, not a number"),
    ({"nodeSelector": ["a"]}, "nodeSelector", "must be a mapping, not a list"),
    ({"tolerations": [{"operator": "Exists"}]}, "tolerations[0].key", "is missing"),
    ({"tolerations": [{"key": "", "operator": "Exists"}]}, "tolerations[0].key", "at least 1"),
    ({"tolerations": [{"key": "a", "effect": "Never"}]}, "tolerations[0].effect", "must be 'NoSchedule'"),
    ({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a", "namespaces": ["x"]}]}}}, "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaces", "other namespaces"),
    ({"topologySpreadConstraints": [{"maxSkew": "1", "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}, "topologySpreadConstraints[0].maxSkew", "must be a whole number, not text"),
    ({"serviceAccountName": "A_b"}, "serviceAccountName", "no legal name of a Kubernetes object"),
    ({"priorityClassName": "system-node-critical"}, "priorityClassName", "push the cluster's own pods away"),
    ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy", "must be 'Always'"),
    ({"imagePullSecrets": ["x"]}, "imagePullSecrets[0]", "must be a mapping of keys, not text"),
    ({"terminationGracePeriodSeconds": 0}, "terminationGracePeriodSeconds", "must be at least 1"),
    ({"terminationGracePeriodSeconds": 3601}, "terminationGracePeriodSeconds", "must be at most 3600"),
    ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser", "must be at least 1, not 0"),
    ({"securityContext": {"runAsUser": True}}, "securityContext.runAsUser", "must be a whole number, not true/false"),
    ({"securityContext": {"runAsNonRoot": False}}, "securityContext.runAsNonRoot", "must be true or left out"),
    ({"securityContext": {"runAsNonRoot": 1}}, "securityContext.runAsNonRoot", "must be true or left out"),
    ({"securityContext": {"privileged": True}}, "securityContext.privileged", "owns its node"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "securityContext.seccompProfile.type", "must be 'RuntimeDefault' or 'Localhost'"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost"}}}, "securityContext.seccompProfile", "localhostProfile goes with"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}}, "securityContext.seccompProfile.localhostProfile", "without '..'"),
    ({"securityContext": {"sysctls": []}}, "securityContext.sysctls", "kernel settings"),
    ({"envFrom": [{}]}, "envFrom[0]", "exactly one of secretRef, configMapRef"),
    ({"envFrom": [{"prefix": "INVOKER_", "secretRef": {"name": "a"}}]}, "envFrom[0].prefix", "are Invoker's own"),
    ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "volumes[0].hostPath", "it is a folder of the node; allowed are secret, configMap"),
    ({"volumes": [{"name": "a", "csi": {"driver": "x"}}]}, "volumes[0].csi", "takes any attributes"),
    ({"volumes": [{"name": "a", "nfs": {}}]}, "volumes[0].nfs", "past the cluster's storage"),
    ({"volumes": [{"name": "a"}]}, "volumes[0]", "must have exactly one of secret"),
    ({"volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "b"}}]}, "volumes[0]", "not secret and emptyDir"),
    ({"volumes": [{"name": "invoker-work", "emptyDir": {}}]}, "volumes[0].name", "begin with invoker- are Invoker's own"),
    ({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}, "volumes[1].name", "'a' is there twice"),
    ({"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}, "volumes[0].projected.sources[0].serviceAccountToken", "no identity"),
    ({"volumes": [{"name": "a", "secret": {"secretName": "b", "items": [{"key": "k", "path": "../x"}]}}]}, "volumes[0].secret.items[0].path", "without '..'"),
    ({"volumes": [{"name": "a", "secret": {"secretName": "b", "defaultMode": 0o4755}}]}, "volumes[0].secret.defaultMode", "must be at most 511"),
    ({"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "-1"}}]}, "volumes[0].emptyDir.sizeLimit", "is no quantity"),
    ({"volumes": [{"name": "a", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "dataSource": {}}}}}]}, "volumes[0].ephemeral.volumeClaimTemplate.spec.dataSource", "begins empty"),
    ({"volumeMounts": [{"name": "a", "mountPath": "/a"}]}, "volumeMounts[0].name", "there is no volume 'a'; volumes has: none"),
    ({"volumeMounts": [{"name": "invoker-work", "mountPath": "/a"}]}, "volumeMounts[0].name", "there is no volume 'invoker-work'"),
    *(
        ({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": path}]}, "volumeMounts[0].mountPath", words)
        for path, words in [
            ("/code", "lies over /code"), ("/code/x", "lies over /code"), ("/invoker/input", "lies over /invoker"), ("/work", "lies over /work"),
            ("/dev/termination-log", "lies over /dev"), ("/proc", "lies over /proc"), ("/sys/fs", "lies over /sys"), ("/", "below the root"),
            ("/a/../code", "without '.', '..'"), ("//code", "without '.', '..'"), ("/code/", "without '.', '..'"), ("a", "absolute path"), ("/a:b", "absolute path"),
        ]
    ),
    ({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x/../../y"}]}, "volumeMounts[0].subPath", "without '..'"),
    ({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/a", "subPathExpr": "$(X)"}]}, "volumeMounts[0].subPathExpr", "a variable would choose"),
    ({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}, "volumeMounts[0].mountPropagation", "stay inside"),
    ({"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/a"}]}, "volumeMounts[1].mountPath", "/a is mounted already"),
    ({"initContainers": [{"name": "a"}]}, "initContainers[0].image", "is missing"),
    ({"initContainers": [{"name": "function", "image": "x"}]}, "initContainers[0].name", "the function's own container"),
    ({"sidecars": [{"name": "input", "image": "x"}]}, "sidecars[0].name", "what fetches the input"),
    ({"initContainers": [{"name": "a", "image": "x"}], "sidecars": [{"name": "a", "image": "x"}]}, "sidecars[0].name", "'a' is there twice"),
    ({"initContainers": [{"name": "a", "image": "x", "restartPolicy": "Always"}]}, "initContainers[0].restartPolicy", "write it under sidecars"),
    ({"initContainers": [{"name": "a", "image": "x", "lifecycle": {}}]}, "initContainers[0].lifecycle", "a hook runs programs"),
    ({"initContainers": [{"name": "a", "image": "x", "tty": True}]}, "initContainers[0].tty", "nobody is at the other end"),
    ({"initContainers": [{"name": "a", "image": "x", "env": [{"name": "INVOKER_RUN_ID", "value": "x"}]}]}, "initContainers[0].env[0].name", "are Invoker's own"),
    ({"initContainers": [{"name": "a", "image": "x", "volumeMounts": [{"name": "q", "mountPath": "/q"}]}]}, "initContainers[0].volumeMounts[0].name", "there is no volume 'q'"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"runAsNonRoot": False}}]}, "sidecars[0].securityContext.runAsNonRoot", "must be true or left out"),
    ({"labels": {"no key": "x"}}, "labels.no key", "is no legal label key"),
    ({"annotations": {"no key": "x"}}, "annotations.no key", "is no legal annotation key"),
    ({"nodeSelector": {"args": "{{topic}}"}}, "nodeSelector.args", "no legal label value"),
    ({"tolerations": [{"key": "{{topic}}"}]}, "tolerations[0].key", "a placeholder may not stand here"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"privileged": True}}]}, "sidecars[0].securityContext.privileged", "must be false or left out: a privileged container owns its node"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"allowPrivilegeEscalation": True}}]}, "sidecars[0].securityContext.allowPrivilegeEscalation", "no process gains more rights"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"procMount": "Unmasked"}}]}, "sidecars[0].securityContext.procMount", "must be Default or left out"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}, "sidecars[0].securityContext.capabilities.add", "have no capabilities"),
    ({"sidecars": [{"name": "a", "image": "x", "securityContext": {"runAsUser": 0}}]}, "sidecars[0].securityContext.runAsUser", "must be at least 1"),
    ({"sidecars": [{"name": "a", "image": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "sidecars[0].ports[0].hostPort", "a port of the node"),
    ({"sidecars": [{"name": "a", "image": "x", "startupProbe": {"exec": {"command": ["x"]}}}]}, "sidecars[0].startupProbe.exec", "asks over the network"),
    ({"sidecars": [{"name": "a", "image": "x", "startupProbe": {"httpGet": {"host": "evil", "port": 1}}}]}, "sidecars[0].startupProbe.httpGet.host", "ask another host"),
    ({"labels": {"invoker.dev/run": "x"}}, "labels.invoker.dev/run", "is reserved"),
    ({"labels": {"batch.kubernetes.io/job-name": "x"}}, "labels.batch.kubernetes.io/job-name", "is reserved"),
    ({"labels": {"job-name": "x"}}, "labels.job-name", "is reserved"),
    ({"labels": {"app.kubernetes.io/managed-by": "x"}}, "labels.app.kubernetes.io/managed-by", "is reserved"),
    ({"labels": {"kueue.x-k8s.io/queue-name": "x"}}, "labels.kueue.x-k8s.io/queue-name", "belongs to Kubernetes"),
    ({"labels": {"pod-security.kubernetes.io/enforce": "x"}}, "labels.pod-security.kubernetes.io/enforce", "belongs to Kubernetes"),
    ({"labels": {"a": "x y"}}, "labels.a", "no legal label value"),
    ({"annotations": {"invoker.dev/stop": "x"}}, "annotations.invoker.dev/stop", "is reserved"),
    ({"annotations": {"container.apparmor.security.beta.kubernetes.io/function": "unconfined"}}, "annotations.container.apparmor.security.beta.kubernetes.io/function", "belongs to Kubernetes"),
    ({"queue": "A B"}, "queue", "no legal name"),
    ({"queue": "{{params.x}}"}, "queue", "no legal name"),
    ({"nodeSelector": {"{{topic}}": "x"}}, "nodeSelector.{{topic}}", "a placeholder may not stand here"),
    ({"initContainers": [{"name": "a", "image": "x:{{params.x}}"}]}, "initContainers[0].image", "a placeholder may not stand here"),
    ({"initContainers": [{"name": "a", "image": "x", "workingDir": "/{{topic}}"}]}, "initContainers[0].workingDir", "a placeholder may not stand here"),
    ({"initContainers": [{"name": "a", "image": "x", "command": ["sh", "-c", "echo {{topic}}"]}]}, "initContainers[0].command[2]", "part of a shell's text"),
    ({"initContainers": [{"name": "a", "image": "x", "command": ["sh", "-c"], "args": ["echo {{topic}}"]}]}, "initContainers[0].args[0]", "part of a shell's text"),
    ({"initContainers": [{"name": "a", "image": "x", "command": ["{{topic}}"]}]}, "initContainers[0].command[0]", "may not name the program"),
    ({"annotations": {"a": "{{params.nope}}"}}, "annotations.a", "unknown placeholder 'params.nope'"),
    ({"annotations": {"a": "{{topic"}}, "annotations.a", "without its '}}'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "field", "words"), REFUSED_SETTINGS, ids=lambda one: one if isinstance(one, str) else ""
)
def test_refused_pod_settings(pod: Any, field: str, words: str) -> None:
    broken = refused_spec(with_pod(pod))
    assert words in broken.message
    assert (broken.field, broken.line) == (f"spec.pod.{field}", 6)


def test_the_line_is_that_of_the_setting_in_a_file_as_people_write_it() -> None:
    broken = refused_spec(
        "  image: x\n  pod:\n    queue: a\n    volumes:\n      - name: host\n        hostPath: {path: /}\n"
    )
    assert broken.message.startswith(
        "etl/hello/function.yaml:10: spec.pod.volumes[0].hostPath: is not allowed: it is a folder"
    )


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ("  image: x\n  volume: {size: 1Gi, mountPath: /code}\n", "spec.volume.mountPath", "lies over /code"),
        ("  image: x\n  volume: {size: 1Gi, mountPath: /work/a}\n", "spec.volume.mountPath", "lies over /work"),
        ("  image: x\n  volume: {size: 1Gi, mountPath: /}\n", "spec.volume.mountPath", "below the root"),
        ("  image: x\n  volume: {size: 1Gi, mountPath: /a, accessMode: ReadOnlyMany}\n", "spec.volume.accessMode", "must be 'ReadWriteOnce', "),
        ("  image: x\n  keepPod: yes please\n", "spec.keepPod", "must be true or false"),
        ("  image: x\n  volume: {size: 1Gi, mountPath: /a}\n  pod: {volumes: [{name: b, emptyDir: {}}], volumeMounts: [{name: b, mountPath: /a}]}\n", "spec.pod.volumeMounts[0].mountPath", "/a is mounted already"),
        ("  image: x\n  env: [{name: A, valueFrom: {}}]\n", "spec.env[0].valueFrom", "exactly one of secretKeyRef"),
        ("  image: x\n  env: [{name: A, valueFrom: {secretKeyRef: {name: s}}}]\n", "spec.env[0].valueFrom.secretKeyRef.key", "is missing"),
        ("  image: x\n  env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: ../k}}}]\n", "spec.env[0].valueFrom.secretKeyRef.key", "no legal key"),
        ("  image: x\n  env: [{name: A, valueFrom: {secret: {}}}]\n", "spec.env[0].valueFrom.secret", "unknown key 'secret'"),
        ("  image: x\n  env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.containers}}}]\n", "spec.env[0].valueFrom.fieldRef.fieldPath", "no field that a container can be told"),
        ("  image: x\n  env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}, fieldRef: {fieldPath: metadata.name}}}]\n", "spec.env[0].valueFrom", "not secretKeyRef and fieldRef"),
        ("  job: {template: {spec: {containers: [{name: a, image: b}]}}}\n  pod: {queue: a}\n", "spec.pod", "exclude each other"),
    ],
)  # fmt: skip
def test_refused_beside_the_pod(spec: str, field: str, words: str) -> None:
    broken = refused_spec(spec)
    assert words in broken.message
    assert broken.field == field


FUNCTION = {"name": "function", "image": "busybox:1"}
HARMLESS = {
    "parallelism": 1, "completions": 1, "completionMode": "NonIndexed", "backoffLimit": 2, "ttlSecondsAfterFinished": 60, "suspend": False,
    "manualSelector": False, "managedBy": "kubernetes.io/job-controller", "podReplacementPolicy": "Failed",
    "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
    **job_of(FUNCTION, restartPolicy="Never", automountServiceAccountToken=False, hostNetwork=False, hostPID=False, hostIPC=False, shareProcessNamespace=False),
}  # fmt: skip


def test_a_whole_job_with_everything_that_holds_anyway() -> None:
    function = read(with_job(HARMLESS, "  backoffLimit: 2\n"))
    assert function.job == HARMLESS


@pytest.mark.parametrize(
    ("job", "more"),
    [
        (job_of({"name": "main", "image": "x"}), ""),
        (job_of({"name": "other", "image": "x"}, {"name": "function", "image": "y"}), ""),
        (job_of({"name": "function"}), "  image: busybox\n"),
        (job_of({"name": "function"}, {"name": "other", "image": "x"}), "  runtime: python\n"),
        (job_of(nodeSelector={"a": "b"}), "  runtime: python\n"),
        (job_of({"name": "a", "image": "x", "args": ["-p", "{{params.p}}"], "env": [{"name": "A", "value": "{{topic}} $(B)"}]}), "  parameters: [{name: p}]\n"),
        ({"template": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "{{run.id}}"}}, "spec": {"containers": [FUNCTION]}}}, ""),
        (job_of(FUNCTION, initContainers=[{"name": "side", "image": "x", "restartPolicy": "Always"}]), ""),
    ],
)  # fmt: skip
def test_jobs_that_are_taken(job: dict[str, Any], more: str) -> None:
    assert read(with_job(job, more)).job == job


IN_POD = "template.spec."
REFUSED_JOBS: list[tuple[Any, str, str]] = [
    ({}, "template", "is missing"),
    ({"apiVersion": "batch/v1", "kind": "Job", "spec": job_of(FUNCTION)}, "apiVersion", "write what stands under spec: of the manifest"),
    ({"kind": "List", **job_of(FUNCTION)}, "kind", "the Job's spec alone"),
    ({**job_of(FUNCTION), "parallelism": 0}, "parallelism", "must be 1 or left out"),
    ({**job_of(FUNCTION), "parallelism": 1000}, "parallelism", "one pod at a time"),
    ({**job_of(FUNCTION), "parallelism": True}, "parallelism", "must be 1 or left out"),
    ({**job_of(FUNCTION), "parallelism": "1"}, "parallelism", "must be 1 or left out"),
    ({**job_of(FUNCTION), "parallelism": 1.0}, "parallelism", "must be 1 or left out"),
    ({**job_of(FUNCTION), "completions": 0}, "completions", "a run is done once"),
    ({**job_of(FUNCTION), "completionMode": "Indexed"}, "completionMode", "must be NonIndexed"),
    ({**job_of(FUNCTION), "backoffLimit": -1}, "backoffLimit", "must be at least 0"),
    ({**job_of(FUNCTION), "backoffLimit": 10**9}, "backoffLimit", "must be at most 100"),
    ({**job_of(FUNCTION), "backoffLimit": 3}, "backoffLimit", "is the function's own, 0; write spec.backoffLimit instead"),
    ({**job_of(FUNCTION), "ttlSecondsAfterFinished": 3}, "ttlSecondsAfterFinished", "is the function's own, 60"),
    ({**job_of(FUNCTION), "activeDeadlineSeconds": 0}, "activeDeadlineSeconds", "write spec.timeoutSeconds"),
    ({**job_of(FUNCTION), "suspend": True}, "suspend", "must be false or left out"),
    ({**job_of(FUNCTION), "manualSelector": True}, "manualSelector", "adopt the pods of others"),
    ({**job_of(FUNCTION), "selector": {}}, "selector", "adopt the pods of others"),
    ({**job_of(FUNCTION), "managedBy": "me.example/x"}, "managedBy", "would never run"),
    ({**job_of(FUNCTION), "successPolicy": {}}, "successPolicy", "decide in Invoker's place"),
    ({**job_of(FUNCTION), "podReplacementPolicy": "TerminatingOrFailed"}, "podReplacementPolicy", "never overlap"),
    ({**job_of(FUNCTION), "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]}}, "podFailurePolicy.rules[0].onExitCodes", "write spec.noRetryExitCodes"),
    ({**job_of(FUNCTION), "podFailurePolicy": {"rules": [{"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}, "podFailurePolicy.rules[0].action", "must be Ignore"),
    (job_of(FUNCTION, restartPolicy="OnFailure"), IN_POD + "restartPolicy", "must be Never or left out: every attempt is a pod of its own"),
    (job_of({**FUNCTION, "args": ["{{topic}}"]}), IN_POD + "containers[0].args[0]", "may not name the program"),
    (job_of({**FUNCTION, "args": ["sh", "-c", "{{topic}}"]}), IN_POD + "containers[0].args[2]", "part of a shell's text"),
    (job_of(FUNCTION, hostPID=True), IN_POD + "hostPID", "must be false or left out"),
    (job_of(FUNCTION, hostIPC=True), IN_POD + "hostIPC", "must be false or left out"),
    (job_of(FUNCTION, shareProcessNamespace=True), IN_POD + "shareProcessNamespace", "must be false or left out"),
    (job_of(FUNCTION, automountServiceAccountToken=True), IN_POD + "automountServiceAccountToken", "no identity at the API server"),
    (job_of(FUNCTION, initContainers=[{"name": "a", "image": "x", "restartPolicy": "OnFailure"}]), IN_POD + "initContainers[0].restartPolicy", "must be Always or left out"),
    (job_of(FUNCTION, {"name": "invoker-x", "image": "x"}), IN_POD + "containers[1].name", "a name of Invoker's own"),
    ({**job_of(FUNCTION), "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "False"}]}]}}, "podFailurePolicy.rules[0].onPodConditions[0].status", "must be True"),
    (job_of(FUNCTION, hostNetwork=True), IN_POD + "hostNetwork", "must be false or left out"),
    (job_of(FUNCTION, hostUsers=True), IN_POD + "hostUsers", "must be false or left out"),
    (job_of(FUNCTION, nodeName="n"), IN_POD + "nodeName", "goes past the scheduler"),
    (job_of(FUNCTION, ephemeralContainers=[]), IN_POD + "ephemeralContainers", "for people who look"),
    (job_of(FUNCTION, schedulerName="mine"), IN_POD + "schedulerName", "there is one scheduler"),
    (job_of(), IN_POD[:-1], "needs a container"),
    (job_of({"name": "function"}), IN_POD + "containers[0]", "needs an image"),
    (job_of({"name": "a", "image": "x"}, {"name": "b", "image": "y"}), IN_POD + "containers", "has 2 containers (a, b) and none of them is named 'function'"),
    (job_of(FUNCTION, {"name": "b"}), IN_POD + "containers[1]", "needs an image"),
    (job_of(FUNCTION, FUNCTION), IN_POD + "containers[1].name", "'function' is there twice"),
    (job_of(FUNCTION, initContainers=[{"name": "input", "image": "x"}]), IN_POD + "initContainers[0].name", "what fetches the input"),
    (job_of({**FUNCTION, "securityContext": {"privileged": True}}), IN_POD + "containers[0].securityContext.privileged", "owns its node"),
    (job_of({**FUNCTION, "restartPolicy": "Always"}), IN_POD + "containers[0].restartPolicy", "the Job decides"),
    (job_of({**FUNCTION, "imagee": "x"}), IN_POD + "containers[0].imagee", "did you mean 'image'?"),
    (job_of({**FUNCTION, "image": "x:{{topic}}"}), IN_POD + "containers[0].image", "a placeholder may not stand here"),
    (job_of({**FUNCTION, "env": [{"name": "A", "value": "{{params.q}}"}]}), IN_POD + "containers[0].env[0].value", "unknown placeholder"),
    (job_of({**FUNCTION, "env": [{"name": "A", "value": "{{{{topic}}}}"}]}), IN_POD + "containers[0].env[0].value", "'{{' without its '}}'"),
    (job_of({**FUNCTION, "env": [{"name": "A", "value": "{{#a}}x{{/a}}"}]}), IN_POD + "containers[0].env[0].value", "unknown placeholder"),
    (job_of(FUNCTION, serviceAccountName="{{topic}}"), IN_POD + "serviceAccountName", "no legal name"),
    ({"template": {"metadata": {"finalizers": ["x/y"]}, "spec": {"containers": [FUNCTION]}}}, "template.metadata.finalizers", "Invoker releases its pods"),
    ({"template": {"metadata": {"labels": {"a": "{{topic}}"}}, "spec": {"containers": [FUNCTION]}}}, "template.metadata.labels.a", "no legal label value"),
]  # fmt: skip


@pytest.mark.parametrize(("job", "field", "words"), REFUSED_JOBS, ids=lambda one: one if isinstance(one, str) else "")
def test_refused_jobs(job: Any, field: str, words: str) -> None:
    broken = refused_spec(with_job(job))
    assert words in broken.message
    assert broken.field == f"spec.job.{field}"


@pytest.mark.parametrize(
    ("container", "more", "field", "words"),
    [
        ({"image": "x"}, "  runtime: python\n", "image", "runtime chooses the image"),
        ({"image": "x"}, "  image: y\n", "image", "spec.image says so already"),
        ({"image": "x", "command": ["a"]}, "  command: [b]\n", "command", "spec.command says so already"),
        ({"command": ["a"]}, "  runtime: python\n", "command", "starts the handler itself"),
        ({"image": "x", "env": [{"name": "A", "value": "1"}]}, "  env: [{name: A, value: '2'}]\n", "env[0].name", "spec.env has A too"),
        ({"image": "x", "resources": {"limits": {"cpu": 1}}}, "  resources: {limits: {memory: 1Gi}}\n", "resources", "spec.resources says so already"),
        ({"image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, "  volume: {size: 1Gi, mountPath: /v}\n", "volumeMounts[0].mountPath", "by spec.volume"),
    ],
)  # fmt: skip
def test_the_spec_and_its_job_never_both_answer(container: dict[str, Any], more: str, field: str, words: str) -> None:
    job = job_of({"name": "function", **container}, volumes=[{"name": "v", "emptyDir": {}}])
    broken = refused_spec(with_job(job, more))
    assert words in broken.message
    assert broken.field == f"spec.job.template.spec.containers[0].{field}"


@pytest.mark.parametrize(
    ("names", "index"), [([], None), (["a"], 0), (["function"], 0), (["a", "function"], 1), (["function", "a", "b"], 0)]
)
def test_which_container_is_the_functions(names: list[str], index: int | None) -> None:
    assert function_container([{"name": name} for name in names]) == index


@pytest.mark.parametrize("names", [["a", "b"], ["function", "function"]])
def test_it_may_not_be_any_of_several(names: list[str]) -> None:
    with pytest.raises(ValueError, match="give that name to the one whose exit ends the run"):
        function_container([{"name": name} for name in names])


def test_values_of_a_request_stay_inside_the_text_that_they_fill() -> None:
    job = job_of(
        {
            "name": "f",
            "image": "i",
            "args": ["<{{params.x}}>", "$(OWN)"],
            "env": [{"name": "A", "value": "{{ params.x }}"}],
        }
    )
    job["template"]["metadata"] = {"annotations": {"note": "{{params.x}}"}}
    evil = '"\n---\n$(SECRET) {{topic}}: &a # \t'
    made = filled(job, {"params.x": evil, "topic": "t"})
    container = made["template"]["spec"]["containers"][0]
    assert container["args"] == [f"<{evil.replace('$', '$$')}>", "$(OWN)"]
    assert container["env"] == [{"name": "A", "value": evil.replace("$", "$$")}]
    assert made["template"]["metadata"]["annotations"] == {"note": evil}
    assert job["template"]["metadata"]["annotations"] == {"note": "{{params.x}}"}, "the function's own is not changed"


def test_nothing_is_filled_where_no_placeholder_may_stand() -> None:
    pod = {
        "queue": "{{topic}}",
        "labels": {"a": "{{topic}}"},
        "nodeSelector": {"annotations": "{{topic}}"},
        "volumes": [{"name": "{{topic}}"}],
    }
    assert filled(pod, {"topic": "t"}) == pod
    assert problem_of_pod(pod, []) is not None
