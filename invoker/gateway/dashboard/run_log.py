"""Logs of runs for their page: the last lines, the coming ones, and all of them as a file."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from invoker import wire
from invoker.errors import ClaimCheckError
from invoker.gateway.dashboard.paths import HOME
from invoker.gateway.dashboard.run_log_view import MAX_LINES, LogView, log_view
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_logs import log_events
from invoker.gateway.server_sent import EventStream
from invoker.gateway.sight import Sight, needs_nats
from invoker.result import State
from invoker.views import LogLine, RunView

LOOK_SECONDS = 0.5
"""How long a page waits for the controller that holds the run; whoever has JavaScript gets the lines all the same."""
LAST_WORDS = timedelta(seconds=10)
"""A run that has ended within this time is followed: its last lines may still be on their way."""


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/runs/{{run_id}}/log")
    async def log_file(run_id: str, request: Request) -> Response:
        """All lines that there are, as a file."""
        run, _ = await Sight(gateway, caller_of(request)).run(run_id)
        headers = {
            "Content-Disposition": f'attachment; filename="{run.run_id}.log.txt"',
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        return StreamingResponse(_text(gateway, run), media_type=wire.CONTENT_TYPE_TEXT, headers=headers)

    @routes.get(f"{HOME}/runs/{{run_id}}/log/live")
    async def log_stream(run_id: str, request: Request) -> Response:
        """The lines as server-sent events, from the first that there is until the run has ended."""
        run, _ = await Sight(gateway, caller_of(request)).run(run_id)
        return EventStream(log_events(gateway, run, True), gateway)

    return routes


async def log_shown(gateway: Gateway, run: RunView) -> LogView:
    """The last lines of a run, as far as they are known within a moment."""
    if run.state is State.QUEUED:
        return LogView(words="It has not started yet, so it has written nothing.")
    last: deque[LogLine] = deque(maxlen=MAX_LINES)
    total, words = 0, ""
    try:
        async with asyncio.timeout(LOOK_SECONDS), aclosing(_lines(gateway, run)) as lines:
            async for line in lines:
                last.append(line)
                total += 1
    except TimeoutError:
        words = "Its controller has not told all of its lines just now."
    except ClaimCheckError:
        words = "Its lines are not kept any more."
    if not total and not words:
        words = "It has written nothing." if run.finished else "It has written nothing so far."
    return log_view(last, total, words)


def is_followed(run: RunView, now: datetime | None = None) -> bool:
    """Whether lines may still come."""
    return run.result is None or (now or datetime.now(UTC)) - run.result.finished_at < LAST_WORDS


async def _text(gateway: Gateway, run: RunView) -> AsyncGenerator[bytes, None]:
    with suppress(ClaimCheckError):  # not kept any more: an empty file
        async with aclosing(_lines(gateway, run)) as lines:
            async for line in lines:
                yield line.text.encode("utf-8", "replace") + b"\n"


async def _lines(gateway: Gateway, run: RunView) -> AsyncGenerator[LogLine, None]:
    """The lines there are now. Of a finished run those that are stored: a controller that does not hold it any more
    says so by saying nothing, which takes a second."""
    stored = gateway.client.stored
    lines = stored.log(run, follow=False) if run.result is None else stored.kept_log(run.result)
    async with aclosing(lines) as some:
        async for line in some:
            yield line
