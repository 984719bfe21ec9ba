"""The image of controller and gateway, built from the project's Dockerfile on the tests' base, without network.

The wheels that it is built from are downloaded once for each state of the locked requirements, outside of the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.build import BuildError
from tests.cluster.facts import Cluster
from tests.cluster.folders import CHECKOUT, cache_folder, digest_of, locked
from tests.cluster.image_builder import build_archive, sources
from tests.cluster.images import BASE
from tests.cluster.loading import load_archive

IMAGE = "localhost/invoker:test"
BASE_PYTHON = "3.11"
"""The version in the tests' base, Debian 12."""
WHEELS = "deploy/image/wheels"
_SCRIPT = CHECKOUT / "scripts" / "image-wheels"
_LOCKS = tuple(CHECKOUT / "requirements" / name for name in ("image.txt", "image-build.txt"))


def load_invoker_image(cluster: Cluster) -> str:
    """The name under which pods of this cluster have the image afterwards. Safe to repeat, and quick then.

    Raises `BuildError`, and `LoadError` for a cluster that takes no images.
    """
    load_archive(cluster, invoker_archive())
    return IMAGE


def invoker_archive() -> Path:
    """The image as an OCI archive in the cache, built when it is not there (about a minute)."""
    dockerfile = CHECKOUT / "Dockerfile"
    with tempfile.TemporaryDirectory(prefix="invoker-context-") as folder:
        context = Path(folder)
        for path in sources(dockerfile.read_text()):
            _copy(CHECKOUT / path, context / path)
        shutil.rmtree(context / WHEELS, ignore_errors=True)
        shutil.copytree(_wheels(), context / WHEELS)
        return build_archive(dockerfile, context, IMAGE, {"BASE": BASE})


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(path, target)


def _wheels() -> Path:
    """The folder of the wheels; what was downloaded for other locked requirements goes."""
    with locked(cache_folder(), "wheels.lock"):
        wanted = cache_folder() / f"wheels-{digest_of(_SCRIPT, *_LOCKS, BASE_PYTHON)}"
        if wanted.exists():
            return wanted
        unfinished = cache_folder() / "wheels-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run(
            ["sh", str(_SCRIPT), BASE_PYTHON, str(unfinished)], env=os.environ | {"PYTHON": sys.executable},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"the wheels of the image cannot be downloaded\n{done.stdout}{done.stderr}")
        for other in cache_folder().glob("wheels-*"):
            if other != unfinished:
                shutil.rmtree(other)
        unfinished.rename(wanted)
        return wanted
