"""The life of one release in the hands of somebody who may administer one namespace and nothing else: installed,
upgraded and rolled back while events come in, removed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from invoker import wire
from tests.chart.helm import Helm
from tests.chart.images import EARLIER, VERSION, earlier_chart
from tests.chart.release import SMALL, Release, eventually, token_kubeconfig
from tests.cluster.audit import created_jobs
from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.test_one_node import RESTRICTED_CONTAINER, RESTRICTED_POD

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LOAD = {
    "apiVersion": "invoker.dev/v1alpha1", "kind": "Function", "metadata": {"name": "load"},
    "spec": {
        "subscriptions": [{"topic": "load"}], "image": "localhost/busybox:1", "command": ["sh", "-c", "echo done"],
        "output": {"from": "stdout"}, "ttlSecondsAfterFinished": 0,
    },
}  # fmt: skip
VALUES = {
    "controller": {"resources": SMALL},
    "gateway": {"resources": SMALL},
    "nats": {"evaluation": {"resources": SMALL, "storage": {"size": "64Mi"}}},
    "catalog": {"functions": {"load": {"function.yaml": json.dumps(LOAD)}}},
}
CHANGED = {"settings": {"logLevel": "debug"}}
"""Other environment variables, so all pods of both Deployments are replaced, and no others."""
PUBLISHER = """
import json, os, pathlib, time, urllib.error, urllib.request as u

def published(number):
    # As a careful client does it: the same event under the same id until it is taken.
    tries = 0
    while True:
        tries += 1
        headers = {"Authorization": "Bearer " + os.environ["KEY"], "Idempotency-Key": f"load-{number:04}",
                   "Content-Type": "text/plain", "Prefer": "respond-async"}
        try:
            call = u.Request(os.environ["URL"] + "/v1/topics/load", b"event %d" % number, headers)
            return json.load(u.urlopen(call, timeout=60))["request_id"], tries
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
        except OSError:
            pass
        time.sleep(0.2)

number = 0
while not pathlib.Path("/tmp/stop").exists():
    id, tries = published(number)
    print(json.dumps({"id": id, "tries": tries}), flush=True)
    number += 1
    time.sleep(0.4)
"""
KINDS = (
    "deployments,statefulsets,replicasets,pods,jobs,services,endpointslices,configmaps,secrets,serviceaccounts,roles,"
    "rolebindings,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,ingresses,persistentvolumeclaims"
)


@pytest.fixture
def administrator(cluster: Cluster, namespace: str, folder: Path) -> Cluster:
    """The cluster for somebody with the ClusterRole `admin` in one namespace."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "boss"},
        "subjects": [{"kind": "ServiceAccount", "name": "boss", "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
    }  # fmt: skip
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "boss"}}
    cluster.apply(account, binding, namespace=namespace)
    kubeconfig = token_kubeconfig(cluster, namespace, "boss", folder)
    return Cluster(kubeconfig, cluster.host_address, cluster.kubectl_path, ())


@contextmanager
def publishing(release: Release) -> Iterator[list[dict[str, Any]]]:
    """Events come in through the gateway's Service, from a pod, until this is left; then the list has them all."""
    address = f"http://{release.fullname}-gateway.{release.namespace}.svc"
    key = {"secretKeyRef": {"name": f"{release.fullname}-admin-key", "key": "key"}}
    container = RESTRICTED_CONTAINER | {
        "name": "publisher", "image": "localhost/base:1", "command": ["python", "-u", "-c", PUBLISHER],
        "env": [{"name": "URL", "value": address}, {"name": "KEY", "valueFrom": key}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    spec = RESTRICTED_POD | {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "publisher"}, "spec": spec}
    release.kubectl("apply", "-f", "-", given=json.dumps(pod))
    events: list[dict[str, Any]] = []
    try:
        eventually(lambda: release.kubectl("logs", "publisher"), "the first event that is taken")
        yield events
        release.kubectl("exec", "publisher", "--", "touch", "/tmp/stop")
        release.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/publisher", "--timeout=150s")
        events += [json.loads(line) for line in release.kubectl("logs", "publisher").splitlines()]
    finally:
        release.kubectl("delete", "pod", "publisher", "--grace-period=1", "--wait=false")


async def results_of(release: Release) -> Counter[str]:
    """How often each request of the load has a result in RESULTS, and that all of them succeeded."""
    names = wire.Names()
    async with release.nats() as nats:
        stream = nats.jetstream()
        info = await stream.stream_info(names.results_stream, subjects_filter=f"{names.instance}.result.*.load")
        subjects = info.state.subjects or {}
        for subject in subjects:
            message = await stream.get_last_msg(names.results_stream, subject)
            assert (message.headers or {}).get("Invoker-State") == "succeeded", message
    return Counter({subject.split(".")[2]: count for subject, count in subjects.items()})


async def all_done(release: Release, ids: set[str]) -> Counter[str]:
    """The results, once every id has one."""
    async with asyncio.timeout(300):
        while True:
            found = await results_of(release)
            if ids <= set(found):
                return found
            await asyncio.sleep(0.5)


def images_and_settings(release: Release) -> list[Any]:
    return [item["spec"]["template"] for item in release.get("deployments")["items"]]


def programs(release: Release) -> set[str]:
    """The images of its controllers and gateways."""
    return {
        container["image"] for template in images_and_settings(release) for container in template["spec"]["containers"]
    }


def uid_of(release: Release, pod: str) -> str:
    return str(release.get("pod", pod)["metadata"]["uid"])


def secrets(release: Release) -> dict[str, Any]:
    """The Secrets that the chart made, without those in which helm notes its releases."""
    found = release.get("secrets", "--field-selector=type=Opaque")["items"]
    return {item["metadata"]["name"]: item["data"] for item in found}


def there(cluster: Cluster, namespace: str) -> set[str]:
    """Everything in the namespace, by kind and name."""
    items = cluster.get(KINDS, "--namespace", namespace)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items}


async def test_upgraded_and_rolled_back_under_load_nothing_is_lost_or_doubled(
    cluster: Cluster,
    cluster_helm: Helm,
    administrator: Cluster,
    namespace: str,
    folder: Path,
    record_property: Any,
) -> None:
    """From an earlier version of the chart to this one, back, removed, and installed again beside what was kept."""
    before = there(cluster, namespace)
    release = Release(Helm(cluster_helm.program, administrator.kubeconfig), administrator, namespace)
    with pytest.raises(KubectlError):  # a whole cluster's objects are not for this hand
        administrator.kubectl("auth", "can-i", "create", "clusterroles")
    earlier = replace(release, chart=earlier_chart(cluster_helm, folder))
    await asyncio.to_thread(earlier.install, VALUES)
    assert programs(release) == {f"invoker:{EARLIER}"}
    server = uid_of(release, "invoker-nats-0")
    drawn, first = secrets(release), images_and_settings(release)
    assert {f"{release.fullname}-{what}" for what in ("run-token", "admin-key", "nats-users")} <= set(drawn)

    with publishing(release) as events:
        await asyncio.to_thread(release.upgrade, VALUES, CHANGED)
        assert images_and_settings(release) != first
        assert programs(release) == {f"invoker:{VERSION}"}
        upgraded = release.pods("controller") + release.pods("gateway")
        await asyncio.to_thread(release.rollback, 1)
        assert images_and_settings(release) == first
        assert not set(upgraded) & {*release.pods("controller"), *release.pods("gateway")}
    assert secrets(release) == drawn
    assert uid_of(release, "invoker-nats-0") == server, "another version replaces nothing that stays the same"

    ids = {event["id"] for event in events}
    assert len(ids) == len(events) > 10
    found = await all_done(release, ids)
    assert found == Counter(ids)
    made = Counter(job["metadata"]["labels"]["invoker.dev/run"] for job in created_jobs(cluster, namespace))
    # A creation that was cut off when its controller ended is not among them: the next controller met the Job it made.
    assert len(ids) * 0.8 < len(made) <= len(ids)
    assert set(made.values()) == {1}
    again = sum(event["tries"] > 1 for event in events)
    told = (
        f"chart: {len(ids)} events during an upgrade and a rollback, {again} of them sent more than once, each run once"
    )
    record_property("told", told)

    kept = {
        line.strip().lower() for line in release.notes().splitlines() if line.strip().startswith(("secret/", "pers"))
    }
    await asyncio.to_thread(release.uninstall)

    def left() -> set[str]:
        return {name.lower() for name in there(cluster, namespace) - before}

    eventually(lambda: left() <= kept, f"nothing but {sorted(kept)}")
    assert left() == kept

    await asyncio.to_thread(release.install, VALUES)
    assert secrets(release) == drawn
    assert await all_done(release, ids) == found, "the kept volume has what was stored"
    await asyncio.to_thread(release.uninstall)
    eventually(lambda: left() <= kept, f"nothing but {sorted(kept)}")
