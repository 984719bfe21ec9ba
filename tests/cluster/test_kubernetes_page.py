"""What docs/kubernetes.md shows, done on a cluster: its first run, and the recording of a pipeline."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import until
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.cluster.fixtures import remove_namespace
from tests.docs.transcript import ROOT, Desk, Step, difference, steps_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "kubernetes.md"
ADDRESS = "10.0.0.5"


def environment(cluster: Cluster) -> dict[str, str]:
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{Path(sys.executable).parent}:{cluster.kubectl_path.parent}:{os.environ['PATH']}",
        "INVOKER_RUNTIME_IMAGES": f"python={PYTHON_IMAGE}",
    }


def test_the_first_run_goes_as_it_is_shown(cluster: Cluster, tmp_path: Path) -> None:
    build_python_image(cluster)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    namespace = f"test-{secrets.token_hex(4)}"
    desk = Desk(tmp_path, environment(cluster))
    try:
        for step in steps_of(PAGE, on_cluster=True):
            if step.command.startswith("export "):
                continue  # the page's image is nobody's
            replay(desk, here(step, cluster, namespace))
    finally:
        desk.close()
        remove_namespace(cluster, namespace)


def here(step: Step, cluster: Cluster, namespace: str) -> Step:
    """The step with the names that are this cluster's."""

    def named(line: str) -> str:
        line = line.replace(ADDRESS, cluster.host_address)
        return re.sub(r"\b(namespace[ /:]\s?|--namespace )jobs\b", rf"\g<1>{namespace}", line)

    return Step(named(step.command), [named(line) for line in step.expected])


def replay(desk: Desk, step: Step) -> None:
    if step.own_terminal:
        printed = desk.leave_running(step.command, step.expected[-1]).printed
    else:
        printed = desk.run(step.command)
    problem = difference(step.expected, printed)
    assert problem is None, f"$ {step.command}\n{problem}"


def test_a_pipeline_with_volumes_is_recorded_as_the_page_shows_it(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """Three Jobs, two claims that go with their pods before the TTL, nothing left."""
    build_python_image(cluster)
    script = [sys.executable, str(ROOT / "scripts" / "kubernetes_transcript.py"), namespace, cluster.host_address]
    done = subprocess.run(
        script, env=os.environ | environment(cluster) | {"HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = PAGE.read_text().split("<!-- recorded: pipeline")[1].split("```text\n")[1].split("```")[0]
    assert story(done.stdout) == story(shown)
    until(lambda: cluster.get("jobs,pods,pvc", "-n", namespace)["items"] == [], what="an empty namespace")


def story(transcript: str) -> dict[str, list[str]]:
    """What became of each object that was seen, by function and kind, without instants and names."""
    found: dict[str, list[str]] = {}
    for line in transcript.splitlines():
        row = re.match(r" *[\d.]+s +(ADDED|MODIFIED|DELETED) +(job|pod|pvc) +(\w+) +\S+ +(.*)", line)
        if row:
            what, kind, function, state = row.groups()
            told = _ENDS.search(state) if kind == "job" else re.match(r"\w+", state)
            word = f"{what} {told[0]}" if told else what
            seen = found.setdefault(f"{function} {kind}", [])
            if word in STEPS and word not in seen:
                seen.append(word)
    return found


_ENDS = re.compile(r"ttl \d+ s, finalizers (-|invoker)|finalizers foreground")
STEPS = {
    "MODIFIED ttl 604800 s, finalizers invoker", "MODIFIED ttl 10 s, finalizers -", "DELETED finalizers foreground",
    "ADDED Pending", "MODIFIED Succeeded", "MODIFIED Bound", "DELETED Succeeded", "DELETED Bound",
}  # fmt: skip
