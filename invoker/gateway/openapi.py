"""`GET /openapi.json`: OpenAPI 3.1 of the routes and of every function, with its own path and its own schemas.

Made from the catalog as it is: the document changes when the catalog does, and its entity tag with it. A caller is told
the functions that he may call or read, and no others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from invoker.gateway import operations
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.answers import JsonResponse
from invoker.gateway.conditional import PRIVATE, has_already, not_modified, tag_of
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.version import __version__
from invoker.views import FunctionInfo, ParameterInfo

PATH = "/openapi.json"
KEPT_DOCUMENTS = 16
_DATA_KEYS = frozenset({"const", "enum", "default", "example", "examples"})
"""Keywords whose value is data: what looks like a reference there is none."""
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_VALIDATION_SCHEMAS = ("HTTPValidationError", "ValidationError")


def router(gateway: Gateway) -> APIRouter:
    """The route of this document."""
    routes = APIRouter()
    kept: OrderedDict[tuple[Any, ...], tuple[str, bytes]] = OrderedDict()
    """By what the caller may and by the catalog: an entity tag and the document."""

    async def openapi(request: Request) -> Response:
        caller = caller_of(request)
        key = (caller.grants, gateway.catalog.present.catalog, _versions(gateway.catalog.present.functions))
        if key not in kept:
            document = openapi_document(request.app.routes, visible(gateway.catalog.present.functions, caller))
            data = bytes(JsonResponse(document).body)
            kept[key] = (tag_of(data), data)
            while len(kept) > KEPT_DOCUMENTS:
                kept.popitem(last=False)
        tag, data = kept[key]
        if has_already(request, tag):
            return not_modified(tag)
        return Response(data, headers={"ETag": tag, "Cache-Control": PRIVATE}, media_type="application/json")

    routes.add_route(PATH, openapi, methods=["GET"])
    return routes


def _versions(functions: Iterable[FunctionInfo]) -> tuple[Any, ...]:
    return tuple((one.name, one.status, one.spec_hash) for one in functions)


def visible(functions: Iterable[FunctionInfo], caller: Caller) -> list[FunctionInfo]:
    """The functions that can run and that the caller may call or read."""
    return [
        one
        for one in functions
        if one.status != "broken"
        and (caller.may(Action.PUBLISH, function=one.name) or caller.may(Action.READ, function=one.name))
    ]


def openapi_document(routes: Iterable[BaseRoute], functions: Iterable[FunctionInfo] = ()) -> dict[str, Any]:
    """The document of these routes, and of a call of each of these functions. Pure."""
    document = get_openapi(
        title="Invoker",
        version=__version__,
        summary="Publish events, call functions, poll and operate",
        routes=list(routes),
    )
    paths: dict[str, Any] = {path: _with_problems(item) for path, item in document.get("paths", {}).items()}
    parts: dict[str, dict[str, Any]] = document.get("components", {})
    for kind, named in operations.components().items():
        parts[kind] = {**named, **parts.get(kind, {})}
    for name in _VALIDATION_SCHEMAS:
        parts["schemas"].pop(name, None)
    for path, item in operations.publishing_paths().items():
        paths.setdefault(path, {}).update(item)
    for function in functions:
        schemas, operation = function_call(function)
        parts["schemas"].update(schemas)
        paths[f"/v1/functions/{function.name}/calls"] = {"post": operation}
    paths[PATH] = {"get": _own_operation()}
    return {
        **document,
        "components": parts,
        "paths": dict(sorted(paths.items())),
        "security": [{"bearer": []}, {"key": []}, {}],
    }


def _with_problems(item: dict[str, Any]) -> dict[str, Any]:
    """The operations of a path, whose refusals are problem documents; FastAPI's own 422 never goes out."""
    for operation in item.values():
        if isinstance(operation, dict) and "responses" in operation:
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            for status in ("4XX", "5XX"):
                responses.setdefault(status, {"$ref": "#/components/responses/problem"})
            for status, answer in responses.items():
                if status[:1] in "45" and "content" not in answer and "$ref" not in answer:
                    answer["content"] = operations.RESPONSES["problem"]["content"]
    return item


def function_call(function: FunctionInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schemas of a function, to stand among the components, and the operation that refers to them. Pure."""
    schemas: dict[str, Any] = {}

    def placed(schema: Any, kind: str) -> dict[str, Any]:
        name = f"function.{function.name}.{kind}"
        schemas[name] = relocated(schema, operations.SCHEMAS + name)
        return {"$ref": operations.SCHEMAS + name}

    body: dict[str, Any] = {"required": False, "content": operations.ANY_BYTES}
    if function.input_schema is not None:
        body = {"required": True, "content": {"application/json": {"schema": placed(function.input_schema, "input")}}}
    output = placed(function.output_schema, "output") if function.output_schema is not None else None
    parameters = [_parameter(one, placed(one.schema_, f"parameter.{one.name}")) for one in function.parameters]
    return schemas, operations.call_operation(
        function.name, function.description, function.labels, body, parameters, output
    )


def _parameter(one: ParameterInfo, schema: dict[str, Any]) -> dict[str, Any]:
    """In the query; a name that is taken there travels as a header."""
    taken = one.name == "wait"
    found: dict[str, Any] = {
        "name": f"Invoker-Param-{one.name}" if taken else one.name,
        "in": "header" if taken else "query",
        "required": one.required and one.default is None,
        "schema": schema,
    }
    if one.description:
        found["description"] = one.description
    return found


def relocated(schema: Any, at: str) -> Any:
    """The schema with its references within itself pointing to where it now stands. Pure.

    A schema with an `$id` is a resource of its own, wherever it stands: it stays as it is.
    """
    if isinstance(schema, list):
        return [relocated(one, at) for one in schema]
    if not isinstance(schema, dict) or "$id" in schema:
        return {} if schema is None else schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            found[key] = at + value[1:]
        elif key in _DATA_KEYS:
            found[key] = value
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            found[key] = {name: relocated(one, at) for name, one in value.items()}
        elif isinstance(value, dict | list):
            found[key] = relocated(value, at)
        else:
            found[key] = value
    return found


def _own_operation() -> dict[str, Any]:
    return {
        "operationId": "openapi",
        "tags": ["about"],
        "summary": "This document",
        "responses": {
            "200": {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}},
            "304": {"description": "The caller has it"},
            "4XX": {"$ref": "#/components/responses/problem"},
            "5XX": {"$ref": "#/components/responses/problem"},
        },
    }
