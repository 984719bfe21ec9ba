"""Which files of a catalog's folder are specs, and which files belong to the functions of each.

Pure. A file belongs to the specs of every folder above it, up to the nearest folder that has a `function.yaml`: that
folder is one function's own, and what lies in it is nobody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trigger.catalog import BrokenFunction
from trigger.catalog_source.snapshot import Snapshot
from trigger.function_code import FileContent, FunctionFolder

FUNCTION_FILES = ("function.yaml", "function.yml")
YAML_SUFFIXES = (".yaml", ".yml")

_OURS = re.compile(rb"""^["']?apiVersion["']?[ \t]*:[ \t]*["']?invoker\.dev/""", re.MULTILINE)
_BRACED = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*\{|^(?:---[ \t]+)?\{", re.MULTILINE)
"""A document in braces, as programs write them: its keys are in any order, on any line."""
_OURS_IN_BRACES = re.compile(rb"""["']?apiVersion["']?\s*:\s*["']?invoker\.dev/""")


@dataclass(frozen=True, slots=True)
class Spec:
    """One function file: its content and the files beside it."""

    content: FileContent
    folder: FunctionFolder


@dataclass(frozen=True, slots=True)
class Layout:
    """The function files by name, and the places that no function answers for but that may hold one."""

    specs: Mapping[str, Spec]
    broken: tuple[BrokenFunction, ...]


def lay_out(root: Path, snapshot: Snapshot, contents: Mapping[str, FileContent], problems: Mapping[str, str]) -> Layout:
    """Sort what was read of a snapshot; `problems` are its own and those of reading.

    A spec that is seen through a linked folder is none: it is one where it lies, and would be declared twice.
    """
    seen = snapshot.files
    specs = {name: content for name, content in contents.items() if _is_spec(name, content) and not seen[name].linked}
    homes = {_parent(name) for name in specs if PurePosixPath(name).name in FUNCTION_FILES}
    parents = {_parent(name) for name in specs}
    files: dict[str, dict[str, FileContent]] = {parent: {} for parent in parents}
    for name, content in contents.items():
        if name not in specs:
            for owner in _owners(name, parents, homes):
                files[owner][name[len(owner) + 1 if owner else 0 :]] = content
    trouble: dict[str, str] = {}
    for name, sentence in problems.items():
        for owner in _owners(name, parents, homes):
            trouble.setdefault(owner, f"{name} {sentence}")
    folders = {parent: FunctionFolder(root / parent, files[parent], trouble.get(parent)) for parent in parents}
    unknown = [name for name in snapshot.hidden if not list(_owners(name, homes, homes))]
    broken = tuple(
        BrokenFunction(name, f"{name}: {sentence}")
        for name, sentence in problems.items()
        if PurePosixPath(name).suffix in YAML_SUFFIXES or name in unknown
    )
    return Layout({name: Spec(content, folders[_parent(name)]) for name, content in specs.items()}, broken)


def _is_spec(name: str, content: FileContent) -> bool:
    path = PurePosixPath(name)
    if path.name in FUNCTION_FILES:
        return True
    return path.suffix in YAML_SUFFIXES and content.data is not None and _is_ours(content.data)


def _is_ours(data: bytes) -> bool:
    if _OURS.search(data) is not None:
        return True
    begin = _BRACED.search(data)
    if begin is None or _OURS_IN_BRACES.search(data, begin.end()) is None:
        return False
    try:
        document = json.loads(data)
    except ValueError:
        return True  # in braces and no JSON: whoever reads it says what it is, or what is wrong with it
    # Else a list of somebody's objects with a function in the text of one would be taken for a function.
    return isinstance(document, dict) and str(document.get("apiVersion")).startswith("invoker.dev/")


def _owners(name: str, parents: set[str], homes: set[str]) -> Iterator[str]:
    """The folders with specs that the file belongs to, nearest first."""
    folder = name
    while folder:
        folder = _parent(folder)
        if folder in parents:
            yield folder
        if folder in homes:
            return


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
