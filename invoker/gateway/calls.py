"""Calling one function by its name: `POST /v1/functions/{name}/calls`, whatever its subscriptions say.

The input and the parameters are checked at the door, field by field, before there is any run. The check is made with
the gateway's copy of the catalog; what it lets through is checked once more by the controller that starts the run.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import SchemaViolationError, TopicError, UnknownIdError
from invoker.gateway.acceptance import Arrival, answered, body_of
from invoker.gateway.access.scopes import Action
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.door import caller_of, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.publish_call import PublishCall, read_call
from invoker.gateway.run_body import Body
from invoker.gateway.sight import function_meant

MAX_CHECKED_BYTES = 16 * 1024 * 1024
"""The controllers' own limit for an input that has a schema."""
_THREAD_ABOVE_BYTES = 256 * 1024


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter()

    async def call(request: Request) -> Response:
        name = await known_function(gateway.catalog, request.path_params["name"], request)
        asked = read_call(request.headers.items(), request.scope["query_string"], gateway.settings.gateway_wait_seconds)
        content_type = request.headers.get("content-type")
        body = await _body(gateway, request, name)
        await _check(gateway.catalog, name, body, content_type, asked)
        headers = {**asked.headers, **passed_on(request)}
        topic = gateway.client.names.direct_topic(name)
        arrival = Arrival(topic, event_id(caller_of(request), asked.key), body, content_type, headers, asked.params)
        return await answered(gateway, request, arrival, asked.wish)

    routes.add_route("/v1/functions/{name}/calls", call, methods=["POST"])
    return routes


async def known_function(catalog: CatalogCopy, name: str, request: Request) -> str:
    """The name of a function that the caller may call. Raises `ForbiddenError`, or `UnknownIdError` when there is none
    that could run."""
    try:
        wire.check_function_name(name)
    except TopicError:
        raise _unknown(name, catalog, request) from None
    caller_of(request).check(Action.PUBLISH, function=name)
    found = catalog.function(name)
    if found is None or found.status == "broken":
        await catalog.renewed()  # it may have come, or been mended, since the copy was made
        found = catalog.function(name)
    if found is None and catalog.problem is None:
        raise _unknown(name, catalog, request)
    if found is not None and found.status == "broken":
        raise UnknownIdError(f"the function {name!r} cannot run: its file is refused", function=name)
    return name  # also while no controller answers: they decide when they are back


def _unknown(name: str, catalog: CatalogCopy, request: Request) -> UnknownIdError:
    meant = function_meant(caller_of(request), catalog.present, name)
    return UnknownIdError(f"there is no function {name[:80]!a}", hint=f"{meant}GET /v1/functions lists them")


async def _body(gateway: Gateway, request: Request, name: str) -> Body:
    limit = gateway.settings.max_event_bytes
    if not gateway.catalog.has_input_schema(name):
        return await body_of(request, limit)
    body = await body_of(request, limit, hold=min(limit, MAX_CHECKED_BYTES))
    if body.rest is not None:
        raise SchemaViolationError(
            f"the input has more than {MAX_CHECKED_BYTES} bytes; a function with a schema takes at most so many",
            limit_bytes=MAX_CHECKED_BYTES,
            errors=[{"pointer": "", "detail": f"more than {MAX_CHECKED_BYTES} bytes"}],
        )
    return body


async def _check(catalog: CatalogCopy, name: str, body: Body, content_type: str | None, call: PublishCall) -> None:
    """Raise `SchemaViolationError` when input or parameters do not fit the function as it is now."""
    problems = await _problems(catalog, name, body.head, content_type, call)
    if problems:
        await catalog.renewed()  # the function may have changed since the copy was made
        problems = await _problems(catalog, name, body.head, content_type, call)
    if problems:
        words = "; ".join(f"{one['pointer'] or '(the whole)'}: {one['detail']}" for one in problems[:3])
        raise SchemaViolationError(f"the call does not fit {name}: {words}"[:600], function=name, errors=problems[:20])


async def _problems(
    catalog: CatalogCopy, name: str, data: bytes, content_type: str | None, call: PublishCall
) -> list[dict[str, str]]:
    found = catalog.parameter_problems(name, call.params)
    if not catalog.has_input_schema(name):
        return found
    if len(data) <= _THREAD_ABOVE_BYTES:
        return found + catalog.input_problems(name, data, content_type)
    return found + await asyncio.to_thread(catalog.input_problems, name, data, content_type)
