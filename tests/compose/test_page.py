"""docs/install.md and docs/images.md against docker-compose.yml, the Dockerfile and the scripts."""

from __future__ import annotations

import re
from typing import Any

import yaml

from invoker.cli.tree import app
from invoker.connection import OLDEST_SERVER
from invoker.gateway.settings import GatewaySettings
from invoker.tracing_switch import ENDPOINTS, wish_of
from scripts import compose_transcript
from tests.compose.images import FILE
from tests.compose.project import ROOT
from trigger.settings import ControllerSettings

COMPOSE: dict[str, Any] = yaml.safe_load(FILE)
INSTALL = (ROOT / "docs" / "install.md").read_text()
IMAGES = (ROOT / "docs" / "images.md").read_text()
CLIENTS = (ROOT / "docs" / "configuration.md").read_text()


def test_the_transcript_is_of_the_scripts_commands() -> None:
    """Recorded by the script; the same commands are what test_compose.py lives through."""
    (block,) = re.findall(r"<!-- recorded: compose[^>]* -->\n```text\n(.*?)```", INSTALL, re.DOTALL)
    shown = block.replace("\\\n    ", "").splitlines()
    commands = [command.replace("\\\n    ", "") for command in compose_transcript.COMMANDS]
    assert [line.removeprefix("$ ") for line in shown if line.startswith("$ ")] == commands
    assert "unhealthy" in block
    assert "not ready: nats: not connected" in block
    assert "convert  uncompressed.tsv  succeeded" in block


def test_every_service_and_variable_is_told() -> None:
    section = INSTALL.split("## Docker Compose")[1].split("\n## ")[0]
    for service in COMPOSE["services"]:
        assert f"| `{service}` |" in section, service
    for name in set(re.findall(r"\$\{(\w+):-", FILE)) - {"NATS_IMAGE", "REDIS_IMAGE"}:
        assert name in section, name


def test_every_setting_in_the_file_is_one() -> None:
    known = {f"INVOKER_{name.upper()}" for kind in (ControllerSettings, GatewaySettings) for name in kind.model_fields}
    for name, service in COMPOSE["services"].items():
        for variable in service.get("environment", {}):
            if variable.startswith("OTEL_"):
                assert variable in ENDPOINTS
                continue
            plain = variable.removesuffix("_FILE")
            assert plain in known or f"`{plain}`" in CLIENTS, (name, variable)
            assert not plain.endswith(("PASSWORD", "KEY", "RESULTS")) or variable.endswith("_FILE"), variable


def test_every_service_is_hardened_and_waits_by_health() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "healthcheck" in service or service.get("profiles") == ["demo"], name
        assert service["restart"] == ("no" if name == "demo" else "unless-stopped"), name
    for name in ("controller", "gateway"):
        assert COMPOSE["services"][name]["depends_on"]["nats"]["condition"] == "service_healthy"
        assert COMPOSE["services"][name]["command"] == [name]
        assert name in [command.name for command in app.registered_commands]
    assert "version" not in COMPOSE


def test_no_program_keeps_the_other_from_starting() -> None:
    """What is wrong with one (a broken function, a password) is said by that one; waiting for its health, `up` would
    end with an error and never start the other, also once it is mended."""
    ours = {"controller", "gateway"}
    for name in ours:
        waits = {other: one["condition"] for other, one in COMPOSE["services"][name]["depends_on"].items()}
        assert {waits[other] for other in ours & set(waits)} <= {"service_started"}, name
        assert [other for other, condition in waits.items() if condition == "service_healthy"] == ["nats"], name


def test_compose_and_chart_name_one_nats_which_is_new_enough() -> None:
    values = yaml.safe_load((ROOT / "charts" / "invoker" / "values.yaml").read_text())
    named = re.search(r"NATS_IMAGE:-nats:([\w.-]+)}", FILE)
    assert named is not None
    assert named[1] == values["nats"]["evaluation"]["image"]["tag"]
    major, minor = re.findall(r"\d+", named[1])[:2]
    # A tag without its last number may be any of them: only the next minor version is above the floor for certain.
    assert (int(major), int(minor)) > OLDEST_SERVER[:2]


def test_the_page_says_what_was_never_started_and_who_is_root() -> None:
    for variable, image in re.findall(r"\$\{((?:NATS|REDIS)_IMAGE):-([^}]+)\}", FILE):
        assert f"`{image}`" in INSTALL, image
        assert f"`{variable}`" in INSTALL
    without = [name for name in ("nats", "redis") if "user" not in COMPOSE["services"][name]]
    assert without == ["nats"]
    assert "`nats` is the\nonly service without a `user:`" in INSTALL


def test_the_configuration_that_is_printed_for_prometheus_finds_the_programs() -> None:
    """Every target is a service that listens there on more than its own loopback, and is asked there for its health."""
    shown = yaml.safe_load((ROOT / "docs" / "metrics.md").read_text().split("```yaml\n")[1].split("```")[0])
    (job,) = shown["scrape_configs"]
    targets = [target.split(":") for group in job["static_configs"] for target in group["targets"]]
    assert [name for name, _ in targets] == ["controller", "gateway"]
    for name, port in targets:
        service = COMPOSE["services"][name]
        settings = {
            variable.removeprefix("INVOKER_").lower(): text for variable, text in service["environment"].items()
        }
        if name == "controller":
            controller = ControllerSettings.model_validate(
                {key: settings[key] for key in ("http_host", "probe_port", "run_api_url")}
            )
            assert (controller.http_host, str(controller.probe_port)) == ("0.0.0.0", port)
            assert controller.run_api_url == f"http://127.0.0.1:{controller.http_port}", "functions run beside it"
        else:
            gateway = GatewaySettings(gateway_probe_host=settings["gateway_probe_host"])
            assert (gateway.gateway_probe_host, str(gateway.gateway_probe_port)) == ("0.0.0.0", port)
        assert service["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}"
        assert "ports" not in service or f":{port}" not in str(service["ports"]), "not published"


def test_an_endpoint_in_the_environment_of_compose_switches_tracing_on_and_none_leaves_it_off() -> None:
    for name in ("controller", "gateway"):
        given = COMPOSE["services"][name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert given == "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"
    assert wish_of({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    assert wish_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})


def test_the_images_page_has_what_the_scripts_take() -> None:
    script = (ROOT / "scripts" / "build-images").read_text()
    for name in re.findall(r"^#   ([A-Z_]+) ", script, re.MULTILINE):
        assert f"| `{name}` |" in IMAGES, name
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name in set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)):
        assert f"`{name}`" in IMAGES, name
    extras = re.search(r"with the extras (.*?) into", IMAGES)
    assert extras is not None
    (made,) = re.findall(r"pyproject.toml((?: --extra \w+)+) \\\n.*image.txt", (ROOT / "Makefile").read_text())
    assert re.findall(r"`(\w+)`", extras[1]) == re.findall(r"--extra (\w+)", made)
