"""A form made from a JSON Schema: which fields it has, and the value that what was typed into them stands for. Pure.

Every property of an object becomes a field; what is no text, number or choice is typed as JSON. The form is a help and
no judge: whether a value fits is decided by the schema itself, on what the form gives back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from invoker.schema import Problem, parse_json
from invoker.schema_secrets import CONCEALED, is_declared_secret

MAX_FIELDS = 200
"""An object of more properties is written as a whole."""
MAX_CHOICES = 200
REQUIRED = "is required"
LONG_TEXT = 200
"""A text that may be longer than that is given several lines."""

Kind = Literal["text", "lines", "integer", "number", "choice", "json"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_OF_TEXT = frozenset({"minLength", "maxLength", "pattern", "format"})
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_FORMATS = {
    "date-time": "an instant, as 2026-03-01T12:00:00Z",
    "date": "a day, as 2026-03-01",
    "time": "a time of day, as 12:00:00Z",
    "email": "an e-mail address",
    "uri": "an address, as https://example.org/",
    "uuid": "a UUID",
}


@dataclass(frozen=True, slots=True)
class FormField:
    """One field. `choices` are pairs of what is sent and what is read; `initial` is what stands there at first. A
    `secret` one is not shown while it is typed, and has no initial text."""

    name: str
    kind: Kind
    required: bool = False
    secret: bool = False
    nullable: bool = False
    description: str = ""
    hint: str = ""
    initial: str = ""
    choices: tuple[tuple[str, str], ...] = ()


def fields_of(schema: Any) -> tuple[FormField, ...] | None:
    """The fields of an object with that schema; None when the schema is of anything else, or of too many fields."""
    whole = _resolved(schema, schema)
    properties = whole.get("properties")
    if not isinstance(properties, dict) or not properties or len(properties) > MAX_FIELDS:
        return None
    if "object" not in (_types(whole) or ["object"]):
        return None
    required = whole.get("required")
    names = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set()
    return tuple(field_of(name, _resolved(one, schema), required=name in names) for name, one in properties.items())


def field_of(name: str, schema: Any, *, required: bool = False, default: Any = None) -> FormField:
    """The field of one value. A `default` beside the schema is worth more than the one within."""
    one = schema if isinstance(schema, dict) else {}
    secret = is_declared_secret(one)
    choices = () if secret else _choices(one)
    kind: Kind = "choice" if choices else _kind(one)
    given = one.get("default") if default is None else default
    if given is None and len(choices) == 1 and required:
        initial = choices[0][0]
    else:
        initial = "" if given is None or secret or given == CONCEALED else _text(kind, given)
    return FormField(
        name,
        kind,
        required=required,
        secret=secret,
        nullable="null" in (_types(one) or ()),
        description=_words(one.get("description")) or _words(one.get("title")),
        hint=_hint(one),
        initial=initial,
        choices=choices,
    )


def parameter_field(name: str, schema: Any, *, required: bool, default: Any, description: str) -> FormField:
    """The field of a request's parameter, which travels as text: choices are sent as what they read."""
    field = field_of(name, schema, required=required, default=default)
    choices = tuple((words, words) for _, words in field.choices)
    initial = dict(field.choices).get(field.initial, field.initial)
    return replace(field, choices=choices, initial=initial, description=description or field.description)


def value_of(fields: Iterable[FormField], texts: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """The object that was typed, and what cannot be read, by field. An empty field is left out."""
    value: dict[str, Any] = {}
    problems: list[Problem] = []
    for field in fields:
        text = texts.get(field.name, "").replace("\r\n", "\n")
        if not text:
            if field.required and field.nullable:
                value[field.name] = None
            elif field.required:
                problems.append({"pointer": pointer_of(field.name), "detail": REQUIRED})
            continue
        try:
            value[field.name] = _read(field, text)
        except ValueError as error:
            problems.append({"pointer": pointer_of(field.name), "detail": str(error)})
    return value, problems


def texts_of(fields: Iterable[FormField], value: Any) -> dict[str, str] | None:
    """What would be typed for that value, which need not be complete; None when the fields cannot say it."""
    known = {field.name: field for field in fields}
    if not isinstance(value, dict) or not set(value) <= set(known):
        return None
    texts = {name: _text(known[name].kind, one) for name, one in value.items()}
    said, problems = value_of(known.values(), texts)
    wrong = [one for one in problems if one["detail"] != REQUIRED]
    return None if wrong or as_json(said) != as_json(value) else texts


def as_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, its members in order of their names when it is in one line."""
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=indent is None)


def pointer_of(name: str) -> str:
    """The JSON pointer of a member."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def field_at(pointer: str) -> str | None:
    """The member that a pointer leads into, None for the whole."""
    first = pointer.split("/", 2)[1:2]
    return first[0].replace("~1", "/").replace("~0", "~") if first else None


def _read(field: FormField, text: str) -> Any:
    """The value of a field's text. Raises `ValueError` with words about it."""
    if field.kind in ("text", "lines"):
        return text
    if field.kind == "integer":
        if not _INTEGER.fullmatch(text.strip()):
            raise ValueError("must be a whole number")
        return int(text)
    if field.kind == "number":
        return _number(text.strip())
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise ValueError(str(error)) from None


def _number(text: str) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    found = float(text) if len(text) <= 400 and _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(found):
        raise ValueError("must be a number")
    return found


def _text(kind: Kind, value: Any) -> str:
    """What stands in a field for that value."""
    if kind in ("text", "lines") and isinstance(value, str):
        return value
    return as_json(value, 2 if kind == "json" and isinstance(value, dict | list) else None)


def _kind(schema: dict[str, Any]) -> Kind:
    types = [one for one in _types(schema) or _guessed(schema) if one != "null"]
    if types == ["string"]:
        return "lines" if _is_long(schema) else "text"
    if types in (["integer"], ["number"]):
        return "integer" if types == ["integer"] else "number"
    return "json"


def _types(schema: dict[str, Any]) -> list[str] | None:
    declared = schema.get("type")
    if isinstance(declared, str):
        return [declared]
    return [str(one) for one in declared] if isinstance(declared, list) else None


def _guessed(schema: dict[str, Any]) -> list[str]:
    """The type that a schema speaks of without saying it."""
    of_text, of_numbers = bool(_OF_TEXT & schema.keys()), bool(_OF_NUMBERS & schema.keys())
    if of_text == of_numbers:
        return []
    return ["string"] if of_text else ["number"]


def _is_long(schema: dict[str, Any]) -> bool:
    longest, default = schema.get("maxLength"), schema.get("default")
    if is_declared_secret(schema):
        return False
    return (
        (isinstance(longest, int | float) and longest > LONG_TEXT)
        or (isinstance(default, str) and "\n" in default)
        or "contentMediaType" in schema
    )


def _choices(schema: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What may be chosen, as JSON, and how it reads."""
    if "const" in schema:
        given: Any = [schema["const"]]
    elif isinstance(schema.get("enum"), list):
        given = schema["enum"]
    elif [one for one in _types(schema) or () if one != "null"] == ["boolean"]:
        given = [True, False]
    else:
        return ()
    if len(given) > MAX_CHOICES or any(isinstance(one, dict | list) for one in given):
        return ()
    return tuple((as_json(one), one if isinstance(one, str) else as_json(one)) for one in given)


def _hint(schema: dict[str, Any]) -> str:
    """What the schema wants, in words."""
    said = [_FORMATS.get(str(schema.get("format")), "")]
    for name, words in (
        ("minimum", "at least {}"), ("exclusiveMinimum", "more than {}"), ("maximum", "at most {}"),
        ("exclusiveMaximum", "less than {}"), ("multipleOf", "a multiple of {}"), ("pattern", "fits {}"),
        ("minLength", "length at least {}"), ("maxLength", "length at most {}"),
    ):  # fmt: skip
        if isinstance(schema.get(name), int | float | str):
            said.append(words.format(schema[name])[:120])
    return ", ".join(one for one in said if one)


def _words(value: Any) -> str:
    return value[:1000] if isinstance(value, str) else ""


def _resolved(schema: Any, root: Any) -> dict[str, Any]:
    """The schema with what it refers to within the document; nothing where that cannot be followed."""
    found = schema if isinstance(schema, dict) else {}
    for _ in range(10):
        reference = found.get("$ref")
        if not (isinstance(reference, str) and reference.startswith("#")):
            return found
        target = _pointed(root, reference[1:])
        rest = {name: one for name, one in found.items() if name != "$ref"}
        found = {**target, **rest}
    return {}


def _pointed(root: Any, pointer: str) -> dict[str, Any]:
    place = root
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not (isinstance(place, dict) and name in place):
            return {}
        place = place[name]
    return place if isinstance(place, dict) else {}
