"""What the chart renders, without a cluster: who may what at NATS, and the evaluation server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from invoker.nats_server import find_binary
from tests.chart.helm import CHART
from tests.chart.rendering import NAME, Document, Rendering, containers, decoded, of_kind, the, variables
from tests.chart.whole_values import CONTROLLER, TENANTS
from tests.docs.transcript import ROOT


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
