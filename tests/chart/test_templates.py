"""What the chart renders, without a cluster: settings, catalog, NATS, tenants, networks, probes, monitoring."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker.gateway.settings import GatewaySettings
from invoker.nats_server import find_binary
from tests.chart.helm import CHART, Helm
from tests.chart.rendering import (
    NAME,
    NAMESPACE,
    RELEASE,
    Document,
    Rendering,
    annotations_of_pods,
    containers,
    decoded,
    of_kind,
    pods,
    the,
    variables,
)
from tests.chart.values_cases import ALL, CONTROLLER, EVERYTHING, EXTERNAL, SECRET, TENANTS
from tests.docs.transcript import ROOT
from trigger.function_code import FunctionFolder
from trigger.function_file import read_functions
from trigger.pod_names import problem_of_label_key
from trigger.settings import ControllerSettings


def test_helm_lints_it_strictly(helm: Helm) -> None:
    for values in ALL:
        assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", "-", given=json.dumps(values))


# settings


def test_what_the_containers_run_are_commands(render: Rendering) -> None:
    """The image's entry point is `invoker`, so the arguments are all that a pod says."""
    run = {
        tuple(one["args"])
        for _, pod in pods(render())
        for one in containers(pod)
        if one["image"].startswith("invoker:")
    }
    assert {arguments[0] for arguments in run} == {"controller", "gateway", "publish"}
    for arguments in run:
        known = subprocess.run(
            [sys.executable, "-m", "invoker", *arguments, "--help"], capture_output=True, text=True, check=False
        )
        assert known.returncode == 0, known.stderr


def test_every_variable_is_a_setting(render: Rendering) -> None:
    fields = {"controller": ControllerSettings.model_fields, "gateway": GatewaySettings.model_fields}
    nats = re.findall(r"`(INVOKER_NATS_[A-Z_]+)`", (ROOT / "docs/configuration.md").read_text())
    for values in ALL:
        documents = render(values)
        for component, known in fields.items():
            allowed = {f"INVOKER_{name.upper()}" for name in known} | set(nats)
            used = variables(the(documents, "Deployment", f"{NAME}-{component}")["spec"]["template"])
            unknown = {name for name in used if name.startswith("INVOKER_")} - allowed
            assert {name for name in unknown if name.removesuffix("_FILE") not in allowed} <= {
                f"INVOKER_{name.upper()}" for name in fields["controller"].keys() & fields["gateway"].keys()
            }, component


SET_BY_THE_CHART = {
    "controller": """
        kubeconfig kube_context in_cluster kube_namespace kube_instance runtime_images catalog engine state_dir
        http_host http_port probe_port run_api_url run_token_key sole_controller forbidden_secrets
        test_crash_at test_crash_proof
    """,
    "gateway": """
        run_token_key results results_ca results_prefix gateway_host gateway_port gateway_probe_host gateway_probe_port
        gateway_keys gateway_jwks gateway_jwt_issuer gateway_jwt_audience
    """,
}
"""Settings that are no values of their own: what the chart makes of others, and what means nothing in a pod."""


def test_every_setting_is_a_value() -> None:
    """A new setting belongs into values.yaml, values.schema.json and values_cases.py, or into the list above."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for component, model in (("controller", ControllerSettings), ("gateway", GatewaySettings)):
        prefix = "gateway_" if component == "gateway" else ""
        own = {prefix + snake(name) for name in values[component]["settings"]}
        shared = {snake(name) for name in values["settings"]}
        assert own | shared | set(SET_BY_THE_CHART[component].split()) == set(model.model_fields), component


def snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name)


def test_the_programs_take_the_settings(render: Rendering) -> None:
    """What the pods are given is loaded as the programs do it, with files where the Secrets would be."""
    for values in ALL:
        for component in ("controller", "gateway"):
            given = variables(the(render(values), "Deployment", f"{NAME}-{component}")["spec"]["template"])
            read = {name: value for name, value in given.items() if not name.endswith("_FILE")}
            model = ControllerSettings if component == "controller" else GatewaySettings
            fields = {name.removeprefix("INVOKER_").lower(): value for name, value in read.items()}
            known = {name: value for name, value in fields.items() if name in model.model_fields}
            settings = model(run_token_key="from the Secret", **known)  # type: ignore[arg-type]  # text, as in the environment
            assert settings.instance == given["INVOKER_INSTANCE"]


def test_the_names_of_the_installation_are_legal_and_its_own(render: Rendering) -> None:
    """However long the release's name is, and also where Jobs of several releases share a namespace."""
    seen = set()
    for release in ("a", "9to5", "a" * 53, f"{'a' * 52}b"):
        for namespace in ("", "work"):
            for home in ("one", "two"):
                documents = render({"jobs": {"namespace": namespace}}, release=release, namespace=home)
                (controller,) = [
                    one for one in of_kind(documents, "Deployment") if one["metadata"]["name"].endswith("-controller")
                ]
                given = variables(controller["spec"]["template"])
                settings = {
                    "kube_instance": given["INVOKER_KUBE_INSTANCE"],
                    "run_token_key": "x",
                    "engine": "kubernetes",
                }
                ControllerSettings(run_api_url=given["INVOKER_RUN_API_URL"], **settings)  # type: ignore[arg-type]  # text
                assert all(len(one["metadata"]["name"]) <= 63 for one in documents)
                seen.add((namespace or home, settings["kube_instance"]))
    # Names that Helm cuts are one name: `aaa…a` and `aaa…b` are told apart where the release's namespace says so only.
    assert len([one for one in seen if one[0] == "work"]) >= 6


# the catalog


def test_a_change_of_functions_replaces_pods_only_when_asked_to(render: Rendering) -> None:
    for asked in (False, True):
        given = [
            {"catalog": {"restartOnChange": asked, "functions": {"a": {"function.yaml": text}}}}
            for text in ("one", "two")
        ]
        seen = [annotations_of_pods(render(values), *CONTROLLER).get("checksum/functions") for values in given]
        assert (len(set(seen)) == 2) is asked


def test_a_function_that_is_added_replaces_controllers_as_the_page_says(render: Rendering) -> None:
    """What is mounted is part of the pod; a changed text alone is not."""
    texts = ({"a": {"function.yaml": "1"}}, {"a": {"function.yaml": "2"}}, {"a": {"function.yaml": "2", "b.py": ""}})
    one, changed, added = (
        the(render({"catalog": {"functions": functions}}), *CONTROLLER)["spec"]["template"]["spec"]["volumes"]
        for functions in texts
    )
    assert one == changed
    assert changed != added
    assert (
        "is added to `catalog.functions`, or taken out, replaces the controllers"
        in (ROOT / "docs/install.md").read_text()
    )


def test_the_function_of_the_chart_is_one(render: Rendering, tmp_path: Path) -> None:
    text = the(render(), "ConfigMap", f"{NAME}-functions")["data"]["chart-test.function.yaml"]
    found = read_functions(text.encode(), "function.yaml", FunctionFolder(tmp_path, {}))
    assert (found.broken, [one.name for one in found.functions]) == ((), ["chart-test"])
    (test,) = of_kind(render(), "Pod")
    assert test["spec"]["containers"][0]["args"][:2] == ["publish", "chart.test"]
    # A command gives up on a gateway that is not there yet; the pod does not, for as long as it may last.
    assert (test["spec"]["restartPolicy"], test["spec"]["activeDeadlineSeconds"]) == ("OnFailure", 180)
    assert test["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",  # an uninstall does not take hooks along
    }


def test_functions_keep_their_text(render: Rendering) -> None:
    """What looks like a template, a number or a comment stays what it is."""
    text = 'env: [{name: A, value: "{{params.a}}"}] # {{ .Values }}\n\ttab\n1e3\n'
    documents = render({"catalog": {"functions": {"a": {"function.yaml": text}}}})
    assert the(documents, "ConfigMap", f"{NAME}-functions")["data"]["a.function.yaml"] == text


# NATS


def test_the_permissions_are_those_of_the_documentation() -> None:
    assert (CHART / "files/nats-permissions.conf").read_text() == (ROOT / "deploy/nats/permissions.conf").read_text()


def test_user_and_password_are_files_of_the_secret(render: Rendering) -> None:
    """A variable would be what the Secret held when the pod began; a file is read again after a refusal."""
    who = {"method": "password", "existingSecret": "mine"}
    values = {"url": "nats://nats.example.org:4222", "evaluation": {"enabled": False}, "controller": who}
    pod = the(render({"nats": values | {"gateway": who}}), *CONTROLLER)["spec"]["template"]
    given = variables(pod)
    (mount,) = [one for one in containers(pod)[0]["volumeMounts"] if one["name"] == "nats"]
    (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "nats"]
    files = {f"{mount['mountPath']}/{one['path']}": one["key"] for one in volume["secret"]["items"]}
    assert {files[given[f"INVOKER_NATS_{name}_FILE"]] for name in ("USER", "PASSWORD")} == {"user", "password"}
    assert "INVOKER_NATS_USER" not in given
    assert volume["secret"]["secretName"] == "mine"
    assert "subPath" not in mount, "such a file would never change"


@pytest.mark.parametrize(("instance", "topics"), [("acme", "invoker"), ("events", "in"), ("in", "out")])
def test_permissions_are_those_of_the_names(instance: str, topics: str, render: Rendering) -> None:
    """Also where an instance is named as the topics of others are: both by the chart and by the command of the file."""
    text = (ROOT / "deploy/nats/permissions.conf").read_text()
    new = {"events.invoker": f"{topics}.{instance}", "events": topics, "invoker": instance}
    wanted = re.sub(r'"(events\.invoker|events|invoker)\.', lambda found: f'"{new[found[1]]}.', text)
    streams = r"INVOKER_(EVENTS|RUNS|RESULTS|STATUS|DEAD|PAYLOADS)"
    wanted = re.sub(streams, lambda found: f"{instance.upper()}_{found[1]}", wanted)
    commands = re.findall(r"'(s/[^']+)'", text.split("INVOKER_PUBLISHER:")[0])
    own = [one.replace("acme-events", topics).replace("acme", instance).replace("ACME", instance.upper())
           for one in commands]  # fmt: skip
    ran = subprocess.run(
        ["sed", *(part for one in own for part in ("-e", one))], input=text, capture_output=True, text=True, check=True
    )
    assert subjects(ran.stdout) == subjects(wanted)
    documents = render({"settings": {"instance": instance, "topicPrefix": topics}})
    server = the(documents, "ConfigMap", f"{NAME}-nats")["data"]["nats.conf"]
    assert subjects(server.partition("accounts {")[0].partition("jetstream {")[2]) == subjects(wanted)


def subjects(permissions: str) -> list[str]:
    """What the roles may and may not, in the order of the file."""
    return re.findall(r'"([^"\n]+)"', re.sub(r"(?m)(^|\s)#.*$", "", permissions))


@pytest.mark.parametrize(
    "values",
    [{}, TENANTS | {"listenAddress": "::", "nats": {"evaluation": {"maxPayload": 2097152}}}],
    ids=["one", "tenants"],
)
def test_the_evaluation_server_takes_its_configuration(values: Document, render: Rendering, tmp_path: Path) -> None:
    documents = render(values)
    config = tmp_path / "nats.conf"
    config.write_text(the(documents, "ConfigMap", f"{NAME}-nats")["data"]["nats.conf"])
    (server,) = the(documents, "StatefulSet", f"{NAME}-nats")["spec"]["template"]["spec"]["containers"]
    secrets = {one["metadata"]["name"]: decoded(one) for one in of_kind(documents, "Secret")}
    environ = {}
    for one in server["env"]:
        reference = one["valueFrom"]["secretKeyRef"]
        environ[one["name"]] = secrets[reference["name"]][reference["key"]]
    done = subprocess.run(
        [find_binary(), "-t", "-c", str(config)], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "is valid" in done.stderr + done.stdout) == (0, True), done.stderr
    text = config.read_text()
    assert f"max_payload: {2097152 if values else 1048576}" in text
    if values:
        for words in ('"[::]:4222"', '"in.acme-1.>"', "OBJ_ACME_1_PAYLOADS", "user: blue-controller"):
            assert words in text


# tenants and names


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


def named(documents: list[Document], kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in of_kind(documents, kind)}


def references(pod: Document) -> set[tuple[str, str]]:
    """The Secrets, ConfigMaps and accounts that a pod cannot start without."""
    found = {("ServiceAccount", pod["spec"].get("serviceAccountName", "default"))}
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            found.add(("Secret", volume["secret"]["secretName"]))
        if "configMap" in volume:
            found.add(("ConfigMap", volume["configMap"]["name"]))
    for container in containers(pod):
        for one in container.get("env", []):
            if "valueFrom" in one:
                found.add(("Secret", one["valueFrom"]["secretKeyRef"]["name"]))
    return found


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


# the whole cluster


def test_the_admission_policy_says_what_the_settings_say(render: Rendering) -> None:
    values = {
        "admissionPolicy": {"enabled": True, "images": ["^images[.]test/"]},
        "controller": {
            "settings": {"allowedSecrets": ["fn-*", "a.b"], "allowedServiceAccounts": ["fn"], "allowedVolumeClaims": []}
        },
    }
    policy = the(render(values), "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    text = json.dumps([one["expression"] for one in policy["spec"]["validations"]])
    assert "^(fn-.*|a[.]b)$" in text
    assert "^images[.]test/" in text
    assert "^$a" in text, "nothing fits: no volume claim is allowed"
    (condition,) = policy["spec"]["matchConditions"]
    assert f"'system:serviceaccount:{NAMESPACE}:{NAME}-controller'" in condition["expression"]
    assert "quantity" not in text, "no bound on volumes unless one is set"
    for what in ("jobs", "code"):
        name = f"{NAMESPACE}-{NAME}-{what}"
        assert the(render(values), "ValidatingAdmissionPolicy", name)["spec"]["matchConditions"] == [condition]
        binding = the(render(values), "ValidatingAdmissionPolicyBinding", name)
        assert binding["spec"] == {"policyName": name, "validationActions": ["Deny"]}


def test_the_admission_policy_has_the_bound_of_volumes_as_a_whole_number(render: Rendering) -> None:
    """Values pass through JSON, where a large number is written with an exponent."""
    bound = 2**40
    values = {"admissionPolicy": {"enabled": True}, "controller": {"settings": {"maxVolumeBytes": bound}}}
    policy = the(render(values), "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    assert f'quantity("{bound}")' in json.dumps(policy).replace('\\"', '"')


LISTS = ("allowedSecrets", "allowedVolumeClaims", "allowedStorageClasses", "allowedPriorityClasses")


@pytest.mark.parametrize("settings", [None, dict.fromkeys((*LISTS, "allowedServiceAccounts"))], ids=["all", "each"])
def test_the_admission_policy_takes_null_for_the_programs_default(settings: Any, render: Rendering) -> None:
    by_default, nulls = (
        of_kind(render({"admissionPolicy": {"enabled": True}} | more), "ValidatingAdmissionPolicy")
        for more in ({}, {"controller": {"settings": settings}})
    )
    assert nulls == by_default


@pytest.mark.parametrize("values", [{}, EXTERNAL | {"redis": {"enabled": True, "existingSecret": "my-redis"}}])
def test_functions_beside_the_release_may_read_none_of_its_secrets(values: Document, render: Rendering) -> None:
    """Neither what is made nor what pods of the release use, nor what Helm keeps; and all others stay allowed."""
    documents = render(values | {"admissionPolicy": {"enabled": True}})
    forbidden = variables(the(documents, *CONTROLLER)["spec"]["template"])["INVOKER_FORBIDDEN_SECRETS"].split(",")
    used = {name for _, pod in pods(documents) for kind, name in references(pod) if kind == "Secret"}
    assert used | named(documents, "Secret") <= set(forbidden)
    assert set(forbidden) - used - named(documents, "Secret") == {"sh.helm.release.v1.*"}
    policy = the(documents, "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    (rule,) = [one for one in policy["spec"]["validations"] if one["message"] == "a Secret of Invoker itself"]
    (pattern,) = re.findall(r"matches\('(.*?)'\)", rule["expression"])
    assert all(re.match(pattern, name) for name in (*used, "sh.helm.release.v1.rel.v1"))
    assert not re.match(pattern, "of-a-function")


def test_functions_in_a_namespace_of_their_own_may_read_its_secrets(render: Rendering) -> None:
    documents = render({"jobs": {"namespace": "work"}, "admissionPolicy": {"enabled": True}})
    assert "INVOKER_FORBIDDEN_SECRETS" not in variables(the(documents, *CONTROLLER)["spec"]["template"])


# monitoring


def test_dashboard_and_alerts_are_the_files_of_the_chart(render: Rendering) -> None:
    documents = render(EVERYTHING)
    dashboard = the(documents, "ConfigMap", f"{NAME}-dashboard")["data"]["invoker.json"]
    assert json.loads(dashboard) == json.loads((CHART / "files/dashboard.json").read_text())
    alerts = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    assert the(documents, "PrometheusRule", NAME)["spec"] == alerts
