"""The paths that the OpenAPI document leaves to pages of their own, described here: gitfaas' and the run API. Generated
calls, of which none may end in 5xx or be answered otherwise."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import schemathesis

from invoker.client import Client
from invoker.gateway.run_address import RunAddress, run_token
from tests.conftest import eventually
from tests.gateway.generated_calls import CHECKS, DOCUMENTED, call_all, never_succeeded, real_values
from tests.gateway.stack import RUN_TOKEN_KEY, Stack, running_gateway


@pytest.mark.timeout(300)
async def test_no_generated_call_of_gitfaas_or_of_the_run_api_is_answered_otherwise(
    stack: Stack, sdk: Client, record_property: Callable[[str, object], None]
) -> None:
    real = await real_values(stack, sdk)
    *runs, answered = [await _unfinished(sdk) for _ in range(len(RUN_API) + 1)]
    documents = [(_document({path: item}), CHECKS) for path, item in RUN_API.items()]
    documents.append((_document(GITFAAS), DOCUMENTED))
    real |= {"request_uid": real["request_id"], "function_uid": f"{answered.path_token()}.{_token(answered)}"}
    calls: Counter[tuple[str, int]] = Counter()
    failures: list[str] = []
    async with running_gateway(stack.server.url, gateway_gitfaas=True, gateway_accept_seconds=1.0) as up:
        for run, (document, checks) in zip([*runs, answered], documents, strict=True):
            # A run of its own for each path: an output ends one.
            real |= {"address": run.path_token(), "authorization": f"Bearer {_token(run)}"}
            schema = schemathesis.openapi.from_dict(document)
            failures += await asyncio.to_thread(call_all, schema, up.url, real, calls, checks)
    silent = never_succeeded(calls, record_property)
    assert not failures, "\n\n".join(failures)
    assert not silent, "every operation was seen to succeed, too"
    for run in (*runs, answered):
        await sdk.cancel(run.request_id)


async def _unfinished(sdk: Client) -> RunAddress:
    """A run of `gate`, which nobody lets through."""
    run = RunAddress((await sdk.publish("gate.x", b"x")).request_id, "gate")

    async def there() -> bool:
        return await sdk.stored.run_of_id(run.run_id) is not None

    await eventually(there, what="an unfinished run")
    return run


def _token(run: RunAddress) -> str:
    return run_token(RUN_TOKEN_KEY.encode(), run)


def _document(paths: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI document of these paths, with the parameters that they name."""
    whole = {}
    for path, item in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        whole[path] = {method: {"parameters": parameters, **operation} for method, operation in item.items()}
    return {"openapi": "3.1.0", "info": {"title": "the other doors", "version": "1"}, "paths": whole}


def _takes(status: int, answer: Mapping[str, Any] | None, *kinds: str) -> dict[str, Any]:
    """An operation with bodies of these kinds; refusals are problems."""
    content = {"application/json": {"schema": answer}} if answer is not None else {}
    problem = {"application/problem+json": {"schema": {"type": "object", "required": ["status", "code", "detail"]}}}
    operation: dict[str, Any] = {
        "responses": {
            str(status): {"description": "", "content": content},
            "4XX": {"description": "", "content": problem},
        }
    }
    if kinds:
        operation["requestBody"] = {"content": {kind: {"schema": {}} for kind in kinds}}
    return operation


def _gitfaas(status: int, answer: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    """The same with refusals in gitfaas' words."""
    operation = _takes(status, answer, *kinds)
    refusal = {"type": "object", "required": ["error", "message"], "properties": {"error": {"const": True}}}
    operation["responses"]["4XX"]["content"]["application/json"] = {"schema": refusal}
    return operation


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


BOOLEAN, TEXT, LIST = {"type": "boolean"}, {"type": "string"}, {"type": "array"}
GITFAAS = {
    "/publish/{topic}": {
        "post": _gitfaas(202, _object(error=BOOLEAN, requestUid=TEXT, applies=LIST), "text/plain", "application/json")
    },
    "/response/{request_uid}": {"get": _gitfaas(200, _object(error=BOOLEAN, responses=LIST))},
    "/response/{function_uid}": {"post": _gitfaas(200, _object(error=BOOLEAN, message=TEXT), "text/plain")},
    "/refresh": {"get": _gitfaas(200, _object(error=BOOLEAN, message=TEXT))},
}
_SEALED = _object(run_id=TEXT, request_id=TEXT)
RUN_API = {
    "/v1/run/{address}/input": {"get": _takes(200, None)},
    "/v1/run/{address}/output": {"put": _takes(201, _SEALED, "text/plain", "application/json")},
    "/v1/run/{address}/events": {"post": _takes(201, _object(request_id=TEXT, topic=TEXT), "text/plain")},
    "/v1/run/{address}/progress": {"post": _takes(204, None, "application/json")},
    "/v1/run/{address}/error": {"post": _takes(204, None, "application/json")},
}
