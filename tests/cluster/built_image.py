"""What an image is made of, read from the archive that the builder wrote: its configuration, layers and files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def config_of(archive: Path) -> dict[str, Any]:
    """What an image says about how it is run."""
    config: dict[str, Any] = _blob(archive, _manifest(archive)["config"]["digest"])["config"]
    return config


def layers_of(archive: Path) -> list[dict[str, Any]]:
    """The image's layers, the lowest first."""
    layers: list[dict[str, Any]] = _manifest(archive)["layers"]
    return layers


def layers_above(archive: Path, base: Path) -> list[dict[str, Any]]:
    """The layers that an image adds to its base. A builder may have packed those of the base anew: the same content has
    another digest then."""
    below, above = layers_of(base), layers_of(archive)
    for its, own in zip(below, above, strict=False):
        assert its["digest"] == own["digest"] or content_bytes(base, its["digest"]) == content_bytes(
            archive, own["digest"]
        ), "it does not stand on that base"
    return above[len(below) :]


def content_bytes(archive: Path, digest: str) -> int:
    """How much the files of one layer take."""
    with tarfile.open(archive) as tar, tarfile.open(fileobj=tar.extractfile(_place(digest))) as layer:
        return sum(member.size for member in layer)


def members_of(archive: Path, layers: Iterable[dict[str, Any]]) -> list[tarfile.TarInfo]:
    """Everything in these layers, without the contents."""
    found: list[tarfile.TarInfo] = []
    with tarfile.open(archive) as tar:
        for layer in layers:
            with tarfile.open(fileobj=tar.extractfile(_place(layer["digest"]))) as content:
                found += content.getmembers()
    return found


def beginnings_of(archive: Path, layers: Iterable[dict[str, Any]], suffix: str, length: int) -> dict[str, bytes]:
    """The first bytes of every file with that ending in these layers."""
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for layer in layers:
            with tarfile.open(fileobj=tar.extractfile(_place(layer["digest"]))) as content:
                for member in content:
                    if member.isfile() and member.name.endswith(suffix):
                        file = content.extractfile(member)
                        assert file is not None
                        found[member.name] = file.read(length)
    return found


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _manifest(archive: Path) -> Any:
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        return _blob(archive, json.load(index)["manifests"][0]["digest"])


def _blob(archive: Path, digest: str) -> Any:
    with tarfile.open(archive) as tar:
        blob = tar.extractfile(_place(digest))
        assert blob is not None
        return json.load(blob)
