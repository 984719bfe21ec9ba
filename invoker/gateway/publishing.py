"""Publishing over HTTP: `POST /v1/topics/{topic}` takes bytes or CloudEvents, `POST /v1/events` CloudEvents.

Both are plain routes: they read the call themselves, and are described for OpenAPI in `operations.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ContentRefusedError, InputRefusedError, InvokerError, TopicError
from invoker.gateway import cloudevents
from invoker.gateway.acceptance import Arrival, accept, answered, body_of
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.cloudevents import CloudEvent
from invoker.gateway.door import audit, caller_of, count_as, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.publish_call import PublishCall, read_call
from invoker.gateway.publishing_documents import BatchAnswer, BatchItem
from invoker.gateway.run_body import Body

MAX_STRUCTURED_BYTES = 8 * 1024 * 1024
"""A structured event or a batch must be read as a whole; larger data travels in binary mode."""
BATCH_AT_ONCE = 16

_Act = Callable[[Gateway, Request], Awaitable[Response]]


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter()
    routes.add_route("/v1/topics/{topic}", _bound(gateway, _publish), methods=["POST"])
    routes.add_route("/v1/events", _bound(gateway, _events), methods=["POST"])
    return routes


def _bound(gateway: Gateway, act: _Act) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        return await act(gateway, request)

    return route


def open_topic(gateway: Gateway, topic: str) -> str:
    """The topic, when anybody may publish on it by its name. Raises `TopicError`."""
    if "\ufffd" in topic:
        raise TopicError("the topic is no percent-encoded UTF-8")
    wire.check_topic(topic)
    if gateway.client.names.is_reserved(topic):
        raise TopicError(
            f"topic {topic[:80]!a} is reserved: topics may not begin with {gateway.client.names.instance!r}",
            hint="call one function with POST /v1/functions/{name}/calls",
        )
    return topic


async def _publish(gateway: Gateway, request: Request) -> Response:
    topic = open_topic(gateway, request.path_params["topic"])
    caller_of(request).check(Action.PUBLISH, topic=topic)
    given = request.headers.items()
    call = read_call(given, request.scope["query_string"], gateway.settings.gateway_wait_seconds)
    by_name = dict(given)
    mode = cloudevents.mode_of(by_name)
    if mode is not None:
        return await _cloud_events(gateway, request, call, mode, topic)
    body = await body_of(request, gateway.settings.max_event_bytes)
    content_type = by_name.get("content-type")
    headers = {**call.headers, **passed_on(request)}
    arrival = Arrival(topic, event_id(caller_of(request), call.key), body, content_type, headers, call.params)
    return await answered(gateway, request, arrival, call.wish)


async def _events(gateway: Gateway, request: Request) -> Response:
    caller_of(request).check(Action.PUBLISH)
    mode = cloudevents.mode_of(request.headers)
    if mode is None:
        raise ContentRefusedError(
            "a CloudEvent is wanted here: it names its topic as its type",
            hint=f"send {cloudevents.STRUCTURED}, or ce- headers; bytes of any kind go to POST /v1/topics/{{topic}}",
        )
    call = read_call(request.headers.items(), request.scope["query_string"], gateway.settings.gateway_wait_seconds)
    return await _cloud_events(gateway, request, call, mode, None)


async def _cloud_events(
    gateway: Gateway, request: Request, call: PublishCall, mode: str, topic: str | None
) -> Response:
    """CloudEvents in one of their three forms; without `topic` each names its own."""
    limit = gateway.settings.max_event_bytes
    if mode == "binary":
        event = cloudevents.read_binary(request.headers.items())
        arrival = _arrival(gateway, request, call, event, topic)
        body = await body_of(request, limit)
        return await answered(gateway, request, replace(arrival, body=body), call.wish)
    limit = min(limit, MAX_STRUCTURED_BYTES)
    data = (await body_of(request, limit, hold=limit)).head
    if mode == "structured":
        event = cloudevents.read_structured(data)
        return await answered(gateway, request, _arrival(gateway, request, call, event, topic), call.wish)
    return await _batch(gateway, request, call, cloudevents.read_batch(data), topic)


def _arrival(gateway: Gateway, request: Request, call: PublishCall, event: CloudEvent, topic: str | None) -> Arrival:
    """The event of a CloudEvent. Raises `InputRefusedError` when its type is no topic, `ForbiddenError`."""
    if topic is None:
        topic = _topic_of(gateway, event)
        caller_of(request).check(Action.PUBLISH, topic=topic)
    headers = {**call.headers, **event.headers(), **passed_on(request)}
    identifier = event_id(caller_of(request), call.key or event.key)
    return Arrival(topic, identifier, Body(event.data or b"", None), event.content_type, headers, call.params)


def _topic_of(gateway: Gateway, event: CloudEvent) -> str:
    try:
        return open_topic(gateway, event.type)
    except TopicError as error:
        raise InputRefusedError(
            f"the CloudEvent's type is its topic here: {error.message}",
            hint="or name the topic yourself: POST /v1/topics/{topic}",
            attribute="type",
            errors=[{"pointer": "/type", "detail": error.message}],
        ) from None


async def _batch(
    gateway: Gateway,
    request: Request,
    call: PublishCall,
    events: list[CloudEvent | InvokerError],
    topic: str | None,
) -> Response:
    """Every event of a batch for itself, one item each; 207 when at least one was refused."""
    if call.key is not None:
        raise InputRefusedError("a batch has no Idempotency-Key: each of its events has an id of its own")
    if call.wish.wait is not None and not call.wish.preferred:
        raise InputRefusedError("a batch is not waited for; ask for each request by its url")
    count_as(request, len(events))
    turn = asyncio.Semaphore(BATCH_AT_ONCE)
    patience = 0.0 if call.wish.respond_async else gateway.settings.gateway_accept_seconds

    async def one(event: CloudEvent | InvokerError) -> BatchItem:
        if isinstance(event, InvokerError):
            return BatchItem(status=event.http_status, problem=event.problem())
        async with turn:
            try:
                document = await accept(gateway, _arrival(gateway, request, call, event, topic), patience)
            except InvokerError as error:
                return BatchItem(id=event.attributes["id"], status=error.http_status, problem=error.problem())
            return BatchItem(id=event.attributes["id"], status=202, accepted=document)

    items = await asyncio.gather(*(one(event) for event in events))
    audit(request, events=str(len(items)), refused=str(sum(item.accepted is None for item in items)))
    return JsonResponse(BatchAnswer(items=items), 202 if all(item.accepted for item in items) else 207)
