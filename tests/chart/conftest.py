"""Fixtures of the chart's tests: `helm` alone, and releases on a real cluster, one of them shared by many tests."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import Helm, helm_program
from tests.chart.images import ROOT, make_images_known
from tests.chart.release import MODEST, Release
from tests.chart.rendering import Rendering, rendering
from tests.cluster import users
from tests.cluster.facts import Cluster
from tests.cluster.fixtures import make_namespace, remove_namespace
from tests.cluster.folders import locked, write_whole
from tests.cluster.processes import Process
from tests.skips import without

NOT_BUILT = "helm is not built here (a part of Kubernetes for the tests); try: make cluster-build"
SAMPLES = ROOT / "functions" / "samples"
TOPICS = ("greetings.a", "greetings.b")


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm without a cluster: to render, lint and package."""
    program = helm_program()
    if program is not None:
        return Helm(program)
    without(NOT_BUILT, needed_if="INVOKER_REQUIRE_CLUSTER")


@pytest.fixture(scope="session")
def render(helm: Helm) -> Rendering:
    """The chart's documents with any values."""
    return rendering(helm)


@pytest.fixture(scope="session")
def cluster_helm(helm: Helm, cluster: Cluster) -> Helm:
    """Helm at the cluster, whose nodes know the chart's images."""
    if cluster.state is None:
        pytest.skip("a given cluster (INVOKER_TEST_KUBECONFIG) takes no images that are built here")
    make_images_known(cluster)
    return Helm(helm.program, cluster.kubeconfig)


@pytest.fixture(scope="session")
def shared(cluster_helm: Helm, cluster: Cluster) -> Iterator[Release]:
    """A release that many tests use at once: with the samples, two greeting functions and the admission policy.

    The workers of one session share it too; the last one that leaves removes it.
    """
    assert cluster.state is not None
    place = SharedPlace(cluster, cluster_helm, cluster.state / "chart")
    me = Process.of(os.getpid())
    assert me is not None
    with locked(place.folder):
        release = place.release()
        users.add(place.folder, me)
    yield release
    with locked(place.folder):
        if users.remove(place.folder, me) and not users.living(place.folder):
            place.remove()


@dataclass(frozen=True)
class SharedPlace:
    """Where the workers find the release that they share. Call everything here under the folder's lock."""

    cluster: Cluster
    helm: Helm
    folder: Path

    @property
    def note(self) -> Path:
        return self.folder / "release.json"

    def release(self) -> Release:
        """The one that is there and used, or a new one."""
        if self.note.exists() and users.living(self.folder):
            return Release(self.helm, self.cluster, json.loads(self.note.read_text())["namespace"])
        self.remove()
        release = Release(self.helm, self.cluster, make_namespace(self.cluster))
        write_whole(self.note, json.dumps({"namespace": release.namespace}))
        release.cluster.apply(samples(), greetings("hello"), namespace=release.namespace)
        release.install(MODEST, SHARED_VALUES)
        return release

    def remove(self) -> None:
        """It goes, and so does what a session that was killed left of its own."""
        if self.note.exists():
            namespace = json.loads(self.note.read_text())["namespace"]
            policies = "validatingadmissionpolicies,validatingadmissionpolicybindings"
            names = (f"{namespace}-invoker-{what}" for what in ("jobs", "code"))
            self.cluster.kubectl("delete", policies, *names, "--ignore-not-found")
            remove_namespace(self.cluster, namespace)
            self.note.unlink()


def samples() -> dict[str, Any]:
    """The sample functions as a ConfigMap, as `kubectl create configmap --from-file` would make it."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "samples"}, "binaryData": {
        key: base64.b64encode(file.read_bytes()).decode() for key, file in sample_files().items()
    }}  # fmt: skip


def sample_files() -> dict[str, Path]:
    """Key by key, what a function of the samples needs when it runs."""
    wanted = ("*.py", "function.yaml", "*.schema.json", "data/tzdata/*")
    files = [
        file for name in ("collect", "uncompress", "convert") for what in wanted for file in (SAMPLES / name).glob(what)
    ]
    return {str(file.relative_to(SAMPLES)).replace("/", "."): file for file in sorted(files)}


def greetings(word: str) -> dict[str, Any]:
    """Two functions in a ConfigMap, both of which answer this word."""
    files = {f"{topic[-1]}.yaml": GREETING.format(last=topic[-1], topic=topic, word=word) for topic in TOPICS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greetings"}, "data": files}


GREETING = """\
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {{name: greeting-{last}}}
spec:
  description: {word}
  subscriptions: [{{topic: {topic}}}]
  image: localhost/busybox:1
  command: [echo, {word}]
  output: {{from: stdout}}
  ttlSecondsAfterFinished: 5
"""

SHARED_VALUES = {
    "admissionPolicy": {"enabled": True, "images": ["^localhost/", "^invoker-python:"]},
    "controller": {
        "settings": {
            "allowedSecrets": ["for-functions-*", "*-run-token"],
            "allowedStorageClasses": ["fast-*"],
            "maxVolumeBytes": 4 * 2**30,  # what the samples ask for
        }
    },
    "catalog": {
        "configMaps": [
            {"name": "greetings"},
            {"name": "samples", "items": [
                {"key": key, "path": str(file.relative_to(SAMPLES))} for key, file in sample_files().items()
            ]},
        ],
    },
}  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in a short path."""
    with tempfile.TemporaryDirectory(prefix="chart-") as name:
        yield Path(name)
