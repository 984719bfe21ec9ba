"""What the chart renders, without a cluster: network policies, probes and ends, monitoring."""

from __future__ import annotations

import json

import yaml

from tests.chart.helm import CHART
from tests.chart.rendering import NAME, Document, Rendering, containers, of_kind, pods, the, variables
from tests.chart.whole_values import CONTROLLER, EVERYTHING, TENANTS
from trigger.pod_names import problem_of_label_key

# networks


def test_functions_reach_the_run_api_and_dns_only(render: Rendering) -> None:
    policy = the(render(), "NetworkPolicy", f"{NAME}-functions")["spec"]
    assert policy["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/managed-by": "invoker",
        "invoker.dev/instance": NAME,
    }
    assert (policy["policyTypes"], "ingress" in policy) == (["Ingress", "Egress"], False)
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[7222], [53, 53]]
    controllers = policy["egress"][0]["to"][0]["podSelector"]["matchLabels"]
    assert controllers.items() <= the(render(), *CONTROLLER)["spec"]["template"]["metadata"]["labels"].items()


def fits(selector: Document, labels: Document) -> bool:
    """Whether a selector, with expressions of the kind In, fits these labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def test_the_server_of_the_chart_is_reached_by_whom_it_is_for(render: Rendering) -> None:
    """Controllers and gateways of all tenants; functions may carry every label but Invoker's own."""
    documents = render(TENANTS)
    (rule,) = the(documents, "NetworkPolicy", f"{NAME}-nats")["spec"]["ingress"]
    (peer,) = rule["from"]
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(documents)}
    reached = {name for name, own in labels.items() if fits(peer["podSelector"], own)}
    assert reached == {name for name in labels if name.endswith(("-controller", "-gateway"))}
    assert len(reached) == 4
    posing = {key: value for key, value in labels[f"Deployment/{NAME}-controller"].items() if "invoker.dev" not in key}
    assert problem_of_label_key("invoker.dev/installation")
    assert not fits(peer["podSelector"], posing)


def test_every_pod_of_the_release_that_is_called_has_a_policy(render: Rendering) -> None:
    documents = render(TENANTS)
    selected = [one["spec"]["podSelector"]["matchLabels"].items() for one in of_kind(documents, "NetworkPolicy")]
    for name, pod in pods(documents):
        if not name.startswith("Pod/"):
            assert any(one <= pod["metadata"]["labels"].items() for one in selected), name


# probes and ends


def test_probes_and_metrics_are_where_the_programs_have_them(render: Rendering) -> None:
    documents = render()
    for component in ("controller", "gateway"):
        pod = the(documents, "Deployment", f"{NAME}-{component}")["spec"]["template"]
        (container,) = containers(pod)
        ports = {one["name"]: one["containerPort"] for one in container["ports"]}
        paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert [paths[kind]["path"] for kind in paths] == ["/livez", "/livez", "/readyz"]
        metrics = the(documents, "Service", f"{NAME}-{component}-metrics")["spec"]["ports"][0]
        port = variables(pod)["INVOKER_PROBE_PORT" if component == "controller" else "INVOKER_GATEWAY_PROBE_PORT"]
        assert {one["port"] for one in paths.values()} == {metrics["targetPort"]}
        assert str(ports[metrics["targetPort"]]) == str(metrics["port"]) == port


def test_functions_reach_controllers_that_are_not_ready(render: Rendering) -> None:
    """One function that cannot be loaded makes every controller unready: no reason to keep inputs from all others."""
    documents = render()
    assert the(documents, "Service", f"{NAME}-run-api")["spec"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in the(documents, "Service", f"{NAME}-gateway")["spec"]


def test_a_pod_has_time_to_drain(render: Rendering) -> None:
    for component in ("controller", "gateway"):
        spec = the(render(), "Deployment", f"{NAME}-{component}")["spec"]
        (container,) = containers(spec["template"])
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= pause + 10
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


# monitoring


def test_dashboard_and_alerts_are_the_files_of_the_chart(render: Rendering) -> None:
    documents = render(EVERYTHING)
    dashboard = the(documents, "ConfigMap", f"{NAME}-dashboard")["data"]["invoker.json"]
    assert json.loads(dashboard) == json.loads((CHART / "files/dashboard.json").read_text())
    alerts = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    assert the(documents, "PrometheusRule", NAME)["spec"] == alerts
