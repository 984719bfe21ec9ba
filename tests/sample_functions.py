"""Calls the sample functions as their contract says, without a runtime: `handle(event, context)`.

The context records what is published and keeps no bytes in memory: a published path is copied.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

SAMPLES = Path(__file__).parents[1] / "functions" / "samples"


def load(name: str) -> ModuleType:
    """The sample's `main` module. Its folder is on the path while it is imported, as in the runtime; modules beside it
    do not stay importable, so that samples cannot see each other's."""
    folder = SAMPLES / name
    beside = [file.stem for file in folder.glob("*.py") if file.stem != "main"]
    spec = importlib.util.spec_from_file_location(f"sample_{name}", folder / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for other in beside:
            sys.modules.pop(other, None)
    return module


@dataclass(frozen=True)
class Published:
    """One event that a function published; `path` holds its bytes."""

    topic: str
    path: Path
    content_type: str | None
    headers: Mapping[str, str]

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def as_event(self, *, by_file: bool = False) -> dict[str, Any]:
        """The event that the next function gets; `by_file` as for an input above 1 MiB."""
        if by_file:
            return {"topic": self.topic, "headers": dict(self.headers), "params": {}, "data-file": str(self.path)}
        return event(self.data, topic=self.topic, headers=self.headers)


@dataclass
class RecordingContext:
    """A function's context that keeps what it is told."""

    workdir: Path
    attempt: int = 1
    deadline: None = None
    published: list[Published] = field(default_factory=list)
    progressed: list[tuple[float, str]] = field(default_factory=list)

    def publish(
        self, topic: str, data: Any, content_type: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        path = self.workdir / f"published-{len(self.published):05}"
        if isinstance(data, Path):
            shutil.copyfile(data, path)
        else:
            path.write_bytes(as_bytes(data))
        for value in (headers or {}).values():
            assert value.isascii(), f"header {value!r} cannot travel"
            assert value.isprintable(), f"header {value!r} cannot travel"
        self.published.append(Published(topic, path, content_type, headers or {}))

    def progress(self, percent: float, text: str = "") -> None:
        assert 0 <= percent <= 100
        self.progressed.append((percent, text))


def as_bytes(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else json.dumps(data).encode()


def event(
    data: Any, *, topic: str = "t", headers: Mapping[str, str] | None = None, params: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """An event as the runtime hands it over; parameters that are not given are left to the function's defaults."""
    return {"data": data, "topic": topic, "headers": dict(headers or {}), "params": dict(params or {})}


def fresh_context(folder: Path) -> RecordingContext:
    """A context with an empty work folder of its own below `folder`."""
    workdir = folder / f"attempt-{len(list(folder.iterdir())):05}"
    workdir.mkdir()
    return RecordingContext(workdir)
