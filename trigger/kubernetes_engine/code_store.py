"""The ConfigMaps of code: made before the first run of a version, removed when nothing uses them any more.

Many controllers make the same ones under the same names, so "already there" is success. Removal is slow on purpose: a
map goes only when twice in a row, a sweep apart, neither a Job nor a function of the catalog needed it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.api import Api, Kind
from trigger.kubernetes_engine.code_map import MAX_CODE_BYTES, CodeFile, CodeMap, code_map, inline_files
from trigger.kubernetes_engine.failures import ApiFailure
from trigger.plan import Code, RunPlan

log = structlog.get_logger(component="kubernetes")

MADE_AGAIN_SECONDS = 300.0
"""A map that somebody deleted by hand is there again after so long at the latest, sooner when a run missed it."""
MAX_FILES = 500
MAX_REMEMBERED = 1000
_SKIPPED = {"__pycache__"}


class CodeStore:
    """Makes and removes the ConfigMaps of one instance."""

    def __init__(self, api: Api, instance: str, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._instance = instance
        self._now = now
        self._maps: dict[tuple[str, str], CodeMap | None] = {}
        self._made: dict[str, float] = {}
        self._unused: set[str] = set()

    async def code_of(self, plan: RunPlan) -> CodeMap | None:
        """The map of the plan's code, None for code that is in its image.

        Raises `StartRefusedError` (config) for code that cannot be mounted: too large, unreadable, or with
        requirements that nobody would install.
        """
        key = plan.function, plan.spec_hash
        if key not in self._maps:
            if len(self._maps) >= MAX_REMEMBERED:
                self._maps.clear()
            self._maps[key] = await asyncio.to_thread(map_of_code, self._instance, plan.function, plan.code)
        return self._maps[key]

    async def ensure(self, code: CodeMap) -> None:
        """When this returns the map is there, with this code and no other.

        Raises `StartRefusedError` (refused) when somebody else made one of that name: who may make ConfigMaps in the
        namespace shall not thereby decide what functions do. Raises `ApiFailure`.
        """
        made_at = self._made.get(code.name)
        if made_at is not None and self._now() - made_at < MADE_AGAIN_SECONDS:
            return
        is_new = await self._api.create_config_map(json.dumps(code.manifest, ensure_ascii=False).encode())
        if not is_new:
            there = await self._api.find_config_map(code.name)
            if there is None:
                raise ApiFailure(0, message=f"the ConfigMap {code.name} was there a moment ago and is not any more")
            if not holds(there, code):
                raise _not_ours(self._api.namespace, code.name)
        self._made[code.name] = self._now()

    def doubt(self, name: str) -> None:
        """The map may be gone: the next run that needs it makes it again."""
        self._made.pop(name, None)

    async def sweep(self, used: Iterable[str], functions: Iterable[tuple[str, str, Code]]) -> list[str]:
        """Remove the maps that nothing uses now and nothing used at the last sweep; returns their names.

        `used` are those that Jobs mount, `functions` the catalog's as (name, spec hash, code).
        """
        needed = set(used) | await self._names_of(functions)
        there = [item["metadata"]["name"] async for item in self._api.list(Kind.CONFIG_MAP, self._selector)]
        prefix = names.code_name(self._instance, "")
        unused = {name for name in there if name.startswith(prefix)} - needed
        removed = sorted(unused & self._unused)
        for name in removed:
            self._made.pop(name, None)
            await self._api.delete_config_map(name)
        self._unused = unused - set(removed)
        return removed

    @property
    def _selector(self) -> str:
        return names.selector(self._instance)

    async def _names_of(self, functions: Iterable[tuple[str, str, Code]]) -> set[str]:
        found = set()
        for name, spec_hash, code in functions:
            key = name, spec_hash
            if key not in self._maps:
                try:
                    self._maps[key] = await asyncio.to_thread(map_of_code, self._instance, name, code)
                except StartRefusedError:
                    continue
            known = self._maps[key]
            if known is not None:
                found.add(known.name)
        return found


def holds(there: Mapping[str, Any], code: CodeMap) -> bool:
    """Whether a ConfigMap has exactly this code, and keeps it. Pure."""
    return there.get("immutable") is True and all(
        (there.get(part) or {}) == code.manifest[part] for part in ("data", "binaryData")
    )


def _not_ours(namespace: str, name: str) -> StartRefusedError:
    return StartRefusedError(
        f"the ConfigMap {namespace}/{name} has other code than the function, and Invoker did not make it",
        hint=f"see who made it, then remove it: kubectl -n {namespace} delete configmap {name}",
        reason=str(Reason.REFUSED),
    )


def map_of_code(instance: str, function: str, code: Code) -> CodeMap | None:
    """The map of some code, None when its image has it. Reads the function's folder. Raises `StartRefusedError`."""
    if code.requirements is not None and code.image is None:
        raise StartRefusedError(
            f"function {function} has a {code.requirements.name}, and no pod installs packages",
            hint="bake them into an image and name it with 'image:' (docs/images.md)",
            reason=str(Reason.CONFIG),
        )
    if code.inline is not None:
        return code_map(instance, function, inline_files(function, code.handler or "main.handle", code.inline))
    if code.folder is not None and code.image is None:
        return code_map(instance, function, read_folder(function, code.folder))
    return None


def read_folder(function: str, folder: Path) -> dict[str, CodeFile]:
    """The files of a function's folder by their relative path; hidden ones and caches are left out.

    Raises `StartRefusedError` (config) when there are too many or too much, or when they cannot be read.
    """
    files: dict[str, CodeFile] = {}
    size = 0
    try:
        for path in _walk(folder):
            data = path.read_bytes()
            size += len(data)
            files[path.relative_to(folder).as_posix()] = CodeFile(data, os.access(path, os.X_OK))
            if len(files) > MAX_FILES or size > MAX_CODE_BYTES:
                break
    except OSError as error:
        raise StartRefusedError(
            f"the code of {function} cannot be read: {error.strerror}", reason=str(Reason.CONFIG)
        ) from error
    if len(files) > MAX_FILES:
        raise StartRefusedError(
            f"the folder of {function} has more than {MAX_FILES} files",
            hint="bake the code into an image and name it with 'image:'",
            reason=str(Reason.CONFIG),
        )
    return files


def _walk(folder: Path) -> Iterable[Path]:
    inside = folder.resolve()
    for root, folders, found in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(found):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file() and path.resolve().is_relative_to(inside):
                yield path  # a mounted ConfigMap is full of links, but none of them leads out
