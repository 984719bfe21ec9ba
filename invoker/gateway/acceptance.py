"""From an event that a call brought to its answer: 202 with the list of its runs, or what the runs gave.

An answer of 202 is given from the moment the event is stored; nothing that goes wrong afterwards takes it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from invoker import wire
from invoker.ending import cancelled
from invoker.errors import IdempotencyMismatchError, InvokerError, PayloadTooLargeError, WaitExpiredError
from invoker.feed import Watch
from invoker.gateway import run_body
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.content import media_type
from invoker.gateway.documents import Accepted, accepted
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.publish_call import Wish
from invoker.gateway.publishing_documents import accepted_now, finished, request_url, waiting
from invoker.gateway.run_answers import StreamedBody
from invoker.lookup import canonical_id
from invoker.replies import Reply

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as a call brought it. `key` says which event it is; without one it is another one every time."""

    topic: str
    body: run_body.Body
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


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

    run_body.refuse_larger(request, limit, too_large)
    declared = run_body.declared_bytes(request)
    if declared is not None and declared <= hold and "transfer-encoding" not in request.headers:
        return run_body.Body(await request.body(), None)  # what most events are: no longer than they say, and small
    return await run_body.read_head(run_body.bounded(request, limit, too_large), hold)


async def answered(gateway: Gateway, request: Request, arrival: Arrival, wish: Wish) -> Response:
    """Publish the event and answer as the caller wishes. Raises the errors of `Client.publish` and `Client.request`."""
    try:
        if wish.wait is not None:
            return await _waited(gateway, request, arrival, wish)
        document = await accept(gateway, arrival, 0 if wish.respond_async else gateway.settings.gateway_accept_seconds)
        return _accepted_answer(document, wish)
    except IdempotencyMismatchError as error:
        raise without_topic(request, error) from None


async def accept(gateway: Gateway, arrival: Arrival, patience: float) -> Accepted:
    """When this returns the event is stored; for the list of its runs up to `patience` seconds are waited."""
    client = gateway.client
    request_id = canonical_id(arrival.key) if arrival.key else client.new_request_id()
    if patience <= 0:
        return await _published(gateway, arrival, request_id) or waiting(request_id, arrival.topic)
    async with client.feed.watch(request_id) as watch:
        known = await _published(gateway, arrival, request_id)
        return known or await _listed(gateway, watch, request_id, arrival.topic, patience)


async def _published(gateway: Gateway, arrival: Arrival, request_id: str) -> Accepted | None:
    """Publish the event; when it was there already, the request as it is now."""
    receipt = await gateway.client.publish(
        arrival.topic, arrival.body.data(), content_type=arrival.content_type, headers=arrival.headers,
        params=arrival.params, request_id=arrival.key or request_id, is_new=arrival.key is None,
    )  # fmt: skip
    return await _present(gateway, request_id, arrival.topic, duplicate=True) if receipt.duplicate else None


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
    """What the runs gave; 202 as without waiting when they are not done in time, for they go on."""
    request_id = canonical_id(arrival.key) if arrival.key else gateway.client.new_request_id()
    asking = gateway.client.request(
        arrival.topic, arrival.body.data(), timeout=wish.wait or 0.0, content_type=arrival.content_type,
        headers=arrival.headers, params=arrival.params, request_id=arrival.key or request_id,
        is_new=arrival.key is None,
    )  # fmt: skip
    try:
        # Only a body that is all there leaves the connection free to tell of a caller who has gone.
        replies = await (unless_gone(request, asking) if arrival.body.rest is None else asking)
    except WaitExpiredError:
        return _accepted_answer(await _present(gateway, request_id, arrival.topic), wish)
    answer = _one(replies[0]) if len(replies) == 1 else _several(request_id, arrival.topic, replies)
    answer.headers["Location"] = request_url(request_id)
    if wish.applied:
        answer.headers["Preference-Applied"] = wish.applied
    return answer


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled when the caller goes, who must have sent all of the body.

    Raises `ClientDisconnect` then.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        await cancelled(task, gone)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _one(reply: Reply) -> Response:
    """The run's own output, or its problem with the status of its reason."""
    headers = {
        wire.H_REQUEST_ID: reply.request_id,
        wire.H_RUN_ID: reply.run_id,
        wire.H_FUNCTION: reply.function,
        wire.H_STATE: str(reply.state),
        wire.H_REASON: str(reply.reason),
        wire.H_RUNS: "1",
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


def without_topic(request: Request, error: IdempotencyMismatchError) -> IdempotencyMismatchError:
    """The refusal, without the other request's topic for who may not read there."""
    topic = error.fields.get("topic")
    if topic is None or caller_of(request).may(Action.READ, topic=str(topic)):
        return error
    fields = {name: value for name, value in error.fields.items() if name != "topic"}
    return IdempotencyMismatchError(error.message, hint=error.hint, **fields)
