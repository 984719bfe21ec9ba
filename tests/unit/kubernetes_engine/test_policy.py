"""What a Job may contain: good ones that pass, the evil ones by name, and that no mutation of a good one passes."""

# ruff: noqa: E501 -- one case per line
from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.request import Content, RequestRecord
from tests.unit.test_function_file import read
from tests.unit.test_function_pod import EVERY_SETTING, HARMLESS, job_of, with_job, with_pod
from trigger.function import Function
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.images import ImageError
from trigger.kubernetes_engine.manifest import ManifestOptions, job_manifest
from trigger.kubernetes_engine.policy import MAX_JOB_BYTES, Policy, refusals
from trigger.planning import plan_run

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OPTIONS = ManifestOptions(runtime_images={"python": "images.example.com/python:1"})
POLICY = Policy("functions", allowed_service_accounts=("reader",))
DIGEST = "sha256:" + "0123456789abcdef" * 4


def job_for(function: Function) -> dict[str, Any]:
    """The Job that the engine makes of it: nothing here is written for the test."""
    record = RequestRecord(
        request_id="req1", topic="t", received_at=NOW, accepted_at=NOW, sha256=wire.sha256_hex(b"hi"), catalog="c",
        root_request_id="req1", body=Content.inline(b"hi"), params={parameter.name: "v" for parameter in function.parameters},
    )  # fmt: skip
    plan = plan_run(
        function, record, run_id="a" * 26, body=b"hi", run_url="http://h/run/", run_token="secret", catalog="c",
        deadline_at=NOW.replace(hour=12), output_limit_bytes=1000,
    )  # fmt: skip
    return json.loads(json.dumps(job_manifest(plan, OPTIONS, None, NOW)))  # type: ignore[no-any-return]  # as it is sent


def good() -> dict[str, Any]:
    """A Job with a bit of everything, to be made evil."""
    return job_for(
        read(with_pod(EVERY_SETTING, "  parameters: [{name: url}]\n  volume: {size: 1Gi, mountPath: /scratch}\n"))
    )


GOOD_SPECS = {
    "runtime": "  runtime: python\n",
    "image": "  image: busybox\n",
    "image with command": "  image: busybox:1.36\n  command: [sort, -n]\n  args: ['{{topic}}']\n",
    "command": "  command: [sort]\n",
    "input as a file": "  runtime: python\n  input: {as: file}\n",
    "input in the environment": "  image: busybox\n  input: {as: env}\n",
    "output from stdout": "  image: busybox\n  output: {from: stdout}\n",
    "limits": "  image: busybox\n  timeoutSeconds: 2.5\n  backoffLimit: 6\n  ttlSecondsAfterFinished: 0\n  noRetryExitCodes: [3, 4]\n",
    "resources": "  image: busybox\n  resources: {requests: {cpu: 100m, nvidia.com/gpu: 1}, limits: {memory: 1Gi}}\n",
    "a volume": "  image: busybox\n  volume: {size: 1Gi, mountPath: /scratch, storageClass: fast, accessMode: ReadWriteOncePod}\n",
    "a volume at the work folder": "  runtime: python\n  volume: {size: 1Gi, mountPath: /work}\n",
    "secrets in the environment": "  image: busybox\n  env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n",
    "every pod setting": with_pod(EVERY_SETTING, "  parameters: [{name: url}]\n"),
    "a digest": f"  image: images.example.com/a@{DIGEST}\n",
    "hard values": "  image: busybox\n  env: [{name: A, value: \"\\\"\\n---\\n{a: 'b'} # $(X) \\u00e4\"}]\n",
    "a whole job": with_job(HARMLESS, "  backoffLimit: 2\n"),
    "a job without a name for its container": with_job(job_of({"name": "main", "image": "x"})),
    "a job with a helper": with_job(job_of({"name": "function", "image": "x"}, {"name": "helper", "image": "y"})),
    "a job around a runtime": with_job(job_of(nodeSelector={"a": "b"}), "  runtime: python\n"),
    "a job with a sidecar": with_job(job_of({"name": "function", "image": "x"}, initContainers=[{"name": "s", "image": "y", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}])),
    "a job with settings of its own": with_job(job_of({"name": "m", "image": "x", "env": [{"name": "TOPIC", "value": "mine"}]}, securityContext={"runAsUser": 7, "runAsGroup": 7, "fsGroup": 7}, terminationGracePeriodSeconds=60, volumes=[{"name": "v", "emptyDir": {}}])),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD_SPECS)
def test_what_functions_may_ask_for_is_let_through(name: str) -> None:
    assert refusals(job_for(read(GOOD_SPECS[name])), POLICY) == []


def test_there_are_twenty_good_ones() -> None:
    assert len(GOOD_SPECS) >= 20


# the evil ones

Change = Callable[[dict[str, Any]], object]


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]  # type: ignore[no-any-return]  # a Job as JSON


def main(job: dict[str, Any]) -> dict[str, Any]:
    return pod(job)["containers"][0]  # type: ignore[no-any-return]  # a Job as JSON


def in_job(**values: Any) -> Change:
    return lambda job: job.update(values)


def in_meta(**values: Any) -> Change:
    return lambda job: job["metadata"].update(values)


def in_spec(**values: Any) -> Change:
    return lambda job: job["spec"].update(values)


def in_pod(**values: Any) -> Change:
    return lambda job: pod(job).update(values)


def in_main(**values: Any) -> Change:
    return lambda job: main(job).update(values)


def in_security(**values: Any) -> Change:
    return lambda job: main(job)["securityContext"].update(values)


def in_pod_security(**values: Any) -> Change:
    return lambda job: pod(job)["securityContext"].update(values)


def volume(**source: Any) -> Change:
    return lambda job: pod(job)["volumes"].append({"name": "evil", **source})


def mount(**values: Any) -> Change:
    return lambda job: main(job)["volumeMounts"].append({"name": "data", "mountPath": "/evil", **values})


def env(**entry: Any) -> Change:
    return lambda job: main(job)["env"].append({"name": "EVIL", **entry})


def without(*path: Any) -> Change:
    def remove(job: dict[str, Any]) -> None:
        value: Any = job
        for part in path[:-1]:
            value = value[part]
        del value[path[-1]]

    return remove


def claim(**spec: Any) -> dict[str, Any]:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}} | spec
    return {"ephemeral": {"volumeClaimTemplate": {"spec": whole}}}


STRICT = Policy(
    "functions",
    allowed_images=("images.good/*", f"docker.io/*@{DIGEST}"),
    allowed_service_accounts=("reader",),
    allowed_priority_classes=("batch-*",),
    allowed_secrets=("db", "keys", "pull"),
    allowed_volume_claims=("shared",),
    allowed_storage_classes=("fast",),
    max_volume_bytes=2**30,
)
P, C = "spec.template.spec", "spec.template.spec.containers[0]"
S = f"{C}.securityContext"

EVIL: dict[str, tuple[Change, str]] = {
    "E03 a list": (lambda job: job.clear(), "apiVersion: is missing"),
    "E05 kind List": (in_job(kind="List", items=[]), "kind: List is not allowed; it may be Job"),
    "E05 items of a list": (in_job(items=[]), "items: is not allowed"),
    **{f"E06 kind {kind}": (in_job(kind=kind), f"kind: {kind} is not allowed") for kind in ("Role", "RoleBinding", "Secret", "Pod", "CronJob")},
    "E06 an old version": (in_job(apiVersion="batch/v1beta1"), "apiVersion: batch/v1beta1 is not allowed"),
    "E15 generateName": (in_meta(generateName="x-"), "metadata.generateName: is not allowed: the name of a run's Job derives"),
    "E16 no name": (without("metadata", "name"), "metadata.name: is missing"),
    "E17 a placeholder in the name": (in_meta(name="a-{{topic}}-b"), "metadata.name: a-{{topic}}-b is no name of a Job"),
    "E18 another namespace": (in_meta(namespace="kube-system"), "metadata.namespace: kube-system is not allowed; it may be functions"),
    "E18 a placeholder as namespace": (in_meta(namespace="{{topic}}"), "metadata.namespace: {{topic}} is not allowed"),
    "E19 a foreign owner": (in_meta(ownerReferences=[{"kind": "Pod"}]), "metadata.ownerReferences: is not allowed: what owns a Job can delete it"),
    "E20 a foreign finalizer": (in_meta(finalizers=[names.RESULT_FINALIZER, "evil/x"]), "metadata.finalizers: ['invoker.dev/result', 'evil/x'] is not allowed"),
    "E20 foregroundDeletion": (in_meta(finalizers=["foregroundDeletion"]), "metadata.finalizers"),
    "E20 a finalizer on pods": (lambda job: job["spec"]["template"]["metadata"].update(finalizers=["x/y"]), "template.metadata.finalizers: is not allowed"),
    "E21 no finalizer": (without("metadata", "finalizers"), "metadata.finalizers: is missing"),
    "E21 our finalizer twice": (in_meta(finalizers=[names.RESULT_FINALIZER] * 2), "metadata.finalizers"),
    "E22 a reserved label": (lambda job: job["metadata"]["labels"].update({"invoker.dev/evil": "x"}), "metadata.labels: the key invoker.dev/evil is reserved"),
    "E22 another manager": (lambda job: job["metadata"]["labels"].update({names.MANAGED_BY: "helm"}), "managed-by]: helm is not allowed; it may be invoker"),
    "E22 no label of ours": (without("metadata", "labels", names.RUN), f"metadata.labels[{names.RUN}]: is missing"),
    "E22 a label of the Job controller": (lambda job: job["spec"]["template"]["metadata"]["labels"].update({"controller-uid": "x"}), "the key controller-uid is reserved"),
    "E22 an annotation that switches AppArmor off": (lambda job: job["spec"]["template"]["metadata"]["annotations"].update({"container.apparmor.security.beta.kubernetes.io/function": "unconfined"}), "belongs to Kubernetes"),
    "E23 manualSelector": (in_spec(manualSelector=True), "spec.manualSelector: True is not allowed; it may be False"),
    "E23 selector": (in_spec(selector={}), "spec.selector: is not allowed: a Job must not adopt"),
    "E24 managedBy": (in_spec(managedBy="x"), "spec.managedBy: x is not allowed"),
    "E25 suspend": (in_spec(suspend=True), "spec.suspend: True is not allowed"),
    "E26 parallelism 0": (in_spec(parallelism=0), "spec.parallelism: 0 is not allowed; it may be 1"),
    "E26 parallelism 1000": (in_spec(parallelism=1000), "spec.parallelism: 1000"),
    "E26 parallelism true": (in_spec(parallelism=True), "spec.parallelism: True is not allowed"),
    "E27 completions 0": (in_spec(completions=0), "spec.completions: 0 is not allowed"),
    "E27 no completions": (without("spec", "completions"), "spec.completions: is missing"),
    "E28 backoffLimit -1": (in_spec(backoffLimit=-1), "spec.backoffLimit: -1 is not allowed; it must be 0 to 100"),
    "E28 backoffLimit 10^9": (in_spec(backoffLimit=10**9), "spec.backoffLimit: 1000000000 is not allowed"),
    "E30 a deadline of 0": (in_spec(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: 0 is not allowed"),
    "E31 a ttl of -1": (in_spec(ttlSecondsAfterFinished=-1), "spec.ttlSecondsAfterFinished: -1 is not allowed"),
    "E32 restartPolicy Always": (in_pod(restartPolicy="Always"), f"{P}.restartPolicy: Always is not allowed; it may be Never"),
    "E32 restartPolicy OnFailure": (in_pod(restartPolicy="OnFailure"), f"{P}.restartPolicy: OnFailure"),
    "E32 a container that restarts": (in_main(restartPolicy="Always"), f"{C}.restartPolicy: is not allowed: the Job decides"),
    "E32 an init container that restarts on failure": (lambda job: pod(job)["initContainers"][0].update(restartPolicy="OnFailure"), "initContainers[0].restartPolicy: OnFailure"),
    "E33 Indexed": (in_spec(completionMode="Indexed"), "spec.completionMode: Indexed is not allowed"),
    "E34 successPolicy": (in_spec(successPolicy={}), "spec.successPolicy: is not allowed: it would decide"),
    "E35 a rule about a container that is not there": (lambda job: job["spec"]["podFailurePolicy"]["rules"].append({"action": "FailJob", "onExitCodes": {"containerName": "ghost", "operator": "In", "values": [1]}}), "containerName: ghost is not allowed"),
    "E35 attempts that never count": (lambda job: job["spec"]["podFailurePolicy"]["rules"].append({"action": "Count", "onPodConditions": []}), "action: Count is not allowed"),
    "E35 overlapping attempts": (in_spec(podReplacementPolicy="TerminatingOrFailed"), "spec.podReplacementPolicy"),
    "E36 hostPath": (volume(hostPath={"path": "/"}), "hostPath: is not allowed: it is a folder of the node"),
    "E36 hostNetwork": (in_pod(hostNetwork=True), f"{P}.hostNetwork: True is not allowed"),
    "E36 hostPID": (in_pod(hostPID=True), f"{P}.hostPID: True is not allowed"),
    "E36 hostIPC": (in_pod(hostIPC=True), f"{P}.hostIPC: True is not allowed"),
    "E36 hostUsers": (in_pod(hostUsers=True), f"{P}.hostUsers: True is not allowed"),
    "E36 hostPort": (in_main(ports=[{"containerPort": 1, "hostPort": 1}]), f"{C}.ports[0].hostPort: is not allowed: it is a port of the node"),
    "E37 privileged": (in_security(privileged=True), f"{S}.privileged: True is not allowed"),
    "E37 privileged in an init container": (lambda job: pod(job)["initContainers"][0]["securityContext"].update(privileged=True), "initContainers[0].securityContext.privileged"),
    "E37 added capabilities": (in_security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), f"{S}.capabilities.add: ['SYS_ADMIN'] is not allowed"),
    "E37 kept capabilities": (in_security(capabilities={"drop": ["NET_RAW"]}), f"{S}.capabilities.drop"),
    "E37 no capabilities dropped": (without("spec", "template", "spec", "containers", 0, "securityContext", "capabilities"), f"{S}.capabilities: is missing"),
    "E37 allowPrivilegeEscalation": (in_security(allowPrivilegeEscalation=True), f"{S}.allowPrivilegeEscalation: True"),
    "E37 no securityContext": (without("spec", "template", "spec", "containers", 0, "securityContext"), f"{S}: is missing"),
    "E37 procMount": (in_security(procMount="Unmasked"), f"{S}.procMount: Unmasked"),
    "E37 runAsUser 0": (in_security(runAsUser=0), f"{S}.runAsUser: 0 is not allowed"),
    "E37 runAsUser 0 for the pod": (in_pod_security(runAsUser=0), f"{P}.securityContext.runAsUser: 0"),
    "E37 runAsNonRoot false": (in_security(runAsNonRoot=False), f"{S}.runAsNonRoot: False"),
    "E37 runAsNonRoot false for the pod": (in_pod_security(runAsNonRoot=False), f"{P}.securityContext.runAsNonRoot: False"),
    "E30 a deadline of 0 for the pod": (in_pod(activeDeadlineSeconds=0), f"{P}.activeDeadlineSeconds: 0 is not allowed"),
    "E37 no runAsNonRoot": (without("spec", "template", "spec", "securityContext", "runAsNonRoot"), f"{P}.securityContext.runAsNonRoot: is missing"),
    "E37 seccomp Unconfined": (in_pod_security(seccompProfile={"type": "Unconfined"}), f"{P}.securityContext.seccompProfile.type: Unconfined"),
    "E37 seccomp of the node's files": (in_pod_security(seccompProfile={"type": "Localhost", "localhostProfile": "../../etc/x"}), "is no profile below the kubelet's"),
    "E37 sysctls": (in_pod_security(sysctls=[{"name": "kernel.msgmax", "value": "1"}]), f"{P}.securityContext.sysctls: is not allowed: they change"),
    "E38 another service account": (in_pod(serviceAccountName="admin"), f"{P}.serviceAccountName: the service account admin is not allowed here; allowed: default, reader"),
    "E38 by its old name": (in_pod(serviceAccount="admin"), f"{P}.serviceAccount: is not allowed: write serviceAccountName"),
    "E39 a token": (in_pod(automountServiceAccountToken=True), f"{P}.automountServiceAccountToken: True"),
    "E39 the default about tokens": (without("spec", "template", "spec", "automountServiceAccountToken"), f"{P}.automountServiceAccountToken: is missing"),
    "E40 a projected token": (volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}), "serviceAccountToken: is not allowed: pods of runs have no identity"),
    "E41 a secret volume": (volume(secret={"secretName": "admin"}), "secret.secretName: the secret admin is not allowed here; allowed: db, keys, pull"),
    "E41 a projected secret": (volume(projected={"sources": [{"secret": {"name": "admin"}}]}), "secret.name: the secret admin"),
    "E41 secretKeyRef": (env(valueFrom={"secretKeyRef": {"name": "admin", "key": "k"}}), "secretKeyRef.name: the secret admin"),
    "E41 envFrom": (in_main(envFrom=[{"secretRef": {"name": "admin"}}]), f"{C}.envFrom[0].secretRef.name: the secret admin"),
    "E41 imagePullSecrets": (in_pod(imagePullSecrets=[{"name": "admin"}]), "imagePullSecrets[0].name: the secret admin"),
    "E42 nodeName": (in_pod(nodeName="n"), f"{P}.nodeName: is not allowed: it goes past the scheduler"),
    "E42 tolerates everything": (in_pod(tolerations=[{"operator": "Exists"}]), f"{P}.tolerations[0].key: is missing"),
    "E42 tolerates everything by an empty key": (in_pod(tolerations=[{"key": "", "operator": "Exists"}]), f"{P}.tolerations[0].key"),
    "E42 system priority": (in_pod(priorityClassName="system-node-critical"), f"{P}.priorityClassName: system-node-critical would push"),
    "E42 another priority class": (in_pod(priorityClassName="urgent"), "the priority class urgent is not allowed here; allowed: batch-*"),
    "E43 somebody's volume claim": (volume(persistentVolumeClaim={"claimName": "theirs"}), "claimName: the volume claim theirs is not allowed here"),
    "E43 10 TiB": (volume(**claim(resources={"requests": {"storage": "10Ti"}})), "storage: 10Ti is more than the 1073741824 bytes"),
    "E43 another storage class": (volume(**claim(storageClassName="gold")), "storageClassName: the storage class gold is not allowed here"),
    "E43 a copy of somebody's claim": (volume(**claim(dataSource={"kind": "PersistentVolumeClaim", "name": "theirs"})), "dataSource: is not allowed: a run's volume begins empty"),
    "E43 a raw disk": (volume(**claim(volumeMode="Block")), "volumeMode: Block is not allowed"),
    "E44 subPathExpr": (mount(subPathExpr="$(A)"), "subPathExpr: is not allowed: a variable would choose"),
    "E44 subPath with ..": (mount(subPath="../x"), "subPath: must be a relative path without '..'"),
    "E45 a mount over the input": (mount(mountPath="/invoker/input"), "lies over /invoker"),
    "E45 a mount over the code": (mount(mountPath="/code"), "lies over /code"),
    "E45 a mount over the device files": (mount(mountPath="/dev"), "lies over /dev"),
    "E46 ephemeralContainers": (in_pod(ephemeralContainers=[{"name": "x"}]), f"{P}.ephemeralContainers: is not allowed: they are for people"),
    "E46 an init container with more": (lambda job: pod(job)["initContainers"].append({"name": "evil", "image": f"a@{DIGEST}"}), "securityContext: is missing"),
    "E47 no digest": (in_main(image="busybox:1.36"), f"{C}.image: the image docker.io/library/busybox:1.36 is not allowed here: it has no digest"),
    "E47 latest": (in_main(image="busybox"), "library/busybox:latest is not allowed here"),
    "E47 another registry": (in_main(image="quay.io/a:1"), "quay.io/a:1 is not allowed here"),
    "E47 a name that begins alike": (in_main(image="images.good.evil.com/a:1"), "images.good.evil.com/a:1 is not allowed here"),
    "E47 upper case": (in_main(image="images.good/Tool:1"), "has upper case letters"),
    "E47 300 characters": (in_main(image="images.good/" + "x" * 300), "longer than 255 characters"),
    "E47 no image": (without("spec", "template", "spec", "containers", 0, "image"), f"{C}.image: is missing"),
    "E49 a placeholder in the image": (in_main(image="images.good/{{topic}}"), "is no image"),
    "E49 a placeholder in a number": (in_spec(backoffLimit="{{params.n}}"), "spec.backoffLimit: must be a whole number, not text"),
    "E51 NUL": (env(value="a\0b"), "value: has a NUL character"),
    "E52 more than 1 MiB": (in_main(args=["x" * MAX_JOB_BYTES]), f"at most {MAX_JOB_BYTES} are allowed"),
    "E53 5000 variables": (in_main(env=[{"name": f"A{n}", "value": ""} for n in range(5000)]), f"{C}.env: has 5000 entries"),
    "E54 annotations above 256 KiB": (lambda job: job["metadata"]["annotations"].update({f"a{n}": "x" * 100_000 for n in range(3)}), "metadata.annotations: has 30"),
    "E55 an unknown field": (in_pod(hostNetwrok=True), f"{P}.hostNetwrok: is not allowed; known here are"),
    "E55 a status": (in_job(status={}), "status: is not allowed"),
    "E56 a number as text": (in_spec(completions="1"), "spec.completions: 1 is not allowed"),
    "E56 text as a number": (env(value=1), "value: must be text, not a number"),
    "E57 a float": (in_spec(parallelism=1.0), "spec.parallelism: 1.0 is not allowed"),
    "E58 lifecycle": (in_main(lifecycle={"postStart": {"exec": {"command": ["x"]}}}), f"{C}.lifecycle: is not allowed: a hook runs programs"),
    "E58 a probe with exec": (in_main(livenessProbe={"exec": {"command": ["x"]}}), f"{C}.livenessProbe.exec: is not allowed: a probe may ask"),
    "E58 a probe of another host": (in_main(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}), "httpGet.host: is not allowed: the node would ask another host"),
    "E59 shareProcessNamespace": (in_pod(shareProcessNamespace=True), f"{P}.shareProcessNamespace: True is not allowed"),
    "E60 dnsConfig": (in_pod(dnsConfig={"nameservers": ["6.6.6.6"]}), f"{P}.dnsConfig: is not allowed: it changes which addresses"),
    "E60 hostAliases": (in_pod(hostAliases=[{"ip": "6.6.6.6", "hostnames": ["a"]}]), f"{P}.hostAliases: is not allowed"),
    "an inline CSI volume": (volume(csi={"driver": "x"}), "csi: is not allowed: an inline CSI volume"),
    "a volume without a source": (volume(), "must have exactly one of"),
    "two containers called function": (lambda job: pod(job)["containers"].append(copy.deepcopy(main(job))), "must have exactly one container named 'function'"),
    "a raw disk in a container": (in_main(volumeDevices=[{"name": "x", "devicePath": "/dev/x"}]), f"{C}.volumeDevices: is not allowed"),
    "another termination file": (in_main(terminationMessagePath="/etc/passwd"), f"{C}.terminationMessagePath: /etc/passwd is not allowed"),
    "pods of other namespaces": (in_pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a", "namespaceSelector": {}}]}}), "namespaceSelector: is not allowed"),
}  # fmt: skip


def strict_good() -> dict[str, Any]:
    """The good Job as the strict operator wants it."""
    job = good()
    for container in (*pod(job)["containers"], *pod(job)["initContainers"]):
        container["image"] = "images.good/team/tool:1"
    return job


@pytest.mark.parametrize("name", EVIL)
def test_evil_manifests_are_refused_in_words(name: str) -> None:
    change, sentence = EVIL[name]
    job = strict_good()
    assert refusals(job, STRICT) == [], "it was good before"
    change(job)
    found = refusals(job, STRICT)
    assert any(sentence in one for one in found), found


def test_a_policy_that_is_none_is_an_error() -> None:
    with pytest.raises(ImageError):
        refusals(good(), Policy("functions", allowed_images=("*.example.com/*",)))


def test_nothing_allowed_is_nothing_allowed() -> None:
    found = refusals(good(), Policy("functions", allowed_images=(), allowed_secrets=(), allowed_volume_claims=()))
    assert sum("allowed are: none" in one for one in found) == 3
    assert any("volume claim shared is not allowed here; allowed: none" in one for one in found)


FORBIDDEN = {
    "a volume": volume(secret={"secretName": "rel-run-token"}),
    "a projected volume": volume(projected={"sources": [{"secret": {"name": "rel-run-token"}}]}),
    "a variable": env(valueFrom={"secretKeyRef": {"name": "rel-run-token", "key": "k"}}),
    "all variables": in_main(envFrom=[{"secretRef": {"name": "rel-run-token"}}]),
    "to pull with": in_pod(imagePullSecrets=[{"name": "rel-run-token"}]),
}


@pytest.mark.parametrize("way", FORBIDDEN)
def test_a_forbidden_secret_is_refused_though_all_are_allowed(way: str) -> None:
    job = good()
    FORBIDDEN[way](job)
    assert refusals(job, POLICY) == []
    (found,) = refusals(job, replace(POLICY, forbidden_secrets=("rel-*",)))
    assert "the secret rel-run-token is never for functions here" in found


def test_what_is_no_json_is_refused_and_never_raises() -> None:
    job = good()
    job["spec"]["template"]["spec"]["containers"] = {"function": object()}
    assert refusals(job, POLICY) == ["the Job is no plain JSON"]
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert refusals({"spec": deep}, POLICY) == ["the Job is no plain JSON"]


# mutations


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from paths(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from paths(one, (*path, index))


GOOD = good()
PATHS = [path for path in paths(GOOD) if path]

PRIVILEGED: list[tuple[str, Any]] = [
    ("privileged", True), ("hostNetwork", True), ("hostPID", True), ("hostIPC", True), ("hostUsers", True), ("hostPath", {"path": "/"}),
    ("allowPrivilegeEscalation", True), ("runAsUser", 0), ("runAsNonRoot", False), ("procMount", "Unmasked"), ("add", ["SYS_ADMIN"]),
    ("automountServiceAccountToken", True), ("serviceAccountToken", {"path": "t"}), ("hostPort", 22), ("nodeName", "n"),
    ("shareProcessNamespace", True), ("subPathExpr", "$(A)"), ("mountPropagation", "Bidirectional"), ("lifecycle", {"postStart": {}}),
    ("seccompProfile", {"type": "Unconfined"}), ("capabilities", {"drop": []}), ("managedBy", "x"), ("suspend", True), ("manualSelector", True),
    ("ephemeralContainers", []), ("ownerReferences", []), ("volumeDevices", []), ("serviceAccountName", "admin"),
]  # fmt: skip
FREE = {"labels", "annotations", "nodeSelector", "requests", "limits", "matchLabels"}
"""Mappings of free keys: a key called `privileged` there is a name like any other."""

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 10**10), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=3)),
    max_leaves=6,
)


def at(job: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        job = job[part]
    return job


def is_harmless(job: dict[str, Any]) -> bool:
    """What must hold of every Job that passes, written down without the policy's own rules."""
    spec, inside = job["spec"], job["spec"]["template"]["spec"]
    containers = [*inside["containers"], *inside.get("initContainers", [])]
    return (
        (job["apiVersion"], job["kind"], spec["parallelism"], spec["completions"]) == ("batch/v1", "Job", 1, 1)
        and job["metadata"]["finalizers"] == [names.RESULT_FINALIZER]
        and (inside["restartPolicy"], inside["automountServiceAccountToken"]) == ("Never", False)
        and inside["securityContext"]["runAsNonRoot"] is True
        and inside["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        and not any(inside.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "nodeName"))
        and not any(key in one for one in inside.get("volumes", []) for key in ("hostPath", "csi", "nfs"))
        and all(one["securityContext"]["allowPrivilegeEscalation"] is False for one in containers)
        and all(one["securityContext"]["capabilities"]["drop"] == ["ALL"] for one in containers)
        and not any(one["securityContext"]["capabilities"].get("add") for one in containers)
        and not any(one["securityContext"].get("privileged") for one in containers)
        and all(one["securityContext"].get("runAsUser", 1) != 0 for one in containers)
    )


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(PRIVILEGED), st.data())
def test_a_privileged_thing_anywhere_never_passes(thing: tuple[str, Any], data: st.DataObject) -> None:
    where = [path for path in ((), *PATHS) if isinstance(at(GOOD, path), dict) and not FREE & set(path[-1:])]
    path = data.draw(st.sampled_from(where))
    job = copy.deepcopy(GOOD)
    at(job, path)[thing[0]] = thing[1]
    assert refusals(job, POLICY), (path, thing)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_whatever_replaces_a_part_of_a_good_job_it_is_refused_or_harmless(path: tuple[Any, ...], value: Any) -> None:
    job = copy.deepcopy(GOOD)
    at(job, path[:-1])[path[-1]] = value
    found = refusals(job, POLICY)
    assert found or is_harmless(job), (path, value)
    assert all(len(one) < 1500 for one in found)


def test_whatever_is_left_out_of_a_good_job_it_is_refused_or_harmless() -> None:
    for path in PATHS:
        job = copy.deepcopy(GOOD)
        del at(job, path[:-1])[path[-1]]
        assert refusals(job, POLICY) or is_harmless(job), path


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=30), JSON, st.data())
def test_an_unknown_key_anywhere_never_passes(key: str, value: Any, data: st.DataObject) -> None:
    where = [path for path in ((), *PATHS) if isinstance(at(GOOD, path), dict) and not FREE & set(path[-1:])]
    path = data.draw(st.sampled_from(where))
    job = copy.deepcopy(GOOD)
    at(job, path)[f"x{key}"] = value
    assert refusals(job, POLICY)
