"""The OpenAPI document: valid, whole, of the catalog as it is and of what the caller may see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import aiohttp
import jsonschema_rs
from schemathesis.specs.openapi.definitions import OPENAPI_31

from invoker.gateway.access.scopes import Action, Caller, Grant
from invoker.gateway.dashboard.paths import is_ours
from invoker.gateway.openapi import relocated, visible
from invoker.gateway.routes import routers
from tests.custody.workload import function, put_function
from tests.gateway.stack import ORDER_SCHEMA, Stack, running_stack, session, standard_catalog

# The published schema leaves the schemas within (`$dynamicRef: #meta`) to the dialect: JSON Schema 2020-12.
DOCUMENT = jsonschema_rs.Draft202012Validator(OPENAPI_31)


async def document_of(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/openapi.json") as answer:
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def at(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[int(part) if isinstance(document, list) else part.replace("~1", "/").replace("~0", "~")]
    return document


async def test_the_document_is_valid_and_whole(http: aiohttp.ClientSession) -> None:
    document = await document_of(http)
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in DOCUMENT.iter_errors(document)] == []
    found = list(references(document))
    assert len(found) > 50
    for reference in found:
        assert at(document, reference) is not None
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.validator_for(schema | {"components": document["components"]}), name
    identifiers = [
        operation["operationId"] for item in document["paths"].values() for operation in item.values()
    ]  # fmt: skip
    assert len(set(identifiers)) == len(identifiers)
    assert "HTTPValidationError" not in json.dumps(document)


UNTOLD = {"HEAD", "OPTIONS"}
"""Methods that go with others."""


def is_for_browsers(path: str) -> bool:
    return path == "/" or is_ours(path)


async def test_every_route_is_told_and_nothing_else(http: aiohttp.ClientSession, stack: Stack) -> None:
    """Those of gitfaas are on a page of their own, and so are the run API and the dashboard: docs/gitfaas.md,
    docs/wire.md, docs/dashboard.md."""
    document = await document_of(http)
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routes = {
        (method, str(getattr(route, "path", "")))
        for router in routers(stack.gateway)
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
        if method not in UNTOLD and not is_for_browsers(str(getattr(route, "path", "")))
    }
    calls = {("POST", f"/v1/functions/{one.name}/calls") for one in stack.gateway.catalog.present.functions}
    assert len(routes) > 25
    assert len(calls) == len(standard_catalog(stack.gates))
    assert told == routes | calls


async def test_what_can_be_sent_once_says_how(http: aiohttp.ClientSession) -> None:
    document = await document_of(http)
    paths = [path for path in document["paths"] if path.endswith(("/replay", "/redrive", "/calls", "/{topic}"))]
    assert len(paths) > 5
    for path in paths:
        parameters = document["paths"][path]["post"]["parameters"]
        names = {one.get("name") or at(document, one["$ref"])["name"] for one in parameters}
        assert "Idempotency-Key" in names, path


async def test_a_function_is_told_with_its_own_schemas(http: aiohttp.ClientSession) -> None:
    document = await document_of(http)
    call = document["paths"]["/v1/functions/order/calls"]["post"]
    assert (call["summary"], call["x-labels"]) == ("Takes an order", {"team": "sales"})
    schema = at(document, call["requestBody"]["content"]["application/json"]["schema"]["$ref"])
    assert schema["required"] == ORDER_SCHEMA["required"]
    item = schema["properties"]["items"]["items"]["$ref"]
    assert at(document, item) == ORDER_SCHEMA["$defs"]["item"]
    level = next(one for one in call["parameters"] if one.get("name") == "level")
    assert (level["in"], at(document, level["schema"]["$ref"])["maximum"]) == ("query", 9)
    plain = document["paths"]["/v1/functions/echo/calls"]["post"]
    assert list(plain["requestBody"]["content"]) == ["*/*"]


async def test_the_document_changes_when_the_catalog_does_and_only_then(tmp_path: Path) -> None:
    async with running_stack(tmp_path, functions=[function("one", "x", "true")]) as stack, session(stack.url) as http:

        async def tag_now() -> str:
            """Of the document as the catalog is now."""
            await stack.client.reload()
            await stack.gateway.catalog.refresh()
            async with http.get("/openapi.json") as answer:
                return str(answer.headers["ETag"])

        first = await tag_now()
        assert await tag_now() == first, "a catalog that is read again is no other one"
        async with http.get("/openapi.json", headers={"If-None-Match": first}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        put_function(stack.catalog, function("two", "y", "true"))
        assert (second := await tag_now()) != first
        async with http.get("/openapi.json", headers={"If-None-Match": first}) as answer:
            assert (answer.status, answer.headers["ETag"]) == (200, second)
            assert "/v1/functions/two/calls" in (await answer.json())["paths"]
        (stack.catalog / "two" / "function.yaml").write_text("kind: [")
        assert await tag_now() == second, "the last good version of a function stays, and so does what is told of it"
        put_function(stack.catalog, function("two", "elsewhere", "true"))
        assert await tag_now() == second, "what its callers do not see is not told"
        put_function(stack.catalog, function("two", "y", "true", description="The second"))
        assert await tag_now() not in (first, second)
        rmtree(stack.catalog / "two")
        assert await tag_now() == first


async def test_functions_are_told_to_who_may_use_them(stack: Stack) -> None:
    functions = stack.gateway.catalog.present.functions
    some = Caller("a", "key", (Grant(frozenset({Action.PUBLISH}), functions=("pair-*",)),))
    assert [one.name for one in visible(functions, some)] == ["pair-a", "pair-b"]
    assert visible(functions, Caller("b", "key", ())) == []


def test_references_move_with_their_schema_and_data_stays() -> None:
    schema = {
        "$defs": {"a": {"type": "object", "properties": {"$ref": {"type": "string"}, "self": {"$ref": "#"}}}},
        "properties": {"const": {"$ref": "#/$defs/a"}, "b": {"const": {"$ref": "#/$defs/a"}}},
        "items": [{"$ref": "#/$defs/a"}, True],
        "own": {"$id": "x", "$ref": "#/y"},
    }
    assert relocated(schema, "#/c") == {
        "$defs": {"a": {"type": "object", "properties": {"$ref": {"type": "string"}, "self": {"$ref": "#/c"}}}},
        "properties": {"const": {"$ref": "#/c/$defs/a"}, "b": {"const": {"$ref": "#/$defs/a"}}},
        "items": [{"$ref": "#/c/$defs/a"}, True],
        "own": {"$id": "x", "$ref": "#/y"},
    }
