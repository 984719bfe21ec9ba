"""Dead letters over HTTP: events that could not become runs; their bytes, and sending them again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from invoker.errors import IdempotencyMismatchError, InputRefusedError, ServerUnreachableError, UnknownIdError
from invoker.gateway.acceptance import repeatable, without_topic
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.conditional import tagged
from invoker.gateway.content import content_answer, sha256_of
from invoker.gateway.documents import Accepted, Answer
from invoker.gateway.door import caller_of, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.known_queries import known_queries
from invoker.gateway.openapi_parts import BYTES, REPLACING_BODY
from invoker.gateway.publish_call import read_call
from invoker.gateway.requests import Empty, new_request, replacement
from invoker.gateway.runs import MAX_LIMIT, next_link
from invoker.gateway.sight import Sight, needs_nats, unknown
from invoker.views import DeadLetter

_READ_AT_ONCE = 50
MAX_READINGS = 20
"""Readings for one page: who may see next to nothing is given a short page, and its cursor."""


class DeadLetterPage(Answer):
    """A page of dead letters, newest first, without their bytes."""

    items: list[DeadLetter]
    next: str | None = Field(None, description="The cursor of the next page; null on the last one")


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["dead letters"], dependencies=[needs_nats(gateway)])

    @routes.get("/v1/dead-letters", response_model=DeadLetterPage, dependencies=[known_queries()])
    async def list_dead_letters(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
    ) -> Response:
        """Dead letters, newest first."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        letters, looked_to = await visible_letters(sight, limit + 1, letter_cursor(cursor))
        last = letters[limit - 1][0] if len(letters) > limit else looked_to
        following = str(last) if last is not None else None
        page = DeadLetterPage(items=[letter for _, letter in letters[:limit]], next=following)
        return JsonResponse(page, headers=next_link(request, following))

    @routes.get("/v1/dead-letters/{dead_id}", response_model=DeadLetter)
    async def get_dead_letter(dead_id: str, request: Request) -> Response:
        """One dead letter: what was wrong, where it came from, and its bytes when they are few."""
        return tagged(request, await visible_letter(Sight(gateway, caller_of(request)), dead_id))

    @routes.head("/v1/dead-letters/{dead_id}/body", include_in_schema=False)
    @routes.get("/v1/dead-letters/{dead_id}/body", response_class=Response, responses=BYTES)
    async def get_body(dead_id: str, request: Request) -> Response:
        """The bytes of the event, whole or the part that `Range` asks for."""
        letter = await visible_letter(Sight(gateway, caller_of(request)), dead_id)
        return await content_answer(request, gateway, letter.body, sha256_of(letter.body), letter.id)

    @routes.post(
        "/v1/dead-letters/{dead_id}/redrive", status_code=202, response_model=Accepted, openapi_extra=REPLACING_BODY
    )
    async def redrive(dead_id: str, request: Request, empty: Empty = False) -> Response:
        """Publish the event again, as a new request that names the old one. Safe to repeat; a body, which
        replaces the payload, makes another request each time, save under the same `Idempotency-Key`. A key of its own
        makes another request of the unchanged event, too: once, however often it is sent."""
        sight = Sight(gateway, caller_of(request))
        letter = await visible_letter(sight, dead_id)
        sight.check_whole(Action.OPERATE, letter.topic, ())
        body, content_type = await replacement(request, gateway.settings.max_event_bytes, empty=empty)
        key = read_call(request.headers.items(), b"", gateway.settings.gateway_wait_seconds).key
        request_id = await redriven(sight, request, letter, body, content_type, key)
        return await new_request(sight, request_id, letter.topic)

    return routes


async def redriven(
    sight: Sight,
    request: Request,
    letter: DeadLetter,
    body: AsyncIterator[bytes] | bytes | None,
    content_type: str | None,
    key: str | None,
) -> str:
    """Publish the letter's event again, with that body in place of its own unless that is None; the new request's id.

    Raises `ForbiddenError`, and the errors of `Client.redrive`.
    """
    sight.check_whole(Action.OPERATE, letter.topic, ())
    if body is not None:
        sight.check(Action.PUBLISH, letter.topic)
    identifier = event_id(sight.caller, key)
    # As it is and without a key it has the id that every repetition makes of the letter, whoever asks.
    own = identifier.message_id if key is not None or body is not None else None
    try:
        return await sight.gateway.client.redrive(
            letter.id, data=body, content_type=content_type, headers=passed_on(request), request_id=own
        )
    except IdempotencyMismatchError as error:
        raise without_topic(request, error) from None
    except ServerUnreachableError as error:
        raise repeatable(error, identifier) if own is not None else error from None


async def visible_letter(sight: Sight, dead_id: str) -> DeadLetter:
    """The letter, when it is there and the caller may see it. Raises `UnknownIdError`."""
    try:
        letter = await sight.gateway.client.stored.dead_letter(dead_id)
    except UnknownIdError as error:
        raise unknown("dead letter", dead_id) from error
    if not sight.may(Action.READ, letter.topic):
        raise unknown("dead letter", dead_id)
    return letter


async def visible_letters(
    sight: Sight,
    limit: int,
    before: int | None,
    *,
    wanted: Callable[[DeadLetter], bool] = lambda _: True,
    readings: int = MAX_READINGS,
) -> tuple[list[tuple[int, DeadLetter]], int | None]:
    """So many wanted letters that the caller may see, with their places; with a place when the page ends there because
    so many others were looked at."""
    found: list[tuple[int, DeadLetter]] = []
    for _ in range(readings):
        part = await sight.gateway.client.stored.dead_letters(_READ_AT_ONCE, before)
        found += [(place, letter) for place, letter in part if sight.may(Action.READ, letter.topic) and wanted(letter)]
        if len(found) >= limit or len(part) < _READ_AT_ONCE:
            return found[:limit], None
        before = part[-1][0]
    return found, before


def letter_cursor(cursor: str | None) -> int | None:
    """The place that a cursor names. Raises `InputRefusedError`. Pure."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 18:
        raise InputRefusedError(f"{cursor[:40]!a} is not a cursor of a list of dead letters")
    return int(cursor)
