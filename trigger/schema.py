"""JSON Schema of inputs, outputs and parameters: compiled once, checked in microseconds, never on the network.

Pure. Remote references are refused when the schema is compiled (a function's file must not make the controller fetch
addresses), and patterns run on a linear-time engine (29 characters can stall a backtracking one for half a minute).
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

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
            return [_problem(error) for error, _ in zip(self._validator.iter_errors(value), range(MAX_ERRORS))]  # noqa: B905 -- the shorter one ends it
        except (ValueError, RecursionError) as error:
            return [{"pointer": "", "detail": f"cannot be checked: {error}"[:MAX_DETAIL_CHARACTERS]}]

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
    if not data:
        raise ValueError("is empty where JSON is wanted")
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("is JSON nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"is not JSON: no UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"is not JSON: {name} is no JSON number")


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
    except jsonschema_rs.ReferencingError as error:
        raise SchemaError(f"references outside of the schema are refused: {error}"[:MAX_DETAIL_CHARACTERS]) from error
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise SchemaError(f"not a JSON Schema: {_first_line(error)}"[:MAX_DETAIL_CHARACTERS]) from error


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched; only references within the schema ('#/…') are")


def _problem(error: jsonschema_rs.ValidationError) -> Problem:
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
    return {"pointer": pointer, "detail": _shortened(error.message)}


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).splitlines()[0] if str(error) else type(error).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARACTERS else f"{text[: MAX_DETAIL_CHARACTERS - 1]}…"
