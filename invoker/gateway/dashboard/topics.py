"""Pages about topics: which were seen, what nothing matched, one topic, and what an event would run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import InvokerError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.explanations import (
    MAX_TYPED,
    Question,
    explained,
    explained_request,
    typed_question,
)
from invoker.gateway.dashboard.paths import EXPLAIN, TOPICS, UNMATCHED, live_url
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.dashboard.topics_view import TopicLine, one_topic, seen_requests, topics_seen
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.sight import Sight, needs_nats, unknown
from invoker.gateway.topic_table import SeenRequest
from invoker.listing import RunFilter
from invoker.views import RunRow

SHOWN_TOPICS = 100
SHOWN_REQUESTS = 100
SHOWN_FEW = 20
SHOWN_FIRST = 10
MAX_HIDDEN = 500
_NO_PLACE = 2**62


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(TOPICS)
    async def topics(request: Request) -> Response:
        """The topics that were seen, and the newest requests that nothing matched."""
        sight = _reader(gateway, request)
        text, only, before = _asked(request)
        lines = await topics_seen(sight, _wanted_topic(text, only, before), SHOWN_TOPICS + 1)
        unmatched = await seen_requests(sight, gateway.topics.unmatched(), _wanted(), SHOWN_FIRST)
        return pages.page(
            request, "topics.html", title="Topics", section="topics", live=live_url(),
            lines=lines[:SHOWN_TOPICS], text=text, only=only, unmatched=unmatched, is_first=before is None,
            following=_following(TOPICS, lines, SHOWN_TOPICS, text, only), **_counted(gateway),
        )  # fmt: skip

    @routes.get(UNMATCHED)
    async def unmatched(request: Request) -> Response:
        """The newest requests that nothing matched."""
        sight = _reader(gateway, request)
        text, _, before = _asked(request)
        found = await seen_requests(sight, gateway.topics.unmatched(), _wanted(text, before), SHOWN_REQUESTS + 1)
        return pages.page(
            request, "unmatched.html", title="What nothing matched", section="topics", live=live_url(),
            requests=found[:SHOWN_REQUESTS], text=text, is_first=before is None,
            following=_following(UNMATCHED, found, SHOWN_REQUESTS, text), **_counted(gateway),
        )  # fmt: skip

    @routes.get(TOPICS + "/{topic:path}")
    async def topic(topic: str, request: Request) -> Response:
        """One topic: what its events run, its newest requests and runs."""
        sight = _reader(gateway, request)
        if not _is_topic(topic) or not sight.may(Action.READ, topic):
            raise unknown("topic", topic)
        answer = await explained(sight, Question(topic))
        newest = gateway.topics.requests_of(topic, MAX_HIDDEN)
        return pages.page(
            request, "topic.html", title=f"Topic {topic}", section="topics", live=live_url(topic=topic), topic=topic,
            line=await one_topic(sight, topic), explained=answer,
            requests=await seen_requests(sight, newest, _wanted(), SHOWN_FEW),
            rows=await _finished(sight, topic), **_counted(gateway),
        )  # fmt: skip

    @routes.get(EXPLAIN)
    async def explain(request: Request) -> Response:
        """What an event would run, and the clause that decided for each subscription. Nothing is run."""
        sight = _reader(gateway, request)
        given = request.query_params
        if given.get("request"):
            answer = await explained_request(sight, given["request"])
        else:
            answer = await explained(sight, typed_question(given))
        return pages.page(
            request, "explain.html", title="What would an event run?", section="topics", status=answer.status,
            explained=answer, max_typed=MAX_TYPED,
        )  # fmt: skip

    return routes


def _reader(gateway: Gateway, request: Request) -> Sight:
    sight = Sight(gateway, caller_of(request))
    sight.caller.check(Action.READ)
    return sight


def _counted(gateway: Gateway) -> dict[str, Any]:
    """What a page says about its numbers: since when, and whether more of the past is being read."""
    return {"counted_from": gateway.topics.counted_from, "reading": not gateway.topics.loaded}


def _asked(request: Request) -> tuple[str, bool, int | None]:
    """The text that topics must have, whether only those are wanted that something did not match, and the place."""
    given = request.query_params
    place = given.get("before", "")
    before = int(place) if place.isascii() and place.isdigit() and len(place) <= 18 else None
    return given.get("text", "")[:255].strip(), bool(given.get("unmatched")), before


def _wanted_topic(text: str, only: bool, before: int | None) -> Callable[[TopicLine], bool]:
    lower, place = text.lower(), _NO_PLACE if before is None else before

    def wanted(line: TopicLine) -> bool:
        return line.sequence < place and lower in line.topic.lower() and (line.unmatched > 0 or not only)

    return wanted


def _wanted(text: str = "", before: int | None = None) -> Callable[[SeenRequest], bool]:
    lower, place = text.lower(), _NO_PLACE if before is None else before

    def wanted(request: SeenRequest) -> bool:
        return request.sequence < place and (not lower or lower in request.topic.lower())

    return wanted


def _following(
    path: str, found: list[TopicLine] | list[SeenRequest], shown: int, text: str, only: bool = False
) -> str | None:
    """The address of the next page, None on the last one."""
    if len(found) <= shown:
        return None
    return query(path, text=text, unmatched="yes" if only else None, before=found[shown - 1].sequence)


def _is_topic(topic: str) -> bool:
    try:
        wire.check_topic(topic)
    except InvokerError:
        return False
    return True


async def _finished(sight: Sight, topic: str) -> list[RunRow]:
    """The newest finished runs of the topic that the caller may see, as far as they are in memory."""
    await sight.gateway.runs.known_from()
    found: list[RunRow] = []
    hidden = 0
    async with aclosing(sight.gateway.runs.finished(RunFilter(topic=topic), None)) as rows:
        async for row in rows:
            if sight.may(Action.READ, row.topic, row.function):
                found.append(row)
            else:
                hidden += 1
            if len(found) >= SHOWN_FEW or hidden >= MAX_HIDDEN:
                break
    return found
