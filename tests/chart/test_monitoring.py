"""The objects for the Prometheus operator, judged by the operator's own definitions on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Helm
from tests.chart.release import eventually
from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.folders import locked
from tests.skips import without

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DEFINITIONS = Path(__file__).parents[2] / "build" / "prometheus-operator"
NAMES = ("servicemonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com")
VALUES = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "jobs": {"namespace": "green"},
    "tenants": {"blue": {"jobs": {"namespace": "blue"}}},
}


@pytest.fixture(scope="module")
def operated(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with the operator's definitions, which go with this; one such test at a time on this machine."""
    files = [DEFINITIONS / f"{name.partition('.')[0]}.yaml" for name in NAMES]
    if not all(file.exists() for file in files):
        words = "the Prometheus operator's definitions are not here (scripts/fetch-operator-crds)"
        without(words, needed_if="INVOKER_REQUIRE_CLUSTER")
    with locked(cluster.state or tmp_path_factory.getbasetemp(), "definitions.lock"):
        try:
            for file in files:
                cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file))
            cluster.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in NAMES), "--timeout=150s")
            yield cluster
        finally:
            cluster.kubectl("delete", "crd", *NAMES, "--ignore-not-found", "--timeout=150s")


def monitoring_objects(helm: Helm, namespace: str) -> list[dict[str, Any]]:
    place = ("--namespace", namespace)
    text = helm("template", "invoker", str(CHART), *place, "--values=-", given=json.dumps(VALUES))
    return [one for one in yaml.safe_load_all(text) if one and one["apiVersion"].startswith("monitoring.coreos.com/")]


def test_the_operators_own_definitions_take_monitors_and_rules_strictly(
    helm: Helm, operated: Cluster, module_namespace: str
) -> None:
    """Each kind is there and taken; one wrong name or type in each is refused, so the definitions do judge."""
    place = ("--namespace", module_namespace)

    def create(objects: list[dict[str, Any]]) -> list[str]:
        given = "\n---\n".join(json.dumps(one) for one in objects)
        arguments = ("create", *place, "--dry-run=server", "--validate=strict", "--output=name", "-f", "-")
        return operated.kubectl(*arguments, given=given).split()

    objects = monitoring_objects(helm, module_namespace)
    made = eventually(lambda: create(objects), "an API server that knows the kinds")
    monitors = [one["metadata"]["name"] for one in objects if one["kind"] == "ServiceMonitor"]
    assert monitors == [f"invoker{tenant}-{part}" for tenant in ("", "-blue") for part in ("controller", "gateway")]
    assert len(made) == len(objects) == 5
    text = json.dumps(objects)
    for wrong in (
        text.replace('"targetLabels": [', '"targetLabel": ['),
        text.replace('"interval": "15s"', '"interval": "often"'),
        text.replace('"for": "', '"during": "'),
        text.replace('"expr": "', '"expression": "', 1),
    ):
        assert wrong != text
        with pytest.raises(KubectlError, match=r"unknown field|Invalid value|Required value"):
            create(json.loads(wrong))
