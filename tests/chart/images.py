"""The images that the chart names by default, built here and known to the cluster's node under those very names.

Nothing can be pulled where the tests run. Invoker's own are built from the project's Dockerfiles; that of NATS is a
stand-in: one layer with the nats-server that the tests use everywhere, where people get the official image.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from invoker.nats_server import find_binary
from tests.chart.helm import CHART, Helm
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster
from tests.cluster.folders import cache_folder, digest_of, locked
from tests.cluster.image_archive import layer_of, write_archive
from tests.cluster.invoker_image import load_invoker_image
from tests.cluster.loading import LoadError, importer_of, load_archive

ROOT = CHART.parents[1]
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
EARLIER = "0.0.1"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def make_images_known(cluster: Cluster) -> None:
    """Afterwards a release with the chart's own values can run on this cluster. Safe to repeat, and quick then."""
    build_python_image(cluster)
    invoker = load_invoker_image(cluster)
    for version in (VERSION, EARLIER):
        _call(cluster, invoker, whole_name(VALUES["image"], version))
        _call(cluster, PYTHON_IMAGE, whole_name(VALUES["runtimeImages"]["python"], version))
    load_archive(cluster, _nats_archive())


def whole_name(image: dict[str, str], version: str = VERSION) -> str:
    """What a node takes an image's name in the values of that version of the chart for."""
    return f"docker.io/library/{image['repository']}:{image['tag'] or version}"


def earlier_chart(helm: Helm, folder: Path) -> Path:
    """The chart as a package of an earlier version, whose images have that version's tag."""
    copy = folder / "earlier"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text()) | {"version": EARLIER, "appVersion": EARLIER}
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about))
    helm("package", str(copy), "--destination", str(folder))
    return folder / f"invoker-{EARLIER}.tgz"


def _call(cluster: Cluster, image: str, name: str) -> None:
    """Gives an image that the node knows another name."""
    importer = importer_of(cluster)
    tagging = [*importer[: importer.index("import")], "tag", "--force", image, name]
    done = subprocess.run(tagging, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"{image} was not named {name}: {done.stderr.strip()}")


def _nats_archive() -> Path:
    server, reference = Path(find_binary()), whole_name(VALUES["nats"]["evaluation"]["image"])
    folder = cache_folder() / "chart-images"
    archive = folder / f"nats-{digest_of(server, reference)}.tar"
    with locked(folder):
        if not archive.exists():
            layer, unfinished = folder / "layer.tar", archive.with_suffix(".unfinished")
            layer.write_bytes(layer_of({"usr/local/bin/nats-server": server}))
            config = {"Entrypoint": ["nats-server"], "Env": ["PATH=/usr/local/bin"], "WorkingDir": "/"}
            write_archive(unfinished, reference, layer, config)
            layer.unlink()
            unfinished.rename(archive)
    return archive
