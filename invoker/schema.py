"""JSON Schema of inputs, outputs and parameters: compiled once, checked in microseconds, never on the network.

Pure. Remote references are refused when the schema is compiled (a function's file must not make the controller fetch
addresses), and patterns run on a linear-time engine (29 characters can stall a backtracking one for half a minute).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import jsonschema_rs
from pydantic_core import from_json

MAX_ERRORS = 20
MAX_DETAIL_CHARACTERS = 300

Problem = dict[str, str]
"""One place that does not fit: `pointer` (RFC 6901) and `detail`."""


class SchemaError(Exception):
    """The schema itself cannot be used; the text says why."""


class Schema:
    """A compiled schema. `problems` is total: whatever the value, it answers and never raises."""

    __slots__ = ("_validator", "document")

    def __init__(self, document: Any) -> None:
        """Raises `SchemaError` when the document is no JSON Schema, or refers to something outside of itself."""
        self.document = document
        self._validator = _compile(document)

    def problems(self, value: Any) -> list[Problem]:
        """Where the value does not fit, at most 20 places; empty when it fits."""
        try:
            if self._validator.is_valid(value):
                return []
            errors = islice(self._validator.iter_errors(value), MAX_ERRORS)
            return [problem for error in errors for problem in self._problems(error)][:MAX_ERRORS]
        except (ValueError, RecursionError) as error:
            return [{"pointer": "", "detail": f"cannot be checked: {error}"[:MAX_DETAIL_CHARACTERS]}]

    def _problems(self, error: jsonschema_rs.ValidationError) -> list[Problem]:
        if not isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            return [{"pointer": _pointer(error.instance_path), "detail": _shortened(error.message)}]
        known = self._properties(error.schema_path[:-1])
        return [
            {"pointer": _pointer([*error.instance_path, name]), "detail": _unknown_field(name, known)}
            for name in error.kind.unexpected
        ]

    def _properties(self, path: list[str | int]) -> list[str]:
        """The properties that a place of the schema names; none when the way there leads over a reference."""
        place: Any = self.document
        for part in path:
            try:
                place = place[part]
            except (KeyError, IndexError, TypeError):
                return []
        properties = place.get("properties") if isinstance(place, dict) else None
        return list(properties) if isinstance(properties, dict) else []

    def problems_of_bytes(self, data: bytes, content_type: str | None = None) -> list[Problem]:
        """The same for bytes that ought to be JSON (or, declared as `text/…`, text)."""
        try:
            value = parse_json(data)
        except ValueError as error:
            text = _as_text(data, content_type)
            if text is None:
                return [{"pointer": "", "detail": str(error)}]
            value = text
        return self.problems(value)


def parse_json(data: bytes) -> Any:
    """The JSON value of the bytes. Raises `ValueError` with a sentence; NaN and Infinity are no JSON."""
    if not data.strip():
        raise ValueError("is empty where JSON is wanted")
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error


def _as_text(data: bytes, content_type: str | None) -> str | None:
    if not (content_type or "").lower().startswith("text/"):
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _compile(document: Any) -> jsonschema_rs.Validator:
    if not isinstance(document, dict | bool):
        raise SchemaError("a JSON Schema is an object")
    try:
        return jsonschema_rs.validator_for(
            document,
            validate_formats=True,
            retriever=_refuse_reference,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise SchemaError(_shortened(_said(error))) from error


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched; only references within the schema ('#/…') are")


def _pointer(path: Iterable[str | int]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _unknown_field(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return _shortened(f"unknown field; did you mean {near[0]!r}?" if near else "unknown field")


def _said(error: Exception) -> str:
    text = str(getattr(error, "message", error)).partition("\n")[0]
    if "registry" in text and text.startswith("Resource "):
        return f"the reference {text.split()[1]} is refused: only references within the schema ('#/…') are allowed"
    if text.endswith('is not a "regex"'):
        return f"{text}, or needs look-around or too much memory; patterns run in linear time"
    return f"not a JSON Schema: {text}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARACTERS else f"{text[: MAX_DETAIL_CHARACTERS - 1]}…"
