"""Server-sent events: how they are written, and the answer that carries them. Who reads too slowly is cut off, and
resumes from the last id he saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from invoker.ending import cancelled
from invoker.errors import InputRefusedError
from invoker.gateway.metrics import GatewayMetrics

RETRY_MILLISECONDS = 2_000
SEND_SECONDS = 30.0
"""Who has not read so much that something more can be sent within this time is taken for gone."""
COMMENT = b":\n\n"
BEGINNING = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
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
    """An answer of server-sent events: what the source gives, one piece after the other, until it ends."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None], metrics: GatewayMetrics) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._metrics.event_streams.track_inprogress():
            sending = asyncio.ensure_future(self._send(send))
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                await cancelled(sending, gone)
                await self._source.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._source:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                return  # the answer stays without its end, so the connection is closed
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
