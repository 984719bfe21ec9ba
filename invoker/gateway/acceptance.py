"""From an event that a call brought to its answer: 202 with the list of its runs, or what the runs gave.

An answer of 202 is given from the moment the event is stored; nothing that goes wrong afterwards takes it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from invoker import wire
from invoker.ending import cancelled
from invoker.errors import (
    ForbiddenError,
    IdempotencyMismatchError,
    InvokerError,
    PayloadTooLargeError,
    ServerUnreachableError,
    UnknownIdError,
    WaitExpiredError,
)
from invoker.feed import Watch
from invoker.gateway import run_body
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.answers import JsonResponse
from invoker.gateway.bodies import may_hold
from invoker.gateway.content import media_type
from invoker.gateway.documents import Accepted, accepted
from invoker.gateway.door import caller_of, closing_of
from invoker.gateway.event_id import EventId
from invoker.gateway.gateway import Gateway
from invoker.gateway.publish_call import Wish
from invoker.gateway.publishing_documents import accepted_now, finished, request_url, waiting
from invoker.gateway.run_answers import StreamedBody
from invoker.gateway.sight import Sight
from invoker.replies import Reply

T = TypeVar("T")


class GatewayStoppingError(Exception):
    """The gateway stops while something is waited for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as a call brought it."""

    topic: str
    id: EventId
    body: run_body.Body
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


async def body_of(request: Request, limit: int, hold: int = wire.CLAIM_THRESHOLD_BYTES) -> run_body.Body:
    """The call's body, up to `hold` bytes of it in hand. Raises `PayloadTooLargeError` above `limit`, now or while the
    rest is read."""

    def too_large(size: int) -> InvokerError:
        exactly = run_body.declared_bytes(request) == size
        return PayloadTooLargeError(
            f"the event has {'' if exactly else 'at least '}{size} bytes, at most {limit} are allowed "
            "(INVOKER_MAX_EVENT_BYTES)",
            size_bytes=size,
            limit_bytes=limit,
        )

    may_hold(request, hold)
    run_body.refuse_larger(request, limit, too_large)
    declared = run_body.declared_bytes(request)
    if declared is not None and declared <= hold and "transfer-encoding" not in request.headers:
        return run_body.Body(await request.body(), None)  # what most events are: no longer than they say, and small
    return await run_body.read_head(run_body.bounded(request, limit, too_large), hold)


async def answered(gateway: Gateway, request: Request, arrival: Arrival, wish: Wish) -> Response:
    """Publish the event and answer as the caller wishes. Raises the errors of `Client.publish` and `Client.request`."""
    if wish.wait is not None and not Sight(gateway, caller_of(request)).may(Action.READ, arrival.topic):
        if not wish.preferred:
            raise _unreadable(gateway, caller_of(request), arrival.topic)
        wish = Wish()  # a preference that cannot be honoured is none
    try:
        if wish.wait is not None:
            return await _waited(gateway, request, arrival, wish)
        document = await accept(gateway, arrival, 0 if wish.respond_async else gateway.settings.gateway_accept_seconds)
        return _accepted_answer(document, wish)
    except IdempotencyMismatchError as error:
        raise without_topic(request, error) from None
    except ServerUnreachableError as error:
        raise repeatable(error, arrival.id) from None


def _unreadable(gateway: Gateway, caller: Caller, topic: str) -> ForbiddenError:
    """Said before anything is stored: who asks for an answer and cannot have it shall not find out afterwards."""
    called = gateway.client.names.function_of_direct_topic(topic)
    may = f"publish on {topic}" if called is None else f"call {called}"
    return ForbiddenError(
        f"{caller.name} may {may} and not read what comes of it, so it cannot be waited for",
        hint="leave wait out, or ask for a key that may read as well",
    )


async def accept(gateway: Gateway, arrival: Arrival, patience: float) -> Accepted:
    """When this returns the event is stored; for the list of its runs up to `patience` seconds are waited."""
    request_id = arrival.id.request_id
    if patience <= 0:
        return await _published(gateway, arrival) or waiting(request_id, arrival.topic)
    async with gateway.client.feed.watch(request_id) as watch:
        known = await _published(gateway, arrival)
        return known or await _listed(gateway, watch, request_id, arrival.topic, patience)


async def _published(gateway: Gateway, arrival: Arrival) -> Accepted | None:
    """Publish the event; when it was there already, the request as it is now."""
    receipt = await gateway.client.publish(
        arrival.topic, arrival.body.data(), content_type=arrival.content_type, headers=arrival.headers,
        params=arrival.params, request_id=arrival.id.message_id, is_new=arrival.id.is_new,
    )  # fmt: skip
    if not receipt.duplicate:
        return None
    return await _present(gateway, arrival.id.request_id, arrival.topic, duplicate=True)


async def _listed(gateway: Gateway, watch: Watch, request_id: str, topic: str, patience: float) -> Accepted:
    try:
        async with asyncio.timeout(patience):
            item = await watch.next()
    except TimeoutError:
        return waiting(request_id, topic)
    if item.functions is None:
        return await _present(gateway, request_id, topic)
    return accepted_now(item, topic)


async def _present(gateway: Gateway, request_id: str, topic: str, *, duplicate: bool = False) -> Accepted:
    """The request as it is now. Its event is stored, so an outage here is no reason to answer with an error."""
    try:
        return accepted(await gateway.client.result(request_id), duplicate=duplicate)
    except InvokerError:
        return waiting(request_id, topic).model_copy(update={"duplicate": duplicate})


def _accepted_answer(document: Accepted, wish: Wish) -> Response:
    headers = {"Location": document.url}
    if wish.applied:
        headers["Preference-Applied"] = wish.applied
    return JsonResponse(document, 202, headers=headers)


async def _waited(gateway: Gateway, request: Request, arrival: Arrival, wish: Wish) -> Response:
    """What the runs gave that the caller may read; 202 as without waiting when they are not done in time, for they go
    on."""
    request_id = arrival.id.request_id
    asking = gateway.client.request(
        arrival.topic, arrival.body.data(), timeout=wish.wait or 0.0, content_type=arrival.content_type,
        headers=arrival.headers, params=arrival.params, request_id=arrival.id.message_id, is_new=arrival.id.is_new,
    )  # fmt: skip
    try:
        # Only a body that is all there leaves the connection free to tell of a caller who has gone.
        replies = await (unless_gone(request, asking) if arrival.body.rest is None else asking)
    except WaitExpiredError:
        return _accepted_answer(await _present(gateway, request_id, arrival.topic), wish)
    except GatewayStoppingError:
        # Only what is there may be called accepted: the event may not have been stored when the waiting ended.
        return _accepted_answer(await _stored(gateway, request_id), wish)
    seen = await _readable(Sight(gateway, caller_of(request)), arrival, replies)
    if not seen:
        return _accepted_answer(await _present(gateway, request_id, arrival.topic), wish)
    answer = _one(seen[0]) if len(seen) == 1 else _several(request_id, arrival.topic, seen)
    answer.headers["Location"] = request_url(request_id)
    if wish.applied:
        answer.headers["Preference-Applied"] = wish.applied
    return answer


async def _stored(gateway: Gateway, request_id: str) -> Accepted:
    """The request as it is now. Raises `ServerUnreachableError` when nothing is known of it."""
    try:
        return accepted(await gateway.client.result(request_id), duplicate=False)
    except InvokerError as error:
        words = "the gateway stops, and it is not known whether the event was stored"
        raise ServerUnreachableError(words, request_id=request_id) from error


async def _readable(sight: Sight, arrival: Arrival, replies: list[Reply]) -> list[Reply]:
    """The replies of the runs that the caller may read. One that was handed on is of another request, and its topic."""
    if sight.caller.sees_everything():
        return replies
    topics = {arrival.id.request_id: arrival.topic}
    for other in {reply.request_id for reply in replies} - set(topics):
        with suppress(UnknownIdError):
            topics[other] = (await sight.gateway.requests(other)).topic
    return [
        reply
        for reply in replies
        if reply.request_id in topics and sight.may(Action.READ, topics[reply.request_id], reply.function)
    ]


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled when the caller goes, who must have sent all of the body, or the gateway
    stops.

    Raises `ClientDisconnect` or `GatewayStoppingError` then.
    """
    task, gone, closing = asyncio.create_task(work), asyncio.create_task(_gone(request)), closing_of(request.scope)
    try:
        first: set[asyncio.Future[Any]] = {task, gone, closing}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise GatewayStoppingError
    finally:
        await cancelled(task, gone)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


_TIMES = (wire.H_QUEUED_AT, wire.H_STARTED_AT, wire.H_FINISHED_AT)


def _one(reply: Reply) -> Response:
    """The run's own output, or its problem with the status of its reason."""
    headers = {
        wire.H_REQUEST_ID: reply.request_id,
        wire.H_RUN_ID: reply.run_id,
        wire.H_FUNCTION: reply.function,
        wire.H_STATE: str(reply.state),
        wire.H_REASON: str(reply.reason),
        wire.H_RUNS: "1",
        **{name: value for name in _TIMES if (value := wire.header(reply.headers, name))},
    }
    if not reply.succeeded:
        document = dict(reply.problem or {"status": 502, "code": str(reply.reason)})
        return Response(
            to_json(document), int(document.get("status", 502)), headers, media_type=wire.CONTENT_TYPE_PROBLEM
        )
    headers["Content-Type"] = media_type(reply.content.content_type)
    # A browser that is led here shows what a function made: it must not run it as a page of this origin.
    headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    data = reply.content.inline_bytes()
    if data is not None:
        return Response(data, headers=headers)
    headers["Content-Length"] = str(reply.content.size_bytes)
    return StreamedBody(run_body.held_back(reply.open()), headers=headers)


def _several(request_id: str, topic: str, replies: list[Reply]) -> Response:
    document = finished(request_id, topic, replies)
    return JsonResponse(document, 200 if document.succeeded else 207)


def repeatable(error: ServerUnreachableError, identifier: EventId) -> ServerUnreachableError:
    """The error with the key to send the event again with: nobody knows whether it is stored, and so it is stored
    once."""
    error.fields["idempotency_key"] = identifier.key
    return error


def without_topic(request: Request, error: IdempotencyMismatchError) -> IdempotencyMismatchError:
    """The refusal, without the other request's topic for who may not read there."""
    topic = error.fields.get("topic")
    if topic is None or caller_of(request).may(Action.READ, topic=str(topic)):
        return error
    fields = {name: value for name, value in error.fields.items() if name != "topic"}
    return IdempotencyMismatchError(error.message, hint=error.hint, **fields)
