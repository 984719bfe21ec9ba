"""What a handler's annotations say, as JSON Schema. A process of its own: the handler's module is imported here.

`python -m invoker.cli.handler_models HANDLER CODE_DIR` writes `{"input": …, "output": …}`, null for what has no type,
or `{"error": …}`; what the module prints goes to standard error.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from invoker.runtime.handler import import_failure, load, parameters_of, typed_parameter
from invoker.runtime.note import AttemptFailedError

_UNTYPED = (bytes, bytearray, str, dict, list, type(None), Any, inspect.Signature.empty)
"""Annotations of a return value that say nothing about JSON."""


def models_of(handler: Callable[..., Any]) -> dict[str, Any]:
    """The schemas of the typed parameter and of the return value. Raises `ValueError` for what has no JSON Schema."""
    parameters = parameters_of(handler) or []
    place = typed_parameter(parameters)
    given = parameters[place].annotation if place is not None else None
    returned = _return_type(handler)
    return {
        "input": None if given is None else _schema(given, "validation"),
        "output": None if returned in _UNTYPED else _schema(returned, "serialization"),
    }


def _return_type(handler: Callable[..., Any]) -> Any:
    """The annotation of what is returned, looked up alone: other names may exist for type checkers only."""
    behind = inspect.unwrap(handler)
    annotation = getattr(behind, "__annotations__", {}).get("return", Any)
    alone = types.SimpleNamespace(__annotations__={"return": annotation})
    try:
        return typing.get_type_hints(alone, globalns=getattr(behind, "__globals__", {})).get("return", Any)
    except (NameError, TypeError):
        return Any


def _schema(kind: Any, mode: typing.Literal["validation", "serialization"]) -> dict[str, Any]:
    try:
        return TypeAdapter(kind).json_schema(mode=mode)
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{name} has no JSON Schema: {str(error).partition(chr(10))[0]}") from error


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        document = models_of(load(sys.argv[1], sys.argv[2]))
    except AttemptFailedError as error:
        document = {"error": str(error)}
    except ValueError as error:
        document = {"error": str(error)}
    except BaseException as error:  # whatever the module does when it is imported
        document = {"error": import_failure(error)}
    with answer:
        json.dump(document, answer)


if __name__ == "__main__":
    main()
