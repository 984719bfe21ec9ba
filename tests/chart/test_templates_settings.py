"""What the chart renders, without a cluster: settings of the programs and the catalog."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from invoker.gateway.settings import GatewaySettings
from tests.chart.helm import CHART, Helm
from tests.chart.rendering import NAME, Rendering, annotations_of_pods, containers, of_kind, pods, the, variables
from tests.chart.whole_values import ALL, CONTROLLER
from tests.docs.transcript import ROOT
from trigger.function_code import FunctionFolder
from trigger.function_file import read_functions
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
        secrets_dir test_crash_at test_crash_proof
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
