"""Rights, Pod Security and Secrets of what the chart renders, without a cluster."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from invoker.gateway.access.keys import new_key, read_keys, read_ring, scope_of
from tests.chart.helm import CHART, Helm
from tests.chart.rendering import (
    NAME,
    NAMESPACE,
    RELEASE,
    Rendering,
    annotations_of_pods,
    containers,
    decoded,
    of_kind,
    pods,
    the,
    variables,
)
from tests.chart.restricted import violations
from tests.chart.values_cases import EXTERNAL, SECRET
from tests.chart.whole_values import ALL, CONTROLLER, EVERYTHING, TENANTS
from tests.docs.transcript import ROOT

# rights


def test_the_role_is_that_of_the_documentation(render: Rendering) -> None:
    (written,) = of_kind(list(yaml.safe_load_all((ROOT / "deploy/rbac.yaml").read_text())), "Role")
    assert the(render(), "Role", f"{NAME}-controller")["rules"] == written["rules"]


def test_who_pods_run_as_may_be_left_to_the_cluster(render: Rendering) -> None:
    """As docs/kubernetes.md says for clusters that give each namespace users of its own."""
    nobody = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    documents = render({"podSecurityContext": nobody, "controller": {"settings": {"podUser": "none"}}})
    assert (
        variables(the(documents, "Deployment", f"{NAME}-controller")["spec"]["template"])["INVOKER_POD_USER"] == "none"
    )
    seen = [pod["spec"] for _, pod in pods(documents)]
    assert len(seen) >= 4
    for spec in seen:
        assert not set(nobody) & set(spec["securityContext"])
        assert violations(spec) == []


def test_nothing_is_of_the_whole_cluster_unless_asked_for(render: Rendering) -> None:
    assert all("namespace" in document["metadata"] for document in render())
    asked = {one["kind"] for one in render(EVERYTHING) if "namespace" not in one["metadata"]}
    assert asked == {"FlowSchema", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    kinds = {document["kind"] for values in ALL for document in render(values)}
    assert kinds & {"ClusterRole", "ClusterRoleBinding", "Namespace", "CustomResourceDefinition"} == set()


def test_only_controllers_have_a_token_and_only_for_their_jobs(render: Rendering) -> None:
    documents = render({"jobs": {"namespace": "work"}})
    for name, pod in pods(documents):
        if name != f"Deployment/{NAME}-controller":
            assert pod["spec"]["automountServiceAccountToken"] is False, name
    (binding,) = of_kind(documents, "RoleBinding")
    assert binding["metadata"]["namespace"] == "work"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": f"{NAME}-controller", "namespace": NAMESPACE}]


# security of the pods


@pytest.mark.parametrize("number", range(len(ALL)))
def test_every_pod_fits_the_restricted_profile(number: int, render: Rendering) -> None:
    found = dict(pods(render(ALL[number])))
    assert found
    spared = {"beside"}  # a container of the test's own values
    for name, pod in found.items():
        spec = pod["spec"] | {"containers": [one for one in containers(pod) if one["name"] not in spared]}
        assert violations(spec) == [], name
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in spec["containers"]), name
        assert pod["spec"]["enableServiceLinks"] is False, "a Service's variables look like settings"


EVIL: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "hostNetwork is on"),
    ({"hostPID": True}, "hostPID is on"),
    ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volume root is a hostPath"),
    ({"securityContext": {}}, "one may run as root"),
    ({"securityContext": {"runAsNonRoot": True}}, "one has no seccomp profile"),
    ({"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, "the pod runs as root"),
    ({"securityContext": {"sysctls": [{"name": "a"}]}}, "sysctls are set"),
]
EVIL_CONTAINERS: list[tuple[dict[str, Any], str]] = [
    ({"securityContext": {}}, "one may escalate privileges"),
    ({"securityContext": {"privileged": True}}, "one is privileged"),
    ({"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}}, "one keeps capabilities"),
    ({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}, "one adds capabilities"),
    ({"securityContext": {"runAsUser": 0}}, "one runs as root"),
    ({"securityContext": {"procMount": "Unmasked"}}, "one unmasks /proc"),
    ({"ports": [{"hostPort": 80}]}, "one takes a port of the node"),
]


def test_the_profile_is_really_checked() -> None:
    strict = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    good = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "one", "securityContext": strict}],
    }
    assert violations(good) == []
    for change, words in EVIL:
        assert words in violations(good | change)
    for change, words in EVIL_CONTAINERS:
        for field in ("containers", "initContainers", "ephemeralContainers"):
            assert words in violations(good | {field: [{"name": "one", "securityContext": strict} | change]})


def test_no_image_is_named_but_in_the_values(render: Rendering) -> None:
    named = {f"images.test/{name}" for name in ("invoker", "nats")}
    values = {
        "image": {"repository": "images.test/invoker"},
        "nats": {"evaluation": {"image": {"repository": "images.test/nats"}}},
    }
    used = {one["image"].rpartition(":")[0] for _, pod in pods(render(values)) for one in containers(pod)}
    assert used == named


# secrets


def test_the_gateway_knows_the_administrators_key_by_its_hash_only(render: Rendering) -> None:
    documents = render()
    key = decoded(the(documents, "Secret", f"{NAME}-admin-key"))["key"]
    file = decoded(the(documents, "Secret", f"{NAME}-gateway-keys"))["keys.json"]
    caller = read_ring(file.encode()).caller(key, datetime.now(UTC))
    assert (caller.name, [sorted(grant.actions) for grant in caller.grants]) == ("admin", [["admin"]])
    assert key.split("_")[2] not in json.dumps(
        [one for one in documents if one["metadata"]["name"] != f"{NAME}-admin-key"]
    )


def test_further_keys_stand_beside_it(render: Rendering) -> None:
    made = new_key("uploader", (scope_of("publish orders.>"),), now=datetime.now(UTC))
    values = {"gateway": {"keys": {"more": [made.stored.model_dump(mode="json", exclude_none=True)]}}}
    file = decoded(the(render(values), "Secret", f"{NAME}-gateway-keys"))["keys.json"]
    assert [key.name for key in read_keys(file.encode()).keys] == ["admin", "uploader"]
    assert read_ring(file.encode()).caller(made.text, datetime.now(UTC)).name == "uploader"


def test_only_controllers_have_the_key_of_the_runs_tokens(render: Rendering) -> None:
    """So the public side serves no run API, and whoever takes it over can speak for no run."""
    documents = render()
    name = the(documents, "Secret", f"{NAME}-run-token")["metadata"]["name"]
    users = [one for one, pod in pods(documents) if name in json.dumps(pod["spec"])]
    assert users == [f"Deployment/{NAME}-controller"]


def test_secrets_are_drawn_anew_for_every_install_and_kept_by_helm(helm: Helm) -> None:
    first, second = Rendering(helm)(), Rendering(helm)()
    for name in (f"{NAME}-run-token", f"{NAME}-admin-key", f"{NAME}-nats-users"):
        secret = the(first, "Secret", name)
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        drawn = [*decoded(secret).values(), *decoded(the(second, "Secret", name)).values()]
        assert len(set(drawn)) == len(drawn)
        assert all(len(text) >= 48 for text in drawn)


def test_a_secret_of_ones_own_makes_none(render: Rendering) -> None:
    values = {
        "runToken": {"existingSecret": SECRET},
        "gateway": {"keys": {"existingSecret": SECRET}},
        "nats": EXTERNAL["nats"],
    }
    documents = render(values)
    assert of_kind(documents, "Secret") == []
    assert of_kind(documents, "Pod") == [], "helm test has no key to show"


def test_no_secret_stands_in_the_environment_or_in_arguments(render: Rendering) -> None:
    documents = render()
    secrets = {text for one in of_kind(documents, "Secret") for text in decoded(one).values()}
    others = json.dumps([one for one in documents if one["kind"] != "Secret"])
    assert [text for text in secrets if text in others] == []
    by_variable = [name for name, pod in pods(documents) for one in containers(pod) for each in one.get("env", [])
                   if "secretKeyRef" in each.get("valueFrom", {})]  # fmt: skip
    assert set(by_variable) == {f"StatefulSet/{NAME}-nats"}, "nats-server knows no other way"


def test_a_change_of_secrets_replaces_the_pods_that_use_them(helm: Helm) -> None:
    """Another draw is another Secret: whoever reads it at its start has another checksum."""
    first, second = Rendering(helm), Rendering(helm)
    elsewhere = [one(EXTERNAL) for one in (first, second)]
    here = [one() for one in (first, second)]
    nats, gateway = ("StatefulSet", f"{NAME}-nats"), ("Deployment", f"{NAME}-gateway")
    for drawn, place in ((here, CONTROLLER), (here, gateway), (here, nats), (elsewhere, CONTROLLER)):
        before, after = (annotations_of_pods(documents, *place)["checksum/secrets"] for documents in drawn)
        assert before != after


def test_a_change_of_the_servers_configuration_replaces_it(render: Rendering) -> None:
    before, after = render(), render({"settings": {"topicPrefix": "in"}})
    place = ("StatefulSet", f"{NAME}-nats")
    assert (
        annotations_of_pods(before, *place)["checksum/config"] != annotations_of_pods(after, *place)["checksum/config"]
    )


def test_the_notes_name_what_an_uninstall_leaves(helm: Helm, render: Rendering) -> None:
    for values in (TENANTS, EXTERNAL, {"runToken": {"existingSecret": SECRET}}):
        dry = ("install", RELEASE, str(CHART), "--dry-run=client", "--namespace", NAMESPACE, "--values", "-")
        notes = helm(*dry, given=json.dumps(values)).partition("\nNOTES:\n")[2]
        kept = [one["metadata"]["name"] for one in of_kind(render(values), "Secret")
                if "helm.sh/resource-policy" in one["metadata"].get("annotations", {})]  # fmt: skip
        assert re.findall(r"^  secret/(.*)$", notes, re.MULTILINE) == kept
        for one in of_kind(render(values), "Role"):
            assert one["metadata"]["namespace"] in notes.partition("An uninstall leaves")[2]
        assert ("persistentvolumeclaim/" in notes) == bool(of_kind(render(values), "StatefulSet"))
