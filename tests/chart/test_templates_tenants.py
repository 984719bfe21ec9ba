"""What the chart renders, without a cluster: tenants beside each other, names, labels, and that nothing is missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, Helm
from tests.chart.rendering import (
    NAME,
    NAMESPACE,
    RELEASE,
    Document,
    Rendering,
    containers,
    named,
    of_kind,
    pods,
    references,
    the,
    variables,
)
from tests.chart.values_cases import EXTERNAL, SECRET
from tests.chart.whole_values import CONTROLLER, EVERYTHING, TENANTS


def test_a_tenant_is_an_installation_of_its_own(render: Rendering) -> None:
    documents = render(TENANTS)
    blue = the(documents, "Deployment", f"{NAME}-blue-controller")
    given, own = variables(blue["spec"]["template"]), variables(the(documents, *CONTROLLER)["spec"]["template"])
    for name in (
        "INVOKER_KUBE_NAMESPACE",
        "INVOKER_KUBE_INSTANCE",
        "INVOKER_RUN_API_URL",
        "INVOKER_NATS_USER",
        "INVOKER_INSTANCE",
    ):
        assert given[name] != own[name]
    selectors = [json.dumps(one["spec"]["selector"], sort_keys=True) for one in of_kind(documents, "Service")]
    assert len(set(selectors)) == 5, "two Services each of controllers and gateways, and NATS"
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in documents]
    assert len(set(names)) == len(names)


def test_a_tenant_has_what_it_does_not_say_from_the_release(render: Rendering) -> None:
    """At a NATS elsewhere it is somebody of its own, and the rest is as for the release."""
    who = {"controller": {"method": "nkey", "existingSecret": "of-blue"}}
    values = EXTERNAL | {
        "image": {"tag": "9"},
        "jobs": {"namespace": "work"},
        "controller": {"settings": {"maxRunning": 5}},
        "tenants": {"blue": {"jobs": {"namespace": "blue"}, "nats": who, "controller": {"replicas": 1}}},
    }
    documents = render(values)
    blue = the(documents, "Deployment", f"{NAME}-blue-controller")["spec"]
    assert (blue["replicas"], the(documents, *CONTROLLER)["spec"]["replicas"]) == (1, 2)
    given = variables(blue["template"])
    assert given["INVOKER_NATS_URL"] == EXTERNAL["nats"]["url"]
    assert (given["INVOKER_NATS_NKEY"], given["INVOKER_MAX_RUNNING"]) == ("/etc/invoker/nats/nkey", "5")
    assert "INVOKER_NATS_NKEY" not in variables(the(documents, *CONTROLLER)["spec"]["template"])
    assert {one["image"] for _, pod in pods(documents) for one in containers(pod)} == {"invoker:9"}


@pytest.mark.parametrize("prefix", ["", "mine:"])
def test_installations_that_share_a_redis_share_no_keys(prefix: str, render: Rendering) -> None:
    """Tenants inherit the Redis; each would take the others' copy for an old one of its own, and answer from it."""
    redis = {"enabled": True, "existingSecret": SECRET, "prefix": prefix}
    seen = [
        variables(pod)["INVOKER_RESULTS_PREFIX"]
        for release in ("one", "two")
        for name, pod in pods(render(TENANTS | {"redis": redis}, release=release, namespace=f"of-{release}"))
        if name.endswith("-gateway")
    ]
    assert len(seen) == 4
    assert len(set(seen)) == (4 if not prefix else 2)


def test_every_object_has_the_labels_that_helm_charts_have(render: Rendering) -> None:
    wanted = {"name", "instance", "component", "part-of", "version", "managed-by"}
    for document in render(EVERYTHING):
        labels = document["metadata"]["labels"]
        assert {f"app.kubernetes.io/{name}" for name in wanted} <= labels.keys(), document["metadata"]["name"]


def test_a_new_version_of_the_chart_replaces_only_what_has_another_image(helm: Helm, tmp_path: Path) -> None:
    """The one NATS server stays as it is; also controllers and gateways, when the image is the same."""
    newer = tmp_path / "invoker"
    shutil.copytree(CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(re.sub("(?m)^(version|appVersion): .*", r"\1: 9.9.9", about.read_text()))
    secrets = {"runToken": {"existingSecret": SECRET}, "gateway": {"keys": {"existingSecret": SECRET}}}
    seen = []
    for chart in (CHART, newer):
        given = json.dumps(secrets | {"image": {"tag": "1"}, "runtimeImages": {"python": {"tag": "1"}}})
        text = helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, "--values", "-", given=given)
        documents = [one for one in yaml.safe_load_all(text) if one]
        found = {name: pod for name, pod in pods(documents) if not name.startswith("Pod/")}
        for pod in found.values():
            pod["metadata"].get("annotations", {}).pop("checksum/secrets", None)  # drawn anew by every rendering
        seen.append(found)
        assert {one["metadata"]["labels"]["app.kubernetes.io/version"] for one in documents} == {
            yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"]
        }
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


def test_selectors_find_their_pods_and_no_others(render: Rendering) -> None:
    documents = render(TENANTS)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(documents)}
    for service in of_kind(documents, "Service"):
        wanted = service["spec"]["selector"].items()
        found = [name for name, own in labels.items() if wanted <= own.items()]
        assert len(found) == 1, service["metadata"]["name"]


@pytest.mark.parametrize("values", [{}, TENANTS], ids=["one", "tenants"])
def test_what_pods_need_is_there(values: Document, render: Rendering) -> None:
    documents = render(values)
    for name, pod in pods(documents):
        for kind, wanted in references(pod) - {("ServiceAccount", "default")}:
            assert wanted in named(documents, kind), f"{name} needs {kind} {wanted}"
        volumes = {one["name"] for one in pod["spec"]["volumes"]}
        claims = {one["metadata"]["name"] for document in documents if document["metadata"]["name"] in name
                  for one in document.get("spec", {}).get("volumeClaimTemplates", [])}  # fmt: skip
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == volumes | claims, name


def test_ports_and_targets_that_are_named_are_there(render: Rendering) -> None:
    documents = render(EVERYTHING)
    templates = [pod for _, pod in pods(documents)]
    for service in of_kind(documents, "Service"):
        wanted = service["spec"]["selector"].items()
        (pod,) = [one for one in templates if wanted <= one["metadata"]["labels"].items()]
        ports = {port["name"] for one in containers(pod) for port in one.get("ports", [])}
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports
    ingresses = of_kind(documents, "Ingress")
    assert ingresses
    for ingress in ingresses:
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        ports = the(documents, "Service", backend["name"])["spec"]["ports"]
        assert backend["port"]["name"] in [port["name"] for port in ports]
    for monitor in of_kind(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [one for one in of_kind(documents, "Service") if wanted <= one["metadata"]["labels"].items()]
        ports = [port["name"] for one in found for port in one["spec"]["ports"]]
        assert ports.count(monitor["spec"]["endpoints"][0]["port"]) == 1
        kept = {monitor["spec"]["jobLabel"], *monitor["spec"]["targetLabels"]}
        assert kept <= found[0]["metadata"]["labels"].keys()
