"""The stream that keeps an open page live: it says only that something has changed, and the page asks for itself again.

So there is one way of drawing, on the server, and whatever a page shows it shows again a moment after it changed. Many
changes at once are one word: a page is drawn at most some times in a second, however much happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.feed import FeedItem, Watch
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.chain_news import ChainNews
from invoker.gateway.dashboard.paths import HOME
from invoker.gateway.door import caller_of
from invoker.gateway.event_stream import Wanted
from invoker.gateway.gateway import Gateway
from invoker.gateway.server_sent import BEGINNING, COMMENT, EventStream
from invoker.gateway.sight import Sight, needs_nats
from invoker.result import RunStatusDocument

TOGETHER_SECONDS = 0.2
"""Changes within this time are told as one."""
LOOK_SECONDS = 0.5
"""How often it is looked whether the catalog is another one, a dead letter has come, or the past has been read."""
COMMENT_LOOKS = 30
CHANGE = b"event: change\ndata: {}\n\n"


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/live")
    async def live(
        request: Request,
        request_id: Annotated[str | None, Query(alias="request", max_length=512)] = None,
        function: Annotated[str | None, Query(max_length=63)] = None,
        topic: Annotated[str | None, Query(max_length=255)] = None,
        chain: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Says `change` whenever what the caller may see has changed: everything, or one request, function, topic, or
        the chain that began with a request."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        wanted = Wanted(sight, function, wire.check_topic(topic) if topic else None)
        changes = _changes(
            gateway, wanted, wire.canonical_id(request_id) if request_id else None, ChainNews(chain) if chain else None
        )
        return EventStream(changes, gateway)

    return routes


async def _changes(
    gateway: Gateway, wanted: Wanted, request_id: str | None, chain: ChainNews | None
) -> AsyncGenerator[bytes, None]:
    async with gateway.client.feed.watch(request_id, statuses=True) as watch:
        yield BEGINNING
        if chain is not None:
            await chain.read(wanted.sight)
        yield CHANGE  # something may have happened between the page and this
        known, quiet = _surroundings(gateway), 0
        while True:
            changed = await _is_changed(watch, wanted, chain)
            now = _surroundings(gateway)
            if changed or now != known or watch.lagged:
                known, quiet = now, 0
                yield CHANGE
                if watch.lagged and not watch.waiting:
                    return  # the reader comes again, and misses nothing: he asks for the whole
                await asyncio.sleep(TOGETHER_SECONDS)
            elif (quiet := quiet + 1) >= COMMENT_LOOKS:
                quiet = 0
                yield COMMENT


def _surroundings(gateway: Gateway) -> tuple[object, ...]:
    """What pages show besides requests and runs: another value is another page."""
    catalog, loaded = gateway.catalog, (gateway.runs.loaded, gateway.topics.loaded)
    return catalog.present, catalog.problem, loaded, gateway.dead.position, gateway.client.is_connected


async def _is_changed(watch: Watch, wanted: Wanted, chain: ChainNews | None) -> bool:
    """Wait for the next news; whether the page is about them. Takes along what else waits already."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = _concerns(wanted, chain, await watch.next_of_all())
    except TimeoutError:
        return False
    while watch.waiting:
        found = _concerns(wanted, chain, await watch.next_of_all()) or found
    return found


def _concerns(wanted: Wanted, chain: ChainNews | None, news: FeedItem | RunStatusDocument) -> bool:
    if chain is not None and not chain.concerns(news):
        return False
    return wanted.status(news) if isinstance(news, RunStatusDocument) else wanted.item(news)
