"""What an event would run, for a form and for a request that was there: asked of the controllers, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from invoker import wire
from invoker.errors import ForbiddenError, InvokerError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.topics_view import Verdicts, header_lines, parsed_headers, verdicts
from invoker.gateway.functions import MAX_EXPLAIN_BYTES, seen_explanation
from invoker.gateway.requests import accepted_record
from invoker.gateway.sight import Sight
from invoker.payload import check_headers
from invoker.request import Content

MAX_TYPED = 4_000
"""Characters of data that a form sends: they are part of an address."""


@dataclass(frozen=True, slots=True)
class Question:
    """An event as it was typed; `request_id` when it is that of a request."""

    topic: str = ""
    content_type: str = ""
    headers: str = ""
    data: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """The question and its answer: what the controllers say, or why they say nothing."""

    question: Question
    verdicts: Verdicts | None = None
    problem: str | None = None
    status: int = 200


def typed_question(given: QueryParams) -> Question:
    """What the form's fields say. Pure."""
    names = ("topic", "content_type", "headers", "data")
    return Question(**{name: given.get(name, "") for name in names})


async def explained(sight: Sight, question: Question) -> Explained:
    """The answer to a question that was typed; an empty one has none. Raises `ForbiddenError`."""
    topic = question.topic.strip()
    if not topic:
        return Explained(question)
    try:
        wire.check_topic(topic)
        sight.caller.check(Action.READ, topic=topic)
        headers = parsed_headers(question.headers)
        found = await _ask(sight, topic, question.data.encode(), question.content_type.strip(), headers)
    except ForbiddenError:
        raise
    except InvokerError as error:
        return Explained(question, problem=error.message, status=error.http_status)
    return Explained(question, found)


async def explained_request(sight: Sight, given: str) -> Explained:
    """Why a request that was there ran what it ran, or nothing, by the functions of now. Raises `UnknownIdError`,
    `ExpiredError` and `NotReadyError`."""
    record = accepted_record(await sight.request(given))
    content_type = record.body.content_type or wire.header(record.headers, wire.H_CONTENT_TYPE) or ""
    question = Question(record.topic, content_type, header_lines(record.headers), "", record.request_id)
    try:
        found = await _ask(sight, record.topic, stand_in(record.body), content_type, record.headers)
    except InvokerError as error:
        return Explained(question, problem=error.message, status=error.http_status)
    return Explained(question, found)


def stand_in(body: Content) -> bytes:
    """Bytes of the body's size, as far as that can be sent: a filter may ask for the size, never for the bytes."""
    return bytes(min(body.size_bytes, MAX_EXPLAIN_BYTES))


async def _ask(
    sight: Sight, topic: str, data: bytes, content_type: str, headers: Mapping[str, str]
) -> Verdicts:  # fmt: skip
    check_headers(headers)
    explanation = await sight.gateway.client.explain(
        topic, data or None, content_type=content_type or None, headers=headers
    )
    return verdicts(seen_explanation(sight.caller, explanation))
