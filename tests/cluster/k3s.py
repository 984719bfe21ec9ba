"""k3s in a container, where a Docker daemon answers, testcontainers is installed and the image of k3s is to be had.

Not tried where this was written, since no daemon and no registry answered there: only that it is left out then.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cluster import images
from tests.cluster.build import KUBERNETES_VERSION, are_programs_built, programs_folder
from tests.cluster.components import FEATURE_GATES
from tests.cluster.facts import Cluster
from tests.cluster.folders import write_whole
from tests.cluster.loading import import_archive

IMAGE = f"rancher/k3s:v{KUBERNETES_VERSION}-k3s1"
FLAGS = f"--kube-apiserver-arg=feature-gates={FEATURE_GATES} --kubelet-arg=feature-gates={FEATURE_GATES}"


class K3sError(Exception):
    """It does not start; another cluster may."""


def is_possible() -> bool:
    """Whether a daemon answers and everything to use it is here."""
    return docker_answers() and shutil.which("docker") is not None and find_spec("testcontainers") is not None


def docker_answers() -> bool:
    """Asks the daemon of DOCKER_HOST, or the one of this machine, whether it is there."""
    place = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    with suppress(OSError):
        if place.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                return _answers_ping(connection, place.path)
        if place.scheme == "tcp" and place.hostname:
            with socket.socket() as connection:
                return _answers_ping(connection, (place.hostname, place.port or 2375))
    return False


def _answers_ping(connection: socket.socket, address: Any) -> bool:
    connection.settimeout(5)
    connection.connect(address)
    connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    return b" 200 " in connection.recv(100)


def start(state: Path) -> Cluster:
    """A k3s that is ready and has the base images. Raises `K3sError`."""
    kubectl = str(programs_folder() / "kubectl") if are_programs_built() else shutil.which("kubectl")
    if kubectl is None:
        raise K3sError("k3s is used through kubectl, which is not here")
    from testcontainers.core.config import testcontainers_config  # type: ignore[import-not-found]  # optional
    from testcontainers.k3s import K3SContainer  # type: ignore[import-not-found]  # optional

    testcontainers_config.ryuk_disabled = True  # it would end the cluster with the worker that started it
    container = K3SContainer(IMAGE)
    container.with_command(f"server --disable traefik --tls-san={container.get_container_host_ip()} {FLAGS}")
    try:
        container.start()
    except Exception as error:  # whatever docker, its network or a registry may answer
        container.stop()
        raise K3sError(f"{IMAGE} does not start: {error}") from error
    write_whole(state / "k3s.json", json.dumps({"container": container.get_container_id()}))
    write_whole(state / "kubeconfig", container.config_yaml())
    for archive in images.build_base_images().values():
        import_archive(importer(container.get_container_id()), archive)
    cluster = Cluster(
        kubeconfig=state / "kubeconfig",
        host_address=_gateway(container.get_container_id()),
        kubectl_path=Path(kubectl),
        images=images.BASE_IMAGES,
        flags=f"k3s server {FLAGS}",
        kind="k3s",
        state=state,
    )
    cluster.write(state / "k3s-cluster.json")
    return cluster


def running(state: Path) -> Cluster | None:
    """The one of this folder, if its container runs."""
    container = _container(state)
    if container is None or _docker("inspect", "--format={{.State.Running}}", container).strip() != "true":
        return None
    return Cluster.read(state / "k3s-cluster.json")


def stop(state: Path) -> None:
    """Removes the container. Safe to repeat."""
    container = _container(state)
    if container is not None:
        _docker("rm", "--force", "--volumes", container)
    for name in ("k3s.json", "k3s-cluster.json"):
        (state / name).unlink(missing_ok=True)


def importer(container: str) -> list[str]:
    """The command that imports an image from its standard input."""
    return ["docker", "exec", "--interactive", container, "ctr", "--namespace", "k8s.io", "images", "import", "-"]


def importer_of(state: Path) -> list[str]:
    container = _container(state)
    if container is None:
        raise K3sError("the container of k3s is gone")
    return importer(container)


def _container(state: Path) -> str | None:
    try:
        return str(json.loads((state / "k3s.json").read_text())["container"])
    except FileNotFoundError:
        return None


def _gateway(container: str) -> str:
    """This machine's address on the container's network: pods leave the node under the node's own address."""
    form = "--format={{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}"
    return _docker("inspect", form, container).split()[0]


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout
