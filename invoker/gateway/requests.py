"""Requests over HTTP: how they stand, their input, their chain; cancel and replay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import (
    IdempotencyMismatchError,
    InputRefusedError,
    InvokerError,
    NotReadyError,
    PayloadTooLargeError,
    ServerUnreachableError,
    UnknownIdError,
    WaitExpiredError,
)
from invoker.gateway.acceptance import repeatable, without_topic
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.conditional import has_already, tag_of, tagged
from invoker.gateway.content import content_answer
from invoker.gateway.documents import Accepted, accepted
from invoker.gateway.door import caller_of, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.openapi_parts import BYTES, ORDER_BODY, REPLACING_BODY
from invoker.gateway.polling import Wait, seconds_to_wait, small_body, waited
from invoker.gateway.publish_call import read_call
from invoker.gateway.request_documents import (
    CancelledRuns,
    CancelOrder,
    ChainDetail,
    RequestDetail,
    chain_detail,
    request_detail,
)
from invoker.gateway.sight import Sight, needs_nats, unknown
from invoker.gateway.told_once import check_told_once
from invoker.request import RequestRecord
from invoker.views import Cancelled, ChainNode, Receipt, RequestView

MAX_ORDER_BYTES = 16 * 1024

Order = TypeVar("Order", bound=BaseModel)
Empty = Annotated[bool, Query(description="Replace the payload by nothing, for which a body cannot stand")]


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["requests"], dependencies=[needs_nats(gateway)])

    @routes.get("/v1/requests/{request_id}", response_model=RequestDetail)
    async def get_request(request_id: str, request: Request, wait: Wait = None) -> Response:
        """A request and its runs. With `wait` the answer comes once all have finished, or once anything differs from
        what `If-None-Match` names, or as it is when the time is over."""
        sight = Sight(gateway, caller_of(request))
        seconds = seconds_to_wait(gateway, request, wait)
        knows = "if-none-match" in request.headers

        def enough(view: RequestView) -> bool:
            return view.complete or (knows and not has_already(request, _tag(view)))

        async def unaccepted(view: RequestView) -> bool:
            """Whether it may still become a dead letter, which no watch tells; raises when it is one."""
            if view.record is not None or view.runs:
                return False
            try:
                await gateway.client.stored.refuse_dead(request_id)
            except UnknownIdError:
                await sight.request(request_id)  # raises it in the words that the caller may read
            except ServerUnreachableError:
                pass  # an outage is a pause, as it is for who waits
            return True

        async with gateway.client.feed.watch(wire.canonical_id(request_id)) as watch:
            view = await waited(request, watch, lambda: sight.request(request_id), enough, seconds, look=unaccepted)
        return tagged(request, request_detail(view))

    @routes.get("/v1/requests/{request_id}/chain", response_model=ChainDetail)
    async def get_chain(request_id: str, request: Request, wait: Wait = None) -> Response:
        """The chain that the request belongs to, as a tree; with `wait` once nothing more can come, or as it is when
        the time is over (`settled` says which)."""
        sight = Sight(gateway, caller_of(request))
        view = await sight.request(request_id)
        try:
            chain = await gateway.client.chain(view.request_id, wait=seconds_to_wait(gateway, request, wait))
        except WaitExpiredError as error:
            if error.partial is None:
                raise
            chain = error.partial
        node = visible_chain(sight, chain.root, view.request_id)
        if node is None:
            raise unknown("request", request_id)
        return tagged(request, chain_detail(node, settled=chain.settled))

    @routes.head("/v1/requests/{request_id}/input", include_in_schema=False)
    @routes.get("/v1/requests/{request_id}/input", response_class=Response, responses=BYTES)
    async def get_input(request_id: str, request: Request) -> Response:
        """The bytes of the event, whole or the part that `Range` asks for."""
        view = await Sight(gateway, caller_of(request)).request(request_id)
        record = accepted_record(view)
        return await content_answer(request, gateway, record.body, record.sha256, view.request_id)

    @routes.post("/v1/requests/{request_id}/cancel", response_model=CancelledRuns, openapi_extra=ORDER_BODY)
    async def cancel(request_id: str, request: Request) -> Response:
        """Cancel the unfinished runs of a request; finished ones keep their result. Safe to repeat."""
        sight = Sight(gateway, caller_of(request))
        whole = await sight.whole_request(request_id)
        order = await read_order(request, CancelOrder)
        return JsonResponse(_cancelled(await cancel_runs(sight, whole, order.function, order.message)))

    @routes.post(
        "/v1/requests/{request_id}/replay", status_code=202, response_model=Accepted, openapi_extra=REPLACING_BODY
    )
    async def replay(
        request_id: str,
        request: Request,
        function: Annotated[str | None, Query(max_length=63, description="Run only this function again")] = None,
        empty: Empty = False,
    ) -> Response:
        """Publish a request again, as a new one that names the original. A body replaces the payload; other query
        parameters and `Invoker-Param-…` headers replace parameters."""
        sight = Sight(gateway, caller_of(request))
        whole = await sight.whole_request(request_id)
        check_replay(sight, whole, function)
        return await replayed(sight, request, whole.request_id, whole.topic, function, empty=empty)

    return routes


def visible_chain(sight: Sight, root: ChainNode, asked: str) -> ChainNode | None:
    """The chain without what the caller may not see: what hangs below a hidden request hangs higher. From the first
    request on, or from the asked one when that is hidden. Pure."""
    shown = _shown(sight, root)
    if shown and shown[0].view.request_id == root.view.request_id:
        return shown[0]
    nodes = (node for top in shown for node in top)
    return next((node for node in nodes if node.view.request_id == asked), None)


def _shown(sight: Sight, node: ChainNode) -> tuple[ChainNode, ...]:
    below = tuple(shown for child in node.children for shown in _shown(sight, child))
    view = sight.part_of(node.view)
    return below if view is None else (ChainNode(view, node.parent_run_id, below),)


def check_replay(sight: Sight, whole: RequestView, function: str | None) -> None:
    """Raise unless the caller may publish the request again: whole, or for that function alone.

    `NotReadyError` before it is accepted, `UnknownIdError` for a function it has no run of, `ForbiddenError`.
    """
    accepted_record(whole)
    seen = sight.part_of(whole) or whole
    if function is None:
        sight.check_whole(Action.OPERATE, whole.topic, [run.function for run in whole.runs])
    elif seen.run(function) is None and seen.runs:
        raise unknown("run of the function", function)
    else:
        sight.check(Action.OPERATE, whole.topic, function)


def accepted_record(view: RequestView) -> RequestRecord:
    """The record of the request. Raises `NotReadyError` while there is none."""
    if view.record is None:
        raise NotReadyError(
            f"request {view.request_id} is not accepted yet (or its record has expired)",
            hint="GET /v1/requests/{id}?wait=30 answers once it is",
        )
    return view.record


async def replayed(
    sight: Sight, request: Request, given: str, topic: str, function: str | None, *, empty: bool
) -> Response:
    """Replay with what the call's body, query and headers replace; answers 202 with the new request."""
    gateway = sight.gateway
    rest = [(name, value) for name, value in request.query_params.multi_items() if name not in ("function", "empty")]
    call = read_call(request.headers.items(), urlencode(rest).encode(), gateway.settings.gateway_wait_seconds)
    body, content_type = await replacement(request, gateway.settings.max_event_bytes, empty=empty)
    receipt = await replay_of(
        sight, request, given, topic, function, data=body, content_type=content_type, params=call.params, key=call.key
    )
    return await new_request(sight, receipt.request_id, receipt.topic, duplicate=receipt.duplicate)


async def replay_of(
    sight: Sight,
    request: Request,
    given: str,
    topic: str,
    function: str | None,
    *,
    data: AsyncIterator[bytes] | bytes | None = None,
    content_type: str | None = None,
    params: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Receipt:
    """Publish a stored request again; with a `key` the same call twice is one request.

    Who replaces anything sends an event of his own, and must be allowed to. Raises `ForbiddenError`.
    """
    if data is not None or params:
        sight.check(Action.PUBLISH, topic, function)
    identifier = event_id(sight.caller, key)
    try:
        return await sight.gateway.client.replay(
            given,
            function=function,
            data=data,
            content_type=content_type,
            params=params,
            headers=passed_on(request),
            request_id=identifier.message_id,
        )
    except IdempotencyMismatchError as error:
        raise without_topic(request, error) from None
    except ServerUnreachableError as error:
        raise repeatable(error, identifier) from None


async def new_request(sight: Sight, request_id: str, topic: str, *, duplicate: bool = False) -> Response:
    """202 with what the caller may see of the request that was made: its event is stored, whatever goes wrong from
    here on."""
    unread = RequestView(request_id, topic, None)
    try:
        view = sight.part_of(await sight.gateway.client.stored.request(request_id)) or unread
    except InvokerError:
        view = unread
    headers = {"Location": f"/v1/requests/{request_id}"}
    return JsonResponse(accepted(view, duplicate=duplicate), 202, headers=headers)


async def replacement(
    request: Request, limit_bytes: int, *, empty: bool
) -> tuple[AsyncIterator[bytes] | bytes | None, str | None]:
    """The body that replaces a payload and its content type, None when there is none.

    That nothing is to replace it must be said: many clients give a content type to a body that they do not have.
    """
    parts = request.stream()
    async for part in parts:
        if part and empty:
            raise InputRefusedError("empty=true and a body exclude each other")
        if part:
            return _bounded(part, parts, limit_bytes), request.headers.get("content-type")
    return (b"" if empty else None), None


async def _bounded(first: bytes, rest: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    size = len(first)
    yield first
    async for part in rest:
        size += len(part)
        if size > limit_bytes:
            raise PayloadTooLargeError(
                f"the body is larger than {limit_bytes} bytes (INVOKER_MAX_EVENT_BYTES)", limit_bytes=limit_bytes
            )
        yield part


async def read_order(request: Request, kind: type[Order]) -> Order:
    """A small JSON document in the body, its defaults when there is none. Raises `InputRefusedError` field by field."""
    return parsed_document(await small_body(request, MAX_ORDER_BYTES) or b"{}", kind)


def parsed_document(data: bytes, kind: type[Order]) -> Order:
    """The document in that JSON; raises `InputRefusedError` field by field. Pure."""
    check_told_once(data)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        errors: list[dict[str, Any]] = [
            {"pointer": "/" + "/".join(str(part) for part in one["loc"]), "detail": one["msg"][:200]}
            for one in error.errors(include_input=False, include_url=False)[:20]
        ]
        raise InputRefusedError(f"the body: {errors[0]['pointer']}: {errors[0]['detail']}", errors=errors) from error


async def cancel_runs(sight: Sight, whole: RequestView, function: str | None, message: str | None) -> Cancelled:
    """Cancel the request's runs that the caller sees, or that of one function. Why one by one for some callers: what
    they cannot see is not theirs to cancel. Raises `NotReadyError`, `UnknownIdError` and `ForbiddenError`."""
    accepted_record(whole)
    seen = sight.part_of(whole) or whole
    if function is not None and seen.run(function) is None:
        raise unknown("run of the function", function)
    meant = [run for run in seen.runs if function in (None, run.function)]
    for run in meant:
        sight.check(Action.OPERATE, whole.topic, run.function)
    if not meant:
        sight.check(Action.OPERATE, whole.topic)
    if len(seen.runs) == len(whole.runs):
        return await sight.gateway.client.cancel(whole.request_id, function=function, message=message)
    done = [
        await sight.gateway.client.cancel(whole.request_id, function=run.function, message=message) for run in meant
    ]
    return Cancelled(
        cancelled=tuple(one for part in done for one in part.cancelled),
        already_finished=tuple(one for part in done for one in part.already_finished),
    )


def _cancelled(done: Cancelled) -> CancelledRuns:
    return CancelledRuns(cancelled=list(done.cancelled), already_finished=list(done.already_finished))


def _tag(view: RequestView) -> str:
    return tag_of(bytes(JsonResponse(request_detail(view)).body))
