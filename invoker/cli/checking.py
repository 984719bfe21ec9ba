"""`invoker functions check`: a catalog, a folder or one file read as the controller would, without any server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoker.errors import CatalogError
from invoker.quantities import count

if TYPE_CHECKING:
    from trigger.catalog import BrokenFunction, Catalog


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal; `message` begins with the file (as seen from here) and the line."""

    message: str
    file: str
    line: int | None
    field: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: the names of the usable functions, and every problem."""

    path: Path
    functions: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def summary(self) -> str:
        good = f"{count(len(self.functions), 'function')} usable"
        return f"✗ {count(len(self.problems), 'problem')}, {good}" if self.problems else f"✓ {good}"

    def document(self) -> dict[str, Any]:
        problems = [
            {"file": one.file, "line": one.line, "field": one.field, "message": one.message} for one in self.problems
        ]
        return {"path": str(self.path), "functions": list(self.functions), "problems": problems}


def check_path(path: Path) -> Checked:
    """Read the functions below a folder, or of one file. Raises `CatalogError` when there is none to read."""
    from trigger.catalog_source.directory import DirectorySource

    if not path.exists():
        raise CatalogError(f"{path} does not exist", try_command="invoker functions new hello")
    root = path if path.is_dir() else path.parent
    catalog = DirectorySource(root, setting="PATH").load()
    only = None if path.is_dir() else path.name
    checked = _checked(path, root, catalog, only)
    if not checked.functions and not checked.problems:
        raise CatalogError(f"{path} holds no function file (function.yaml)", try_command="invoker functions new hello")
    return checked


def _checked(path: Path, root: Path, catalog: Catalog, only: str | None) -> Checked:
    functions = tuple(one.name for one in catalog.functions.values() if only in (None, one.file))
    broken = (one for one in catalog.broken if only in (None, one.file))
    problems = tuple(problem for one in broken for problem in _problems(one, root))
    return Checked(path, functions, problems)


def _problems(broken: BrokenFunction, root: Path) -> list[Problem]:
    """Everything that is wrong, with the path as the user would open it; the catalog's own begin at its root."""
    seen = str(root / broken.file)
    message = broken.message
    if message.startswith(broken.file):
        message = seen + message.removeprefix(broken.file)
    if not broken.errors:
        return [Problem(message, seen, broken.line, broken.field)]
    return [Problem(f"{_place(seen, line, field)}: {what}", seen, line, field) for line, field, what in broken.errors]


def _place(file: str, line: int | None, field: str) -> str:
    return f"{file}{'' if line is None else f':{line}'}{f': {field}' if field else ''}"
