"""What the chart makes of Secrets that are in the cluster already, rendered there; nothing is installed."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Helm
from tests.chart.rendering import NAME, RELEASE, Document, annotations_of_pods, decoded, the
from tests.chart.values_cases import EXTERNAL
from tests.chart.whole_values import CONTROLLER
from tests.cluster.facts import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

GATEWAY = ("Deployment", f"{NAME}-gateway")


def rendered(helm: Helm, cluster: Cluster, namespace: str, values: dict[str, Any]) -> list[Document]:
    """As an upgrade would be, with what the cluster has."""
    place = (RELEASE, str(CHART), "--namespace", namespace, "--dry-run=server", "--values", "-")
    text = Helm(helm.program, cluster.kubeconfig)("template", *place, given=json.dumps(values))
    return [document for document in yaml.safe_load_all(text) if document]


def put(cluster: Cluster, namespace: str, name: str, **data: str) -> None:
    """A Secret as an uninstalled release of that name has left it; Helm takes no other one for its own."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    owner = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": namespace}
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": owner}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}, namespace=namespace)


def test_secrets_that_are_there_are_kept(helm: Helm, cluster: Cluster, namespace: str) -> None:
    put(cluster, namespace, f"{NAME}-run-token", key="drawn long ago")
    put(cluster, namespace, f"{NAME}-admin-key", key=f"inv_{'a' * 10}_{'b' * 52}")
    first, second = (rendered(helm, cluster, namespace, {}) for _ in range(2))
    assert decoded(the(first, "Secret", f"{NAME}-run-token")) == {"key": "drawn long ago"}
    keys = [decoded(the(one, "Secret", f"{NAME}-gateway-keys"))["keys.json"] for one in (first, second)]
    assert keys[0] == keys[1]
    assert json.loads(keys[0])["keys"][0]["id"] == "a" * 10


def test_a_key_of_another_shape_is_refused_in_words(helm: Helm, cluster: Cluster, namespace: str) -> None:
    put(cluster, namespace, f"{NAME}-admin-key", key="secret")
    with pytest.raises(Exception, match=f"the Secret {NAME}-admin-key holds no API key"):
        rendered(helm, cluster, namespace, {})


def test_a_change_of_ones_own_secrets_replaces_the_pods_that_use_them(
    helm: Helm, cluster: Cluster, namespace: str
) -> None:
    who = {"method": "token", "existingSecret": "bus"}
    values = {
        "nats": EXTERNAL["nats"] | {"controller": who},
        "runToken": {"existingSecret": "runs"},
        "redis": {"enabled": True, "existingSecret": "copy"},
    }
    put(cluster, namespace, "runs", key="one")
    put(cluster, namespace, "copy", url="redis://one")
    before = rendered(helm, cluster, namespace, values)
    put(cluster, namespace, "bus", token="another")
    after = rendered(helm, cluster, namespace, values)
    seen = [annotations_of_pods(one, *CONTROLLER)["checksum/secrets"] for one in (before, after)]
    assert seen[0] != seen[1]
    guessed = f'{{"url":"{base64.b64encode(b"redis://one").decode()}"}}'
    checksum = annotations_of_pods(before, *GATEWAY)["checksum/secrets"]
    assert checksum != hashlib.sha256(guessed.encode()).hexdigest(), "a short password could be tried against it"
    untouched = [annotations_of_pods(one, *GATEWAY)["checksum/secrets"] for one in (before, after)]
    assert untouched[0] == untouched[1]
