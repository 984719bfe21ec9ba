"""A copy of what docker-compose.yml needs, as a user has it, with secrets and functions of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compose.daemon import Daemon, run

ROOT = Path(__file__).parents[2]
SERVICES = ("nats", "redis", "controller", "gateway")
URL = "http://127.0.0.1:8080"
FUNCTIONS = {
    "slow": ("slow", "import time\n    time.sleep(1.5)\n    return event['data']", "onSuccess: {publish: slow.done}"),
    "tally": ("slow.done", "return 'counted ' + event['data']", "concurrency: 4"),
}
_FUNCTION = """\
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  subscriptions: [{{topic: {topic}}}]
  runtime: python
  {more}
  code: |
    def handle(event, context):
        {body}
"""


@dataclass(frozen=True)
class Project:
    """The folder with docker-compose.yml, on one daemon."""

    folder: Path
    daemon: Daemon

    @property
    def secrets(self) -> Path:
        return self.folder / ".secrets"

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """One docker-compose command in the folder; what it said."""
        command = ["docker-compose", "--project-name", "invoker", *arguments]
        environment = self.daemon.environment | {"INVOKER_FUNCTIONS": "./functions"}
        return run(command, environment, check=check, timeout=timeout, folder=self.folder).stdout

    def container(self, service: str) -> str:
        """The id of a service's container."""
        mark = f"label=com.docker.compose.service={service}"
        return self.daemon.docker("ps", "--all", "--quiet", "--filter", mark).stdout.split()[-1]

    def facts(self, service: str) -> Any:
        """What `docker inspect` says about it."""
        return json.loads(self.daemon.docker("inspect", self.container(service)).stdout)[0]

    def health(self, service: str) -> str:
        """`starting`, `healthy`, `unhealthy`, or what a container that does not run is instead."""
        state = self.facts(service)["State"]
        return str(state["Health"]["Status"] if state["Running"] else state["Status"])

    def log(self, service: str) -> str:
        return self.daemon.docker("logs", self.container(service)).stdout

    def until(self, ask: Callable[[], bool], what: str, within: float = 150) -> None:
        """Waits for the moment; fails with the logs of all when it does not come."""
        deadline = time.monotonic() + within
        while not ask():
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {service}\n{self.log(service)[-3000:]}" for service in SERVICES)
                pytest.fail(f"{what} did not come within {within:g} s\n{logs}")
            time.sleep(0.2)

    def until_healthy(self, *services: str, within: float = 150) -> None:
        for service in services or SERVICES:
            self.until(lambda service=service: self.health(service) == "healthy", f"a healthy {service}", within)

    def invoker(self, *arguments: str, check: bool = True) -> str:
        """A command of ours through the published port."""
        environment = self.visiting | {
            "INVOKER_GATEWAY_URL": URL, "INVOKER_GATEWAY_KEY_FILE": str(self.secrets / "api_key"),
        }  # fmt: skip
        command = self.daemon.entered(str(Path(sys.executable).parent / "invoker"), *arguments)
        return run(command, environment, check=check).stdout

    @property
    def visiting(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("INVOKER_", "NATS_", "DOCKER_"))}
        return kept | {"HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def visit(self, name: str, count: int) -> Visit:
        """Somebody publishes that many events, and waits for what becomes of them."""
        command = self.daemon.entered(
            sys.executable, "-m", "tests.compose.visitor", URL, str(self.secrets / "api_key"), name, str(count)
        )
        return Visit(command, self.visiting, count)


class Visit:
    """Events under way, and what became of them."""

    def __init__(self, command: list[str], environment: dict[str, str], count: int) -> None:
        self.count = count
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self.lines.extend(said)  # line by line, seen by others meanwhile

    def has_published(self, count: int) -> bool:
        return sum(line.startswith("published") for line in self.lines) >= count or self._process.poll() is not None

    def check(self) -> None:
        """Every event was accepted once, ran once through both stages, and has one result for each."""
        assert self._process.wait(200) == 0, "".join(self.lines)
        self._reader.join(10)
        found = json.loads(self.lines[-1])
        assert len(set(found["ids"])) == self.count
        both = [["slow", "succeeded"], ["tally", "succeeded"]]
        assert [stages for stages in found["stages"] if stages != both] == [], found
        numbers = [str(number) for number in range(self.count)]
        assert sorted(found["outputs"]) == sorted([*numbers, *(f"counted {number}" for number in numbers)])


def make_project(folder: Path, daemon: Daemon) -> Project:
    """The files of a user's checkout that are needed, the functions of the tests beside the samples, new secrets."""
    folder.mkdir()
    shutil.copy(ROOT / "docker-compose.yml", folder)
    for part in ("deploy/compose", "deploy/nats"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copytree(ROOT / "functions" / "samples", folder / "functions", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (topic, body, more) in FUNCTIONS.items():
        (folder / "functions" / name).mkdir()
        text = _FUNCTION.format(name=name, topic=topic, body=body.replace("\n", "\n    "), more=more)
        (folder / "functions" / name / "function.yaml").write_text(text)
    run(["sh", str(ROOT / "scripts" / "compose-secrets"), str(folder / ".secrets")], {"PATH": os.environ["PATH"]})
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and path.name != ".secrets":
            path.chmod(0o755)
    return Project(folder, daemon)
