"""Functions over HTTP: what there is, what an event would run; pause, resume, reload."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ForbiddenError, InputRefusedError, ServerUnreachableError
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.answers import JsonResponse
from invoker.gateway.conditional import tagged
from invoker.gateway.documents import Answer
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.known_queries import known_queries
from invoker.gateway.openapi_parts import document_body
from invoker.gateway.polling import small_body
from invoker.gateway.requests import parsed_document
from invoker.gateway.sight import function_meant, unknown
from invoker.payload import check_headers
from invoker.views import CatalogInfo, Explanation, FunctionInfo, PauseInfo, ReloadInfo

MAX_EXPLAIN_BYTES = 512 * 1024
"""An event that is only explained travels inside of a NATS message, in base64."""


class FunctionList(Answer):
    """Every function of the catalog in use, broken ones included."""

    catalog: str
    engine: str
    items: list[FunctionInfo]
    next: str | None = Field(None, description="Always null: there is one page")
    problem: str | None = Field(None, description="Why this is an older list: no controller answers")


class ExplainOrder(Answer):
    """An event that may be made up. `data` is text as it is, or anything else as JSON."""

    topic: str = Field(max_length=255)
    content_type: str | None = Field(None, max_length=255)
    headers: dict[str, str] = Field(default_factory=dict)
    data: Any = None
    data_base64: str | None = None


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["functions"])

    @routes.get("/v1/functions", response_model=FunctionList, dependencies=[known_queries()])
    async def list_functions(request: Request) -> Response:
        """The functions as the controllers have them, with how many runs wait and run."""
        caller = caller_of(request)
        caller.check(Action.READ)
        catalog, problem = await catalog_now(gateway)
        items = [one for one in catalog.functions if caller.may(Action.READ, function=one.name)]
        document = FunctionList(catalog=catalog.catalog, engine=catalog.engine, items=items, problem=problem)
        return tagged(request, document)

    @routes.get("/v1/functions/{function}", response_model=FunctionInfo)
    async def get_function(function: str, request: Request) -> Response:
        """One function."""
        return tagged(request, await visible_function(gateway, caller_of(request), function))

    @routes.post("/v1/explain", response_model=Explanation, openapi_extra=document_body(ExplainOrder, required=True))
    async def explain(request: Request) -> Response:
        """Which functions an event would run, and the clause that decided for each subscription. Runs nothing."""
        caller = caller_of(request)
        caller.check(Action.READ)
        order = parsed_document(await small_body(request, 2 * MAX_EXPLAIN_BYTES), ExplainOrder)
        caller.check(Action.READ, topic=wire.check_topic(order.topic))
        check_headers(order.headers)
        explanation = await gateway.client.explain(
            order.topic, _event_data(order), content_type=order.content_type, headers=order.headers
        )
        return JsonResponse(seen_explanation(caller, explanation))

    @routes.post("/v1/functions/{function}/pause", response_model=PauseInfo)
    async def pause(function: str, request: Request) -> Response:
        """Keep the function's runs queued until it is resumed. Safe to repeat."""
        await check_operable(gateway, caller_of(request), function)
        return JsonResponse(PauseInfo(function=function, paused=await gateway.client.pause(function)))

    @routes.post("/v1/functions/{function}/resume", response_model=PauseInfo)
    async def resume(function: str, request: Request) -> Response:
        """Let the function's runs start again. Safe to repeat."""
        await check_operable(gateway, caller_of(request), function)
        return JsonResponse(PauseInfo(function=function, paused=await gateway.client.resume(function)))

    @routes.post("/v1/reload", response_model=ReloadInfo)
    async def reload(request: Request) -> Response:
        """Let the controller that answers read its catalog now."""
        caller_of(request).check(Action.ADMIN)
        loaded = await gateway.client.reload()
        await gateway.catalog.refresh()
        return JsonResponse(loaded)

    return routes


async def catalog_now(gateway: Gateway) -> tuple[CatalogInfo, str | None]:
    """The catalog as it is; while no controller answers the last one that was heard of, and why."""
    if not gateway.client.is_connected and gateway.catalog.present.catalog:
        return gateway.catalog.present, "NATS is away just now"
    try:
        return await gateway.client.functions(), None
    except ServerUnreachableError as error:
        if not gateway.catalog.present.catalog:
            raise
        return gateway.catalog.present, error.message


async def visible_function(gateway: Gateway, caller: Caller, name: str) -> FunctionInfo:
    """The function, when it is there and the caller may see it."""
    catalog, _ = await catalog_now(gateway)
    found = catalog.function(name) if caller.may(Action.READ, function=name) else None
    if found is None:
        raise unknown("function", name, function_meant(caller, catalog, name))
    return found


async def check_operable(gateway: Gateway, caller: Caller, name: str) -> None:
    """Raise `UnknownIdError` for a function that the caller does not see, `ForbiddenError` for one that he may not
    operate."""
    check_operates(caller, await visible_function(gateway, caller, name))


def operates(caller: Caller, function: FunctionInfo) -> bool:
    """Whether the caller may operate the function itself, not only its runs on some topics. Pure."""
    return not _beyond(caller, function)


def check_operates(caller: Caller, function: FunctionInfo) -> None:
    """Raise `ForbiddenError`, naming the topics that are missing, unless the caller may operate the function itself."""
    missing = _beyond(caller, function)
    if missing:
        raise ForbiddenError(
            f"{caller.name} may not operate {function.name} on all of its topics: {', '.join(missing)} is missing",
            hint=f"ask for a key with the scope 'operate {','.join(missing)} {function.name}'",
        )


def _beyond(caller: Caller, function: FunctionInfo) -> tuple[str, ...]:
    """The function's topics on which the caller may not operate it. One that only is called, or whose subscriptions are
    not known, is anybody's who may operate it on every topic."""
    topics = tuple(dict.fromkeys(one.topic for one in function.subscriptions)) or (">",)
    return caller.uncovered(Action.OPERATE, topics, function.name)


def _event_data(order: ExplainOrder) -> Any:
    """The made-up event's payload. Raises `InputRefusedError`."""
    data = order.data
    if order.data_base64 is not None:
        if data is not None:
            raise InputRefusedError("data and data_base64 exclude each other")
        try:
            data = base64.b64decode(order.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputRefusedError("data_base64 is no base64") from error
        if len(data) > MAX_EXPLAIN_BYTES:
            raise InputRefusedError(f"an event of more than {MAX_EXPLAIN_BYTES} bytes cannot be explained")
    return data


def seen_explanation(caller: Caller, explanation: Explanation) -> Explanation:
    """The part of an explanation that is about functions which the caller may see."""

    def seen(function: str) -> bool:
        return caller.may(Action.READ, function=function)

    return explanation.model_copy(
        update={
            "matched": tuple(one for one in explanation.matched if seen(one)),
            "subscriptions": tuple(one for one in explanation.subscriptions if seen(one.function)),
            "nearest": tuple(one for one in explanation.nearest if seen(one.function)),
        }
    )
