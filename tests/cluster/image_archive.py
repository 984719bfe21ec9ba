"""Images written without a registry and without a build tool: one layer in the archive that runtimes import."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MEDIA = "application/vnd.oci.image"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer_of(files: Mapping[str, Path], links: Mapping[str, str] = {}) -> bytes:
    """An uncompressed layer: executable files from this machine, and symbolic links. The same input, the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, source in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = source.stat().st_size, 0o755
            with source.open("rb") as file:
                tar.addfile(info, file)
        for name, target in sorted(links.items()):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(info)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    return content.getvalue()


def write_archive(path: Path, reference: str, layer: Path, config: Mapping[str, Any]) -> None:
    """Writes an OCI archive of one image whose only layer is this uncompressed tar. `config`: Entrypoint, Env, ..."""
    diff_id = _digest(layer)
    image = {
        "architecture": MACHINES[platform.machine()],
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "tests/cluster"}],  # one for each layer, or builders refuse it as a base
    }
    blobs = _Blobs()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": blobs.add(f"{_MEDIA}.config.v1+json", image),
        "layers": [{"mediaType": f"{_MEDIA}.layer.v1.tar", "digest": diff_id, "size": layer.stat().st_size}],
    }
    described = blobs.add(f"{_MEDIA}.manifest.v1+json", manifest)
    # containerd takes the whole name from its own key, others take the second one.
    described["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())
        for digest, content in blobs.contents.items():
            _add(tar, _blob_name(digest), content)
        info = tarfile.TarInfo(_blob_name(diff_id))
        info.size = layer.stat().st_size
        with layer.open("rb") as file:
            tar.addfile(info, file)


class _Blobs:
    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def add(self, media_type: str, value: Mapping[str, Any]) -> dict[str, Any]:
        content = json.dumps(value, sort_keys=True).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.contents[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
