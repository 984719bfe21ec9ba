"""Fields that a schema declares secret, and payloads without their values. Pure.

A field is secret when its schema says `writeOnly: true`, `format: password` or `x-secret: true`. What may apply to a
place is taken to apply: every branch of `anyOf` and `if`, whether it fits or not, and a reference that cannot be
followed counts as secret. So a value may be hidden in vain, but none that is declared secret is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from invoker.schema import Schema, SchemaError
from invoker.schema_secrets import CONCEALED, is_declared_secret

MAX_DEPTH = 128
"""Levels of a value that are looked into; what lies deeper is hidden."""

_BRANCHES = ("allOf", "anyOf", "oneOf")
_INNER = ("if", "then", "else", "not")
_BY_NAME = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
_OF_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")
_OF_OTHERS = ("additionalProperties", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class _Place:
    """What applies to one place of a value."""

    schemas: tuple[dict[str, Any], ...]
    secret: bool


class SecretPlaces:
    """The places that one schema declares secret."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._parts = tuple(_dicts(schema))
        self._known: dict[tuple[int, ...], _Place] = {}
        self._patterns: dict[str, Schema | None] = {}
        self.any = any(is_declared_secret(part) or self._is_lost(part) for part in self._parts)
        """Whether there is any."""

    def without(self, value: Any) -> Any:
        """The JSON value with `•••` in every secret place; what is not secret stays as it is."""
        return self._without(value, (self._root,), 0) if self.any else value

    def _without(self, value: Any, schemas: tuple[Any, ...], depth: int) -> Any:
        place = self._place(schemas)
        if place.secret or depth > MAX_DEPTH:
            return CONCEALED
        if isinstance(value, dict):
            return {key: self._without(one, self._of_key(place, key), depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self._without(one, _of_index(place, index), depth + 1) for index, one in enumerate(value)]
        if isinstance(value, str) and any("contentSchema" in schema for schema in place.schemas):
            return CONCEALED  # a document in a text, with places of its own
        return value

    def _place(self, schemas: tuple[Any, ...]) -> _Place:
        key = tuple(sorted({id(schema) for schema in schemas}))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._reached(schemas)
        return found

    def _reached(self, schemas: Iterable[Any]) -> _Place:
        """The schemas and all that they refer to or are made of, for the same place."""
        reached: dict[int, dict[str, Any]] = {}
        waiting, lost = [schema for schema in schemas if isinstance(schema, dict)], False
        while waiting:
            schema = waiting.pop()
            if id(schema) in reached:
                continue
            reached[id(schema)] = schema
            lost = lost or self._is_lost(schema)
            waiting += [one for one in self._beside(schema) if isinstance(one, dict)]
        return _Place(tuple(reached.values()), lost or any(map(is_declared_secret, reached.values())))

    def _beside(self, schema: dict[str, Any]) -> Iterator[Any]:
        for name in _BRANCHES:
            yield from _listed(schema.get(name))
        for name in _INNER:
            yield schema.get(name)
        for name in _BY_NAME:
            yield from _named(schema.get(name)).values()
        for name in _REFERENCES:
            if isinstance(schema.get(name), str):
                yield from self._targets(schema[name])

    def _of_key(self, place: _Place, key: str) -> tuple[Any, ...]:
        found: list[Any] = []
        for schema in place.schemas:
            properties = _named(schema.get("properties"))
            if key in properties:
                found.append(properties[key])
            else:
                found += [schema[name] for name in _OF_OTHERS if name in schema]
            fitting = _named(schema.get("patternProperties")).items()
            found += [one for pattern, one in fitting if self._fits(pattern, key)]
        return tuple(found)

    def _fits(self, pattern: str, key: str) -> bool:
        """Whether the pattern fits, in the engine that checks inputs; one that it does not take fits everything."""
        if pattern not in self._patterns:
            try:
                self._patterns[pattern] = Schema({"pattern": pattern})
            except SchemaError:
                self._patterns[pattern] = None
        schema = self._patterns[pattern]
        return schema is None or not schema.problems(key)

    def _is_lost(self, schema: dict[str, Any]) -> bool:
        """Whether it refers to something that is not in the document."""
        return any(isinstance(schema.get(name), str) and not self._targets(schema[name]) for name in _REFERENCES)

    def _targets(self, reference: str) -> list[Any]:
        """Whatever the reference may mean: a document may hold several resources, each with an id of its own."""
        base, _, fragment = reference.partition("#")
        resources = [part for part in self._parts if part is self._root or isinstance(part.get("$id"), str)]
        if base:
            resources = [one for one in resources if _is_named(one, base)]
        if not fragment:
            return list(resources)
        if fragment.startswith("/"):
            return [found for one in resources for found in _pointed(one, unquote(fragment))]
        anchored = [part for part in self._parts if fragment in [part.get(name) for name in _ANCHORS]]
        return anchored + [part for part in self._parts if part.get("$id") == f"#{fragment}"]


@dataclass(frozen=True, slots=True)
class Veil:
    """What is kept from one reader of one payload: the secret places of these schemas, or everything when it is not
    known what is secret."""

    places: tuple[SecretPlaces, ...] = ()
    unknown: bool = False

    @property
    def hides(self) -> bool:
        """Whether there is anything that the reader is not to see; he gets no bytes then."""
        return self.unknown or any(one.any for one in self.places)

    def __or__(self, other: Veil) -> Veil:
        """What is hidden by either."""
        return Veil(self.places + other.places, self.unknown or other.unknown)

    def without(self, value: Any) -> Any:
        """The JSON value as the reader may see it."""
        for one in self.places:
            value = one.without(value)
        return CONCEALED if self.unknown else value


NO_VEIL = Veil()
UNKNOWN_VEIL = Veil(unknown=True)


def veil_of(schemas: Iterable[Any], *, unknown: bool = False) -> Veil:
    """The veil that these schemas make together; None stands for a payload without a schema."""
    return Veil(tuple(SecretPlaces(schema) for schema in schemas if schema is not None), unknown)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document, the document itself first."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is_named(schema: dict[str, Any], name: str) -> bool:
    own = str(schema.get("$id", "")).rstrip("#")
    return own == name or own.endswith(f"/{name}") or name.endswith(f"/{own}") or f"/{own}" == name


def _pointed(document: Any, pointer: str) -> list[Any]:
    """What the JSON pointer names, as a list of one; empty for nothing."""
    place = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and name in place:
            place = place[name]
        elif isinstance(place, list) and name.isdecimal() and int(name[:9]) < len(place):
            place = place[int(name[:9])]
        else:
            return []
    return [place]


def _of_index(place: _Place, index: int) -> tuple[Any, ...]:
    found: list[Any] = []
    for schema in place.schemas:
        for name in _OF_ITEMS:
            if not isinstance(schema.get(name), list):
                found.append(schema.get(name))
        for name in ("prefixItems", "items"):
            found += _listed(schema.get(name))[index : index + 1]
    return tuple(found)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
