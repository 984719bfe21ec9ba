"""A function's code as an immutable ConfigMap, named by its content. Pure: the bytes come in.

The name holds the content's hash, so equal code is one ConfigMap for all runs of all functions that have it, and code
that changed is another one: a run never sees half of each.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.kubernetes_engine import names

MAX_CODE_BYTES = 900 * 1024
"""A ConfigMap holds at most 1 MiB, keys and names included (Kubernetes, ConfigMap)."""
_KEY = re.compile(r"[^-._a-zA-Z0-9]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Six bytes each in JSON: text full of them would be a larger request than the API server takes."""


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file of a function's code."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class CodeMap:
    """The ConfigMap of some code: its name, the object, and what of it is mounted where."""

    name: str
    manifest: Mapping[str, Any]
    items: tuple[Mapping[str, Any], ...]


def inline_files(function: str, handler: str, source: str) -> dict[str, CodeFile]:
    """Inline code as the module that its handler names. Raises `StartRefusedError` (config) for what is no text."""
    try:
        data = source.encode()
    except UnicodeEncodeError as error:
        raise StartRefusedError(
            f"the code of {function} is not valid Unicode: {error.reason}", reason=str(Reason.CONFIG)
        ) from error
    return {f"{handler.split('.')[0]}.py": CodeFile(data)}


def code_map(instance: str, function: str, files: Mapping[str, CodeFile]) -> CodeMap:
    """The ConfigMap of these files, by their path. Raises `StartRefusedError` (config) when they are too large."""
    _check_paths(function, files)
    size = sum(len(path) + len(file.data) for path, file in files.items())
    if size > MAX_CODE_BYTES:
        raise StartRefusedError(
            f"the code of {function} has {size} bytes; a ConfigMap takes at most {MAX_CODE_BYTES}",
            hint="bake the code into an image and name it with 'image:'",
            reason=str(Reason.CONFIG),
        )
    ordered = sorted(files.items())
    keys = [f"{index:03d}-{_KEY.sub('-', path)[-200:]}" for index, (path, _) in enumerate(ordered)]
    name = names.code_name(instance, content_hash(files))
    data, binary = {}, {}
    for key, (_, file) in zip(keys, ordered, strict=True):
        text = _text(file.data)
        if text is None:
            binary[key] = base64.b64encode(file.data).decode()
        else:
            data[key] = text
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {names.MANAGED_BY: names.MANAGER, names.INSTANCE: instance}},
        "immutable": True,
        "data": data,
        "binaryData": binary,
    }
    items = tuple(
        {"key": key, "path": path} | ({"mode": 0o555} if file.executable else {})
        for key, (path, file) in zip(keys, ordered, strict=True)
    )
    return CodeMap(name, manifest, items)


def _check_paths(function: str, files: Mapping[str, CodeFile]) -> None:
    for path in files:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise StartRefusedError(
                f"the code of {function} has a file whose name is no UTF-8: {path!a}", reason=str(Reason.CONFIG)
            ) from error


def content_hash(files: Mapping[str, CodeFile]) -> str:
    """26 characters that differ when a path, a byte or a mode does."""
    hasher = hashlib.sha256()
    for path, file in sorted(files.items()):
        for part in (path.encode("utf-8", "surrogateescape"), b"x" if file.executable else b"-", file.data):
            hasher.update(len(part).to_bytes(8, "big") + part)
    return base64.b32encode(hasher.digest()).decode().lower()[:26]


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text
