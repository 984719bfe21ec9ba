"""Server-sent events: how they are written, and the answer that carries them. Who reads too slowly is cut off, and
resumes from the last id he saw."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from invoker.ending import cancelled
from invoker.errors import InputRefusedError
from invoker.gateway.door import closing_of, still_allowed
from invoker.gateway.gateway import Gateway

RETRY_MILLISECONDS = 2_000
STOPPED_RETRY_MILLISECONDS = 500, 3_500
LOGIN_SECONDS = 5.0
"""How often it is looked whether the caller of an open stream is still allowed to read it."""
SEND_SECONDS = 30.0
"""Who has not read so much that something more can be sent within this time is taken for gone."""
COMMENT = b":\n\n"


def _retry(milliseconds: int) -> bytes:
    return f"retry: {milliseconds}\n\n".encode()


BEGINNING = _retry(RETRY_MILLISECONDS)
_MAX_ID = 2**63 - 1


def frame(event: str, document: object, sequence: int | None = None) -> bytes:
    """One event; JSON has no line ends, so its data is one line. Pure."""
    head = f"id: {sequence}\n" if sequence is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + to_json(document, by_alias=True) + b"\n\n"


def last_event_id(request: Request) -> int | None:
    """Where the caller stood: the header `Last-Event-ID`, or the query's `last_event_id` (a browser sets the header by
    itself, and only when it comes again). Raises `InputRefusedError`."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text[:32]) > _MAX_ID or len(text) > 19:
        raise InputRefusedError(f"the last event id {text[:40]!a} is none of ours: they are numbers")
    return int(text)


class EventStream(Response):
    """An answer of server-sent events: what the source gives, one piece after the other, for as long as it is read.

    It ends between two pieces, with the word when to come again: when the gateway stops, when its time is over
    (`INVOKER_GATEWAY_STREAM_SECONDS`), and within some seconds when the caller's key is withdrawn or may do something
    else.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None], gateway: Gateway) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._metrics = gateway.metrics
        self._seconds = gateway.settings.gateway_stream_seconds or math.inf
        self._begun = self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._metrics.event_streams.track_inprogress():
            sending = asyncio.ensure_future(self._send(send))
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await self._until_over(scope, sending, gone)
                if sending.done():
                    sending.result()
                elif not gone.done():
                    await cancelled(sending)  # no piece is cut by that: each is handed over whole, or not at all
                    await self._end(send, closing_of(scope).done())
            finally:
                await cancelled(sending, gone)
                await self._source.aclose()

    async def _until_over(self, scope: Scope, sending: asyncio.Future[None], gone: asyncio.Future[None]) -> None:
        loop, closing = asyncio.get_running_loop(), closing_of(scope)
        until = loop.time() + self._seconds
        while not (sending.done() or gone.done() or closing.done()) and loop.time() < until:
            await asyncio.wait(
                {sending, gone, closing},
                timeout=min(LOGIN_SECONDS, until - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not await still_allowed(scope):
                return

    async def _send(self, send: Send) -> None:
        await self._begin(send)
        async for piece in self._source:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                return  # the answer stays without its end, so the connection is closed
        await self._send_last(send, b"")

    async def _begin(self, send: Send) -> None:
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _end(self, send: Send, stops: bool) -> None:
        if self._ended:
            return  # by itself, in the moment in which it was to be ended
        if not self._begun:
            await self._begin(send)
        # All readers of a gateway that stops shall not come in one moment to the others.
        milliseconds = random.randint(*STOPPED_RETRY_MILLISECONDS) if stops else RETRY_MILLISECONDS
        await self._send_last(send, _retry(milliseconds))

    async def _send_last(self, send: Send, piece: bytes) -> None:
        self._ended = True
        await send({"type": "http.response.body", "body": piece, "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
