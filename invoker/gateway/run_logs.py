"""Logs of runs over HTTP: text, or server-sent events for who asks for them; with `follow` until the run has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from invoker import wire
from invoker.ending import cancelled
from invoker.feed import Watch
from invoker.gateway.documents import Answer
from invoker.gateway.door import caller_of
from invoker.gateway.event_stream import COMMENT_SECONDS
from invoker.gateway.gateway import Gateway
from invoker.gateway.server_sent import BEGINNING, COMMENT, EventStream, frame
from invoker.gateway.sight import Sight, needs_nats
from invoker.lookup import Found
from invoker.run_log import FINISHING_SECONDS
from invoker.views import LogLine, RunView

LAST_WORDS_SECONDS = FINISHING_SECONDS + 5.0
"""Lines that come so much later than the run's result are not waited for: its controller may be gone. Longer than is
waited for the log that is kept, which ends by itself."""


class LogEvent(Answer):
    """One line that a run wrote."""

    text: str
    attempt: int | None = None
    stream: str | None = None
    at: AwareDatetime | None = None


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["runs"], dependencies=[needs_nats(gateway)])

    @routes.get(
        "/v1/runs/{run_id}/logs",
        response_class=Response,
        responses={
            200: {
                "description": "The lines; as events `line` and a last `end` with `Accept: text/event-stream`",
                "content": {"text/plain": {"schema": {"type": "string"}}, "text/event-stream": {}},
            }
        },
    )
    async def get_logs(
        run_id: str,
        request: Request,
        follow: Annotated[bool, Query(description="Go on until the run has ended")] = False,
    ) -> Response:
        """What the run wrote, oldest line first: live while it runs, the kept tail afterwards."""
        run, _ = await Sight(gateway, caller_of(request)).run(run_id)
        if "text/event-stream" in request.headers.get("accept", ""):
            return EventStream(log_events(gateway, run, follow), gateway)
        lines = log_text(gateway, run, follow)
        return StreamingResponse(lines, media_type=wire.CONTENT_TYPE_TEXT, headers={"X-Accel-Buffering": "no"})

    return routes


async def log_text(gateway: Gateway, run: RunView, follow: bool) -> AsyncGenerator[bytes, None]:
    """The lines as text."""
    async with aclosing(log_lines(gateway, run, follow)) as lines:
        async for line in lines:
            if line is not None:
                yield line.text.encode("utf-8", "replace") + b"\n"


async def log_events(gateway: Gateway, run: RunView, follow: bool) -> AsyncGenerator[bytes, None]:
    """The lines as server-sent events, and a last one that says `end`."""
    yield BEGINNING
    async with aclosing(log_lines(gateway, run, follow)) as lines:
        async for line in lines:
            if line is None:
                yield COMMENT
            else:
                yield frame("line", LogEvent(text=line.text, attempt=line.attempt, stream=line.stream, at=line.at))
    yield frame("end", {"run_id": run.run_id})


async def log_lines(gateway: Gateway, run: RunView, follow: bool) -> AsyncGenerator[LogLine | None, None]:
    """The lines; None whenever nothing came for a while. Ends with the run, even when its controller has died."""
    stored = gateway.client.stored
    async with gateway.client.feed.watch(run.request_id) as watch:
        run, _ = await stored.run(Found(run.request_id, run.function))
        over = asyncio.ensure_future(_finished(watch, run))
        if run.finished:
            over.cancel()
        try:
            async with aclosing(stored.log(run, follow=follow)) as lines:
                async for line in _until_over(aiter(lines), over if follow and not run.finished else None):
                    yield line
        finally:
            await cancelled(over)


async def _until_over(
    lines: AsyncIterator[LogLine], over: asyncio.Future[None] | None
) -> AsyncGenerator[LogLine | None, None]:
    clock = asyncio.get_running_loop().time
    following: asyncio.Future[LogLine] = asyncio.ensure_future(_next(lines))
    until: float | None = None
    try:
        while True:
            if until is None and over is not None and over.done():
                until = clock() + LAST_WORDS_SECONDS
            awaited: set[asyncio.Future[None] | asyncio.Future[LogLine]] = {following}
            if over is not None and until is None:
                awaited.add(over)
            seconds = COMMENT_SECONDS if until is None else min(COMMENT_SECONDS, max(0.0, until - clock()))
            done, _ = await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                try:
                    line = following.result()
                except StopAsyncIteration:
                    return
                yield line
                following = asyncio.ensure_future(_next(lines))
                until = None
            elif until is not None and clock() >= until:
                return
            elif not done:
                yield None
    finally:
        await cancelled(following)


async def _next(lines: AsyncIterator[LogLine]) -> LogLine:
    return await anext(lines)


async def _finished(watch: Watch, run: RunView) -> None:
    while True:
        item = await watch.next()
        if item.row is not None and item.row.function == run.function:
            return
