"""The catalog: an immutable snapshot of all functions, swapped whole.

Pure. `merge` puts what a source has loaded together with the previous snapshot: a function whose file cannot be used
now stays as it last was, so a typing mistake never stops what runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from trigger.function import Function
from trigger.match import Matcher


@dataclass(frozen=True, slots=True)
class BrokenFunction:
    """A function (or a whole file: `name` None) that cannot be used, and why: `message` begins with `file:line:`.

    `kept` says that its last good version is still in the catalog. `errors` are all findings as (line, field, detail),
    when there are several; the message has the first one.
    """

    file: str
    message: str
    name: str | None = None
    line: int | None = None
    field: str | None = None
    kept: bool = False
    errors: tuple[tuple[int | None, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedFunctions:
    """What a source found in its files, before the previous snapshot is taken into account."""

    functions: tuple[Function, ...] = ()
    broken: tuple[BrokenFunction, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """All functions at one moment. Equal content has an equal `version` (12 characters), wherever it was loaded."""

    functions: Mapping[str, Function] = field(default_factory=dict)
    broken: tuple[BrokenFunction, ...] = ()

    @classmethod
    def empty(cls) -> Catalog:
        """A catalog without functions, complete: nothing in it is broken."""
        return cls()

    @classmethod
    def of(cls, functions: Iterable[Function], broken: Iterable[BrokenFunction] = ()) -> Catalog:
        """The catalog of these functions, whose names must differ."""
        by_name = {function.name: function for function in sorted(functions, key=lambda function: function.name)}
        return cls(MappingProxyType(by_name), tuple(sorted(broken, key=lambda one: (one.file, one.line or 0))))

    @cached_property
    def version(self) -> str:
        hasher = hashlib.sha256()
        for name, function in self.functions.items():
            hasher.update(f"{name}\0{function.file}\0{function.spec_hash}\n".encode())
        return hasher.hexdigest()[:12]

    @cached_property
    def matcher(self) -> Matcher:
        return Matcher(
            (function.name, subscription)
            for function in self.functions.values()
            for subscription in function.subscriptions
        )

    @property
    def complete(self) -> bool:
        """Whether every declared function is here, if only as it last was. While it is not, an event that matches
        nothing may be for a function that cannot be read now."""
        return all(broken.kept for broken in self.broken)


def merge(previous: Catalog | None, loaded: LoadedFunctions) -> Catalog:
    """The next catalog: what was loaded, and the last good version of what is broken.

    A name that is declared twice stays with the file that had it before, else with the first file in order; the other
    declaration is broken. A refusal in a file keeps the function of that name from that file; when its name cannot
    be read, or is a new one, every function of the file that was not loaded again is kept.
    """
    before = previous.functions if previous is not None else {}
    functions, doubled = _unique(before, loaded.functions)
    broken = [*loaded.broken, *doubled]
    kept: dict[str, Function] = {}
    for index, one in enumerate(broken):
        mine = _last_good(one, broken, before, functions)
        kept.update(mine)
        broken[index] = replace(one, kept=bool(mine) or (one.name in kept and kept[one.name].file == one.file))
    return Catalog.of([*functions.values(), *kept.values()], broken)


def _unique(
    before: Mapping[str, Function], loaded: Iterable[Function]
) -> tuple[dict[str, Function], list[BrokenFunction]]:
    functions: dict[str, Function] = {}
    doubled = []
    for function in sorted(loaded, key=lambda one: (not _stands(one, before), one.file)):
        first = functions.setdefault(function.name, function)
        if first is not function:
            message = f"{function.file}: metadata.name: the name {function.name!r} is used already in {first.file}"
            doubled.append(BrokenFunction(function.file, message, function.name, None, "metadata.name"))
    return functions, doubled


def _stands(function: Function, before: Mapping[str, Function]) -> bool:
    return function.name in before and before[function.name].file == function.file


def _last_good(
    one: BrokenFunction,
    broken: Iterable[BrokenFunction],
    before: Mapping[str, Function],
    loaded: Mapping[str, Function],
) -> dict[str, Function]:
    of_file = {name: function for name, function in before.items() if function.file == one.file and name not in loaded}
    if one.name in of_file:
        return {one.name: of_file[one.name]} if one.name is not None else {}
    named = {other.name for other in broken if other.file == one.file}
    return {name: function for name, function in of_file.items() if name not in named}
