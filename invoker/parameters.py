"""Parameters: what a caller may set for each request, read from text by their schemas. Pure.

Used where a run is planned, and at the doors that refuse before there is one, so that both say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invoker.schema import Problem, Schema, parse_json

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a caller may set per request. Without a default and not `required` it is simply absent when not given."""

    name: str
    schema: Schema = field(compare=False)
    default: object = None
    required: bool = False
    description: str = ""


def resolved(
    function: str, parameters: Iterable[Parameter], given: Mapping[str, str]
) -> tuple[dict[str, object], list[Problem]]:
    """The typed values of the given texts and of the defaults, and what is wrong: undeclared, missing, not fitting.

    Names are compared without case (they travel as headers).
    """
    declared = {parameter.name.lower(): parameter for parameter in parameters}
    texts = {name.lower(): text for name, text in given.items()}
    names = ", ".join(parameter.name for parameter in declared.values()) or "none"
    problems = [
        {"pointer": f"/params/{name}", "detail": f"{function} declares no parameter {name[:60]!a}; it has: {names}"}
        for name in given
        if name.lower() not in declared
    ]
    values: dict[str, object] = {}
    for key, parameter in declared.items():
        found, value = _parameter_value(parameter, texts.get(key), problems)
        if found:
            values[parameter.name] = value
    return values, problems


def _parameter_value(parameter: Parameter, text: str | None, problems: list[Problem]) -> tuple[bool, object]:
    pointer = f"/params/{parameter.name}"
    if text is None:
        if parameter.required:
            problems.append({"pointer": pointer, "detail": "is required and was not given"})
        return parameter.default is not None, parameter.default
    if "\0" in text:
        problems.append({"pointer": pointer, "detail": "has a NUL character, which no environment can hold"})
    value = typed_value(parameter.schema.document, text)
    problems.extend(
        {"pointer": pointer + problem["pointer"], "detail": problem["detail"]}
        for problem in parameter.schema.problems(value)
    )
    return True, value


def typed_value(schema: Mapping[str, Any], text: str) -> object:
    """The text read as the first type of the schema that it spells; the text itself when it spells none of them."""
    declared = schema.get("type", "string")
    for wanted in declared if isinstance(declared, list) else [declared]:
        if wanted == "integer" and _INTEGER.fullmatch(text):
            return int(text)
        if wanted == "number" and len(text) <= 400 and _NUMBER.fullmatch(text):
            return int(text) if _INTEGER.fullmatch(text) else float(text)
        if wanted == "boolean" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if wanted == "null" and text in ("", "null"):
            return None
        if wanted in ("array", "object"):
            try:
                return parse_json(text.encode())
            except ValueError:
                continue
    return text
