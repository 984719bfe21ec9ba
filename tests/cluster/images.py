"""The images of the tests, built on this machine and kept by the hash of what they are made of.

localhost/pause:1     holds a pod's namespaces
localhost/busybox:1   only a static busybox, with /bin/sh
localhost/plain:1     one static program, no shell: decodes PAYLOAD and prints it backwards
localhost/base:1      Debian with Python 3 and pip, where another machine has python:3-slim
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.build import BuildError, last_lines, need_go, run_go
from tests.cluster.folders import HERE, cache_folder, digest_of, locked
from tests.cluster.image_archive import layer_of, write_archive

PAUSE, BUSYBOX, PLAIN, BASE = (f"localhost/{name}:1" for name in ("pause", "busybox", "plain", "base"))
BASE_IMAGES = (PAUSE, BUSYBOX, PLAIN, BASE)
APPLETS = (
    "awk cat cp cut date dd echo env false grep head id ls mkdir mv printf rm sed sh sleep sort tail touch true wc"
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_IN_BASE = ("doc", "info", "locale", "man")
_BASE_RECIPE = (
    "--variant=minbase",
    "--include=python3,python3-pip,ca-certificates",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _NOT_IN_BASE),
    # As in the python images: `python` is there, and pip installs beside Debian's packages.
    '--customize-hook=ln -s python3 "$1/usr/bin/python"',
    '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    "bookworm",
)


def archive_of(reference: str) -> Path:
    """Where the archive of a base image is, or will be, in the cache."""
    name = reference.removeprefix("localhost/").replace(":", "-")
    return cache_folder() / "images" / f"{name}-{_inputs_of(reference)}.tar"


def are_base_images_built() -> bool:
    return all(archive_of(reference).exists() for reference in BASE_IMAGES)


def build_base_images() -> dict[str, Path]:
    """The archives of the base images by name, built where they are missing. Safe to repeat; raises `BuildError`."""
    with locked(cache_folder(), "images.lock"):
        for reference in BASE_IMAGES:
            if not archive_of(reference).exists():
                _build(reference)
    return {reference: archive_of(reference) for reference in BASE_IMAGES}


def _inputs_of(reference: str) -> str:
    writer = HERE / "image_archive.py"
    if reference == BASE:
        return digest_of(writer, *_BASE_RECIPE)
    if reference == BUSYBOX:
        return digest_of(writer, _busybox(), APPLETS)
    program = HERE / "programs" / reference.removeprefix("localhost/").removesuffix(":1")
    return digest_of(writer, HERE / "programs" / "go.mod", program / "main.go")


def _build(reference: str) -> None:
    archive = archive_of(reference)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="invoker-image-", dir=archive.parent) as scratch:
        layer, config = _LAYERS[reference](Path(scratch), archive.with_suffix(".log"))
        unfinished = Path(scratch) / "archive"
        write_archive(unfinished, reference, layer, config)
        unfinished.rename(archive)


def _pause_layer(folder: Path, log: Path) -> tuple[Path, Mapping[str, Any]]:
    return _program_layer("pause", folder, log)


def _plain_layer(folder: Path, log: Path) -> tuple[Path, Mapping[str, Any]]:
    return _program_layer("plain", folder, log)


def _program_layer(name: str, folder: Path, log: Path) -> tuple[Path, Mapping[str, Any]]:
    need_go()
    program = folder / name
    with log.open("w") as file:
        arguments = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(program), f"./{name}"]
        if run_go(arguments, HERE / "programs", file.fileno()) != 0:
            raise BuildError(f"go build of the image's program {name} failed\n{last_lines(log)}")
    return _write_layer(folder, layer_of({name: program})), {"Entrypoint": [f"/{name}"], "WorkingDir": "/"}


def _busybox_layer(folder: Path, log: Path) -> tuple[Path, Mapping[str, Any]]:
    links = {f"bin/{applet}": "busybox" for applet in APPLETS.split()}
    layer = _write_layer(folder, layer_of({"bin/busybox": _busybox()}, links))
    return layer, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"}


def _base_layer(folder: Path, log: Path) -> tuple[Path, Mapping[str, Any]]:
    if shutil.which("mmdebstrap") is None:
        raise BuildError(f"{BASE} is made by mmdebstrap, which is not here; try: apt-get install mmdebstrap")
    layer = folder / "base.tar"
    with log.open("w") as file:
        command = ["mmdebstrap", "--quiet", "--format=tar", *_BASE_RECIPE, str(layer)]
        done = subprocess.run(command, stdout=file, stderr=file, cwd="/", check=False)
    if done.returncode != 0:
        raise BuildError(f"mmdebstrap ended with {done.returncode}\n{last_lines(log)}")
    return layer, {"Cmd": ["python3"], "Env": [_PATH, "LANG=C.UTF-8"], "WorkingDir": "/"}


_LAYERS = {PAUSE: _pause_layer, PLAIN: _plain_layer, BUSYBOX: _busybox_layer, BASE: _base_layer}


def _write_layer(folder: Path, content: bytes) -> Path:
    path = folder / "layer.tar"
    path.write_bytes(content)
    return path


def _busybox() -> Path:
    """Debian's static busybox; a dynamic one would not start in an empty image."""
    found = shutil.which("busybox", path=os.environ.get("PATH", "") + ":/bin:/usr/bin")
    if found is None:
        raise BuildError(
            f"{BUSYBOX} is made of a static busybox, which is not here; try: apt-get install busybox-static"
        )
    return Path(found)
