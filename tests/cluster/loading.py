"""Makes an image that is an archive on this machine known to the nodes of a cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.facts import Cluster
from tests.cluster.folders import locked


class LoadError(Exception):
    """An image did not get to the node."""


def load_archive(cluster: Cluster, archive: Path) -> None:
    """Afterwards pods can name the image, under the name that is in the archive. Safe to repeat, and quick then."""
    if cluster.state is None:
        raise LoadError("a given cluster (INVOKER_TEST_KUBECONFIG) takes no images: put them there before the tests")
    folder = cluster.state / "run" / "loaded"
    # By name, not by archive: another archive of the same name takes the name away, and this one must get it back.
    name = archive.stem.rpartition("-")[0]
    with locked(folder, f"{name}.lock"):
        done = folder / name
        if not done.exists() or done.read_text() != archive.name:
            import_archive(importer_of(cluster), archive)
            done.write_text(archive.name)


def importer_of(cluster: Cluster) -> list[str]:
    """The command that imports an image from its standard input."""
    assert cluster.state is not None
    if cluster.kind == "k3s":
        from tests.cluster import k3s  # imports this module

        return k3s.importer_of(cluster.state)
    return importer(cluster.kubectl_path.with_name("ctr"), cluster.state / "run" / "containerd.sock")


def importer(ctr: Path, socket: Path) -> list[str]:
    # The socket's path has to be absolute. Local: ctr itself unpacks the archive, whatever plugins the server has.
    return [str(ctr), "--address", str(socket), "--namespace", "k8s.io", "images", "import", "--local", "-"]


def import_archive(importer: list[str], archive: Path) -> None:
    with archive.open("rb") as content:
        done = subprocess.run(importer, stdin=content, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"{archive.name} was not imported: {done.stderr.strip()}")
