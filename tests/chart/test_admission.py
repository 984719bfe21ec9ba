"""The admission policy: with the token of a controller's account, which its Role lets create any Job, evil ones are
refused by the policy alone. That ordinary runs pass is shown by every test of the shared release, which has it on."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from tests.chart.release import Release, eventually, token_kubeconfig
from tests.cluster.facts import Cluster, KubectlError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

POD = ("spec", "template", "spec")
LABELS = ("spec", "template", "metadata", "labels")
FIRST = (*POD, "containers", 0)


@pytest.fixture(scope="module")
def taken_over(shared: Release, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster for somebody who has the controller's token."""
    folder = tmp_path_factory.mktemp("token")
    kubeconfig = token_kubeconfig(shared.cluster, shared.namespace, f"{shared.fullname}-controller", folder)
    return Cluster(kubeconfig, shared.cluster.host_address, shared.cluster.kubectl_path, ())


@pytest.fixture(scope="module")
def ordinary(shared: Release) -> dict[str, Any]:
    """A Job as the controller made it for a run, fit to be made again."""
    asyncio.run(run_once(shared))
    selector = ("--selector", "invoker.dev/function=chart-test")

    def made() -> Any:
        return shared.get("jobs", *selector)["items"]

    job: dict[str, Any] = copy.deepcopy(eventually(made, "a Job of a run")[0])
    kept = ("labels", "annotations", "finalizers")
    job["metadata"] = {key: job["metadata"][key] for key in kept if key in job["metadata"]} | {"generateName": "again-"}
    job["metadata"]["finalizers"] = ["invoker.dev/result"]
    del job["status"], job["spec"]["selector"]
    set_by_the_server = (
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "controller-uid",
        "job-name",
    )
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        for label in set_by_the_server:
            labels.pop(label, None)
    return job


async def run_once(release: Release) -> None:
    async with release.client() as client:
        await client.request("chart.test", "ordinary", timeout=150)


def created(cluster: Cluster, namespace: str, job: dict[str, Any]) -> None:
    """Asked of the API server, which does all but store it. Raises `KubectlError` with its answer."""
    cluster.kubectl("create", "--namespace", namespace, "--dry-run=server", "-f", "-", given=json.dumps(job))


def changed(job: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The Job with something else at one place; a list's place `-1` is behind its last."""
    changed = copy.deepcopy(job)
    where: Any = changed
    for step in path[:-1]:
        where = where.setdefault(step, {}) if isinstance(where, dict) else where[step]
    if isinstance(where, list):
        where.append(value)
    else:
        where[path[-1]] = value
    return changed


def volume(**source: Any) -> dict[str, Any]:
    return {"name": "more", **source}


def claim(**spec: Any) -> dict[str, Any]:
    """An ephemeral volume."""
    known = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return volume(ephemeral={"volumeClaimTemplate": {"spec": known | spec}})


EVIL = {
    "a folder of the node": ((*POD, "volumes", -1), volume(hostPath={"path": "/"}), "a kind of volume"),
    "a network share": ((*POD, "volumes", -1), volume(nfs={"server": "x", "path": "/"}), "a kind of volume"),
    "the node's network": ((*POD, "hostNetwork"), True, "network, processes or memory of the node"),
    "the node's processes": ((*POD, "hostPID"), True, "network, processes or memory of the node"),
    "the node's memory": ((*POD, "hostIPC"), True, "network, processes or memory of the node"),
    "privileged": ((*FIRST, "securityContext"), {"privileged": True}, "privileges, root"),
    "more privileges later": ((*FIRST, "securityContext", "allowPrivilegeEscalation"), True, "privileges, root"),
    "root": ((*FIRST, "securityContext", "runAsUser"), 0, "privileges, root"),
    "perhaps root": ((*FIRST, "securityContext", "runAsNonRoot"), False, "privileges, root"),
    "a pod that may be root": ((*POD, "securityContext", "runAsNonRoot"), False, "privileges, root"),
    "root of the pod": ((*POD, "securityContext", "runAsUser"), 0, "privileges, root"),
    "a capability": ((*FIRST, "securityContext", "capabilities", "add"), ["NET_ADMIN"], "capabilities"),
    "a port of the node": ((*FIRST, "ports"), [{"containerPort": 80, "hostPort": 80}], "a port of the node"),
    "an account with more rights": ((*POD, "serviceAccountName"), "invoker-controller", "a service account"),
    "the token of an account": ((*POD, "automountServiceAccountToken"), True, "the token of a service account"),
    "a projected token": (
        (*POD, "volumes", -1),
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        "a projected token",
    ),
    "a node past the scheduler": ((*POD, "nodeName"), "127.0.0.1", "nodeName"),
    "a priority of the system": ((*POD, "priorityClassName"), "system-node-critical", "a priority class"),
    "a Secret as a variable": (
        (*FIRST, "env", -1),
        {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": "invoker-run-token", "key": "key"}}},
        "a Secret of Invoker itself",  # though allowedSecrets has it
    ),
    "all of a Secret": ((*FIRST, "envFrom"), [{"secretRef": {"name": "invoker-admin-key"}}], "a Secret that"),
    "a Secret as a file": ((*POD, "volumes", -1), volume(secret={"secretName": "invoker-admin-key"}), "a Secret that"),
    "a projected Secret": (
        (*POD, "volumes", -1),
        volume(projected={"sources": [{"secret": {"name": "invoker-admin-key"}}]}),
        "a Secret that",
    ),
    "a Secret to pull with": ((*POD, "imagePullSecrets"), [{"name": "registry"}], "a Secret that"),
    "another image": ((*FIRST, "image"), "evil.example.org/miner:1", "an image that is not among"),
    "no labels of ours": (("metadata", "labels"), {"some": "other"}, "without the labels of this installation"),
    "pods that no network policy knows": (
        (*LABELS, "app.kubernetes.io/managed-by"),
        "me",
        "pods without the labels of this installation's functions",
    ),
    "pods of another installation": ((*LABELS, "invoker.dev/instance"), "other", "pods without the labels"),
    "a pod that poses as a gateway": ((*LABELS, "invoker.dev/installation"), "invoker", "those of its own programs"),
    "a copy of another volume": (
        (*POD, "volumes", -1),
        claim(dataSource={"kind": "PersistentVolumeClaim", "name": "data-invoker-nats-0"}),
        "a copy of another",
    ),
    "a copy by its other name": (
        (*POD, "volumes", -1),
        claim(dataSourceRef={"kind": "PersistentVolumeClaim", "name": "data-invoker-nats-0"}),
        "a copy of another",
    ),
    "a disk that is there": ((*POD, "volumes", -1), claim(volumeName="pv-1"), "a disk that is there already"),
    "disks by their labels": ((*POD, "volumes", -1), claim(selector={"matchLabels": {"a": "b"}}), "a disk that is"),
    "a larger volume": (
        (*POD, "volumes", -1),
        claim(resources={"requests": {"storage": "4097Mi"}}),
        "larger than controller.settings.maxVolumeBytes",
    ),
    "a larger volume in other words": (
        (*POD, "volumes", -1),
        claim(resources={"requests": {"storage": "1e12"}}),
        "larger than controller.settings.maxVolumeBytes",
    ),
    "a storage class": ((*POD, "volumes", -1), claim(storageClassName="gold"), "a storage class"),
    "every node": ((*POD, "tolerations"), [{"operator": "Exists"}], "a toleration without a key"),
    "names of its own": ((*POD, "hostAliases"), [{"ip": "10.0.0.1", "hostnames": ["x"]}], "names that mean other"),
    "another DNS": ((*POD, "dnsConfig"), {"nameservers": ["10.0.0.1"]}, "names that mean other"),
    "another installation": (("metadata", "labels", "invoker.dev/instance"), "other", "without the labels"),
    "pods of others": (("spec", "manualSelector"), True, "manualSelector"),
    "many pods": (("spec", "parallelism"), 50, "one pod at a time"),
    "another controller": (("spec", "managedBy"), "example.org/mine", "managedBy"),
    "an owner": (
        ("metadata", "ownerReferences"),
        [{"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}],
        "owner references",
    ),
    "a finalizer": (("metadata", "finalizers"), ["example.org/hold"], "a finalizer"),
}


def test_an_ordinary_job_passes(shared: Release, taken_over: Cluster, ordinary: dict[str, Any]) -> None:
    created(taken_over, shared.namespace, ordinary)
    permitted = volume(secret={"secretName": "for-functions-mail"})
    largest = claim(resources={"requests": {"storage": "4Gi"}})
    for more in (permitted, claim(), claim(storageClassName="fast-1"), largest):
        created(taken_over, shared.namespace, changed(ordinary, (*POD, "volumes", -1), more))
    toleration = changed(ordinary, (*POD, "tolerations"), [{"key": "busy", "operator": "Exists"}])
    created(taken_over, shared.namespace, toleration)


@pytest.mark.parametrize("evil", EVIL)
def test_an_evil_job_is_refused_by_the_policy_alone(
    shared: Release, taken_over: Cluster, ordinary: dict[str, Any], evil: str
) -> None:
    path, value, reason = EVIL[evil]
    job = changed(ordinary, path, value)
    if evil == "pods of others":
        labels = job["spec"]["template"]["metadata"]["labels"]
        job["spec"]["selector"] = {"matchLabels": dict(labels)}
    policy = f"ValidatingAdmissionPolicy '{shared.namespace}-invoker-jobs'"
    with pytest.raises(KubectlError) as refused:
        created(taken_over, shared.namespace, job)
    assert policy in str(refused.value)
    assert reason in str(refused.value)
    created(shared.cluster, shared.namespace, job)  # who is not held to the policy may


CODE = {
    "apiVersion": "v1", "kind": "ConfigMap", "immutable": True, "data": {"000-main.py": "pass"},
    "metadata": {
        "name": "invoker-code-abcdefghijklmnopqrstuvwxyz",
        "labels": {"app.kubernetes.io/managed-by": "invoker", "invoker.dev/instance": "invoker"},
    },
}  # fmt: skip
EVIL_CODE = {
    "a name of anybody": (("metadata", "name"), "greetings-2", "whose name is not that of a function's code"),
    "a name that only begins so": (("metadata", "name"), "invoker-code-mine", "whose name is not"),
    "the code of another installation": (
        ("metadata", "name"),
        "other-code-abcdefghijklmnopqrstuvwxyz",
        "whose name is not",
    ),
    "no labels": (("metadata", "labels"), {}, "without the labels of this installation's code"),
    "labels of another": (("metadata", "labels", "invoker.dev/instance"), "other", "without the labels"),
    "a label that others act on": (("metadata", "labels", "grafana_dashboard"), "1", "or with others"),
    "code that changes": (("immutable",), False, "changed under a run"),
    "an owner": (
        ("metadata", "ownerReferences"),
        [{"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}],
        "an owner or a finalizer",
    ),
    "a finalizer": (("metadata", "finalizers"), ["example.org/hold"], "an owner or a finalizer"),
}


def test_ordinary_code_passes(shared: Release, taken_over: Cluster) -> None:
    created(taken_over, shared.namespace, CODE)


@pytest.mark.parametrize("evil", EVIL_CODE)
def test_an_evil_configmap_is_refused_by_the_policy_alone(shared: Release, taken_over: Cluster, evil: str) -> None:
    path, value, reason = EVIL_CODE[evil]
    code = changed(CODE, path, value)
    with pytest.raises(KubectlError) as refused:
        created(taken_over, shared.namespace, code)
    assert f"ValidatingAdmissionPolicy '{shared.namespace}-invoker-code'" in str(refused.value)
    assert reason in str(refused.value)
    created(shared.cluster, shared.namespace, code)  # who is not held to the policy may


def test_no_configmap_of_others_is_removed_by_the_token(shared: Release, taken_over: Cluster) -> None:
    """Its Role lets it remove any of them; the catalog and what other programs keep there are not its own."""
    delete = ("delete", "configmap", "--namespace", shared.namespace, "--dry-run=server")
    for name in ("samples", "kube-root-ca.crt"):
        with pytest.raises(KubectlError, match="whose name is not that of a function's code"):
            taken_over.kubectl(*delete, name)
        shared.kubectl("get", "configmap", name)
    own = "invoker-code-zyxwvutsrqponmlkjihgfedcba"  # the other name must be free: tests beside this one would make it
    shared.cluster.apply(changed(CODE, ("metadata", "name"), own), namespace=shared.namespace)
    taken_over.kubectl("delete", "configmap", "--namespace", shared.namespace, own)


def test_the_token_does_nothing_in_another_namespace(
    taken_over: Cluster, ordinary: dict[str, Any], namespace: str
) -> None:
    with pytest.raises(KubectlError, match="is forbidden: User"):
        created(taken_over, namespace, ordinary)
