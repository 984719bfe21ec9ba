"""Parameters of a request: read by their schema, defaulted, and refused when they are not declared or do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from invoker.errors import SchemaViolationError
from invoker.schema import Schema
from trigger.function import Function, Parameter, parameter_text, typed_value
from trigger.plan import Code


def function_with(*parameters: Parameter) -> Function:
    return Function(name="f", file="f/function.yaml", spec_hash="0" * 16, code=Code(), parameters=parameters)


def parameter(name: str, schema: dict[str, Any], **more: Any) -> Parameter:
    return Parameter(name, Schema(schema), **more)


LEVEL = parameter("level", {"type": "integer", "minimum": 1, "maximum": 9}, default=6)


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        ({"type": "integer"}, "7", 7),
        ({"type": "integer"}, "-7", -7),
        ({"type": "integer"}, "7.5", "7.5"),
        ({"type": "integer"}, "1_000", "1_000"),
        ({"type": "integer"}, " 7", " 7"),
        ({"type": "integer"}, "٣", "٣"),
        ({"type": "integer"}, "9" * 41, "9" * 41),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "number"}, ".5", 0.5),
        ({"type": "number"}, "7", 7),
        ({"type": "number"}, "nan", "nan"),
        ({"type": "number"}, "inf", "inf"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "false", False),
        ({"type": "boolean"}, "1", "1"),
        ({"type": "string"}, "7", "7"),
        ({}, "7", "7"),
        ({"enum": ["a"]}, "a", "a"),
        ({"type": ["integer", "string"]}, "7", 7),
        ({"type": ["integer", "string"]}, "x", "x"),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "object"}, "{", "{"),
        ({"type": "null"}, "null", None),
    ],
)
def test_text_is_read_by_the_schemas_type(schema: dict[str, Any], text: str, expected: object) -> None:
    value = typed_value(schema, text)
    assert value == expected
    assert type(value) is type(expected)


def test_given_values_are_typed_and_the_others_defaulted() -> None:
    function = function_with(LEVEL, parameter("fast", {"type": "boolean"}), parameter("name", {"type": "string"}))
    assert function.resolve_parameters({}) == {"level": 6}
    assert function.resolve_parameters({"fast": "true", "level": "3"}) == {"level": 3, "fast": True}


def test_names_are_compared_without_case_because_headers_are() -> None:
    assert function_with(LEVEL).resolve_parameters({"LEVEL": "3"}) == {"level": 3}


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({"levl": "3"}, "/params/levl", "f declares no parameter 'levl'; it has: level, must"),
        ({"must": "x", "level": "0"}, "/params/level", "0 is less than the minimum of 1"),
        ({"must": "x", "level": "high"}, "/params/level", '"high" is not of type "integer"'),
        ({}, "/params/must", "is required and was not given"),
    ],
)
def test_refusals_name_the_parameter(given: dict[str, str], pointer: str, detail: str) -> None:
    function = function_with(LEVEL, parameter("must", {"type": "string"}, required=True))
    with pytest.raises(SchemaViolationError) as refused:
        function.resolve_parameters(given)
    assert {"pointer": pointer, "detail": detail} in refused.value.fields["errors"]
    assert refused.value.message.isprintable()


def test_all_refusals_are_listed() -> None:
    function = function_with(LEVEL, parameter("must", {"type": "string"}, required=True))
    with pytest.raises(SchemaViolationError) as refused:
        function.resolve_parameters({"x": "1", "y": "2", "level": "99"})
    pointers = [problem["pointer"] for problem in refused.value.fields["errors"]]
    assert pointers == ["/params/x", "/params/y", "/params/level", "/params/must"]


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_nul_character_is_refused_since_no_environment_can_hold_it(text: str) -> None:
    with pytest.raises(SchemaViolationError, match="NUL"):
        function_with(parameter("name", {"type": "string"})).resolve_parameters({"name": text})


@pytest.mark.parametrize(
    ("value", "text"),
    [("a b", "a b"), (7, "7"), (1.5, "1.5"), (True, "true"), (None, "null"), ({"a": [1]}, '{"a":[1]}'), ("ü", "ü")],
)
def test_values_as_text(value: object, text: str) -> None:
    assert parameter_text(value) == text
