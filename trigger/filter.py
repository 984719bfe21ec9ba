"""Filters of subscriptions: the CloudEvents subscription dialects exact, prefix, suffix, all, any and not.

Pure. A filter is compiled once (`compile_filter`) and asked for every event whose topic fits. Attributes are topic, id,
type, source, content-type, size-bytes; any other name is a header, whatever its case. An attribute that an event does
not have fits nothing: `exact`, `prefix` and `suffix` are false, `not` of them is true.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invoker import wire
from invoker.request import Event

MAX_DEPTH = 10
MAX_CLAUSES = 256
DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not")

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}")
_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


@dataclass(frozen=True, slots=True)
class EventAttributes:
    """What of an event a filter may look at. `get` finds built-in attributes first, then headers in any case."""

    topic: str
    id: str = ""
    type: str | None = None
    source: str | None = None
    content_type: str | None = None
    size_bytes: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Event) -> EventAttributes:
        """The attributes of a decoded event; type and source are the CloudEvents headers `ce-type` and `ce-source`."""
        return cls(
            topic=event.topic,
            id=event.request_id,
            type=wire.header(event.headers, "ce-type"),
            source=wire.header(event.headers, "ce-source"),
            content_type=event.content.content_type,
            size_bytes=event.content.size_bytes,
            headers=event.headers,
        )

    def get(self, name: str) -> str | None:
        """The attribute of that lower-case name as text, or None when the event does not have it."""
        match name:
            case "topic":
                return self.topic
            case "id":
                return self.id
            case "type":
                return self.type
            case "source":
                return self.source
            case "content-type":
                return self.content_type
            case "size-bytes":
                return str(self.size_bytes)
            case _:
                return wire.header(self.headers, name)


class FilterError(Exception):
    """The filter document cannot be used. `path` leads from the filter to the place."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


@dataclass(frozen=True, slots=True)
class FilterVerdict:
    """Whether the filter fits, and the clause that decided: where it stands (`all[1].prefix.type`) and what it saw."""

    matched: bool
    clause: str
    detail: str


class Filter(ABC):
    """One compiled clause. Equal documents behave alike; filters never raise."""

    __slots__ = ()

    clause: str
    """Where the clause stands in its filter: `all[1].prefix.type`."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The whole clause as people read it: `topic ends in '.gz' and not (type is 'draft')`."""

    @abstractmethod
    def matches(self, attributes: EventAttributes) -> bool:
        """Whether the event fits."""

    @abstractmethod
    def explain(self, attributes: EventAttributes) -> FilterVerdict:
        """`matches`, with the clause that decided."""


@dataclass(frozen=True, slots=True)
class _Text(Filter):
    clause: str
    dialect: str
    attribute: str
    wanted: str

    @property
    def words(self) -> str:
        verb = {"exact": "is", "prefix": "begins with", "suffix": "ends in"}[self.dialect]
        return f"{self.attribute} {verb} {_shown(self.wanted)}"

    def matches(self, attributes: EventAttributes) -> bool:
        value = attributes.get(self.attribute)
        return value is not None and _TEXT_TESTS[self.dialect](value, self.wanted)

    def explain(self, attributes: EventAttributes) -> FilterVerdict:
        value = attributes.get(self.attribute)
        seen = f"the event has no {self.attribute}" if value is None else f"{self.attribute} is {_shown(value)}"
        wish = {"exact": "exactly", "prefix": "beginning with", "suffix": "ending in"}[self.dialect]
        return FilterVerdict(self.matches(attributes), self.clause, f"{seen}, wanted {wish} {_shown(self.wanted)}")


@dataclass(frozen=True, slots=True)
class _All(Filter):
    clause: str
    parts: tuple[Filter, ...]

    @property
    def words(self) -> str:
        return " and ".join(_grouped(part) for part in self.parts)

    def matches(self, attributes: EventAttributes) -> bool:
        return all(part.matches(attributes) for part in self.parts)

    def explain(self, attributes: EventAttributes) -> FilterVerdict:
        verdicts = [part.explain(attributes) for part in self.parts]
        refused = next((verdict for verdict in verdicts if not verdict.matched), None)
        if refused is not None:
            return refused
        return verdicts[0] if len(verdicts) == 1 else FilterVerdict(True, self.clause, f"all {len(verdicts)} fit")


@dataclass(frozen=True, slots=True)
class _Any(Filter):
    clause: str
    parts: tuple[Filter, ...]

    @property
    def words(self) -> str:
        return " or ".join(_grouped(part) for part in self.parts)

    def matches(self, attributes: EventAttributes) -> bool:
        return any(part.matches(attributes) for part in self.parts)

    def explain(self, attributes: EventAttributes) -> FilterVerdict:
        verdicts = [part.explain(attributes) for part in self.parts]
        fitting = next((verdict for verdict in verdicts if verdict.matched), None)
        if fitting is not None:
            return fitting
        if len(verdicts) == 1:
            return verdicts[0]
        details = "; ".join(verdict.detail for verdict in verdicts[:3])
        return FilterVerdict(False, self.clause, f"none of {len(verdicts)} fits: {details}")


@dataclass(frozen=True, slots=True)
class _Not(Filter):
    clause: str
    part: Filter

    @property
    def words(self) -> str:
        return f"not ({self.part.words})"

    def matches(self, attributes: EventAttributes) -> bool:
        return not self.part.matches(attributes)

    def explain(self, attributes: EventAttributes) -> FilterVerdict:
        inner = self.part.explain(attributes)
        return FilterVerdict(not inner.matched, self.clause, f"the opposite of: {inner.detail}")


def compile_filter(document: Any) -> Filter:
    """The filter of a parsed document such as `{suffix: {topic: .gz}}`. Raises `FilterError` naming the place."""
    return _Compiler().compile(document, (), 0)


class _Compiler:
    """Counts clauses while compiling, since a document of a few bytes per clause may hold very many."""

    def __init__(self) -> None:
        self._clauses = 0

    def compile(self, document: Any, path: tuple[str | int, ...], depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(f"filters nest at most {MAX_DEPTH} levels deep", path)
        if not isinstance(document, dict) or not document:
            raise FilterError(f"a filter is a mapping with one of {', '.join(DIALECTS)}", path)
        if len(document) > 1:
            raise FilterError(f"one dialect per filter, not {', '.join(map(str, document))}; combine with 'all'", path)
        [(dialect, body)] = document.items()
        place = (*path, dialect)
        if dialect in _TEXT_TESTS:
            return self._texts(dialect, body, place)
        if dialect in ("all", "any"):
            return self._group(dialect, body, place, depth)
        if dialect == "not":
            return _Not(_named(place), self.compile(body, place, depth + 1))
        raise FilterError(f"unknown filter dialect {str(dialect)[:40]!r}; known are {', '.join(DIALECTS)}", place)

    def _texts(self, dialect: str, body: Any, path: tuple[str | int, ...]) -> Filter:
        if not isinstance(body, dict) or not body:
            raise FilterError(f"'{dialect}' wants a mapping of attribute to text", path)
        parts = tuple(self._text(dialect, str(name), wanted, (*path, str(name))) for name, wanted in body.items())
        return parts[0] if len(parts) == 1 else _All(_named(path), parts)

    def _text(self, dialect: str, name: str, wanted: Any, path: tuple[str | int, ...]) -> Filter:
        self._count(path)
        if not _HEADER_NAME.fullmatch(name):
            raise FilterError(f"{name[:40]!a} is no attribute and no legal header name", path)
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            wanted = str(wanted)
        if not isinstance(wanted, str) or (not wanted and dialect != "exact"):
            raise FilterError(f"'{dialect}' compares with text that is not empty; put the value in quotes", path)
        return _Text(_named(path), dialect, name.lower(), wanted)

    def _group(self, dialect: str, body: Any, path: tuple[str | int, ...], depth: int) -> Filter:
        if not isinstance(body, list) or not body:
            raise FilterError(f"'{dialect}' wants a list of filters that is not empty", path)
        parts = tuple(self.compile(part, (*path, index), depth + 1) for index, part in enumerate(body))
        return _All(_named(path), parts) if dialect == "all" else _Any(_named(path), parts)

    def _count(self, path: tuple[str | int, ...]) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise FilterError(f"a filter has at most {MAX_CLAUSES} clauses", path)


def _grouped(part: Filter) -> str:
    return f"({part.words})" if isinstance(part, _All | _Any) and len(part.parts) > 1 else part.words


def _named(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
