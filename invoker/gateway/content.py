"""Handing out bytes of events and outputs: whole or in part, never in memory, and never to be run by a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from invoker import wire
from invoker.errors import ExpiredError, RangeRefusedError
from invoker.gateway.conditional import PRIVATE, has_already, not_modified
from invoker.gateway.gateway import Gateway
from invoker.request import Content

_RANGE = re.compile(r"bytes=\s*(\d{1,19})?\s*-\s*(\d{1,19})?\s*")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(;[ -~]{1,160})?")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        return self.last + 1 - self.first


def wanted_part(header: str | None, size: int) -> Part | None:
    """The part that a Range header asks for, None for everything: several parts, other units and what cannot be read
    are answered with the whole, as HTTP allows. Raises `RangeRefusedError` for what lies behind the end. Pure."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if found[1] is None:
        first, last = max(0, size - int(found[2])), size - 1
        possible = int(found[2]) > 0 and size > 0
    else:
        first, last = int(found[1]), min(int(found[2]) if found[2] else size, size - 1)
        if found[2] and int(found[2]) < int(found[1]):
            return None
        possible = first < size
    if not possible:
        raise RangeRefusedError(f"there are {size} bytes, and none of {header!a:.60} is among them", bytes=size)
    return Part(first, last)


def media_type(given: str | None) -> str:
    """The content type as it was given, when it is one: anything may stand in an event's header. Pure."""
    return given if given and _MEDIA_TYPE.fullmatch(given) else wire.CONTENT_TYPE_BYTES


class _Closing(StreamingResponse):
    """A stream whose source is closed when the caller goes, not when it is found to be garbage."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()


async def content_answer(request: Request, gateway: Gateway, content: Content, sha256: str, name: str) -> Response:
    """The bytes, or the part that is asked for, or 304; of HEAD only what there would be.

    Raises `ExpiredError` when the bytes are gone and `RangeRefusedError`. A whole whose bytes turn out to be damaged is
    broken off before its end; a part cannot be checked.
    """
    tag = f'"{sha256}"'
    if has_already(request, tag):
        return not_modified(tag)
    headers = {
        "ETag": tag,
        "Cache-Control": PRIVATE,
        "Accept-Ranges": "bytes",
        "Content-Type": media_type(content.content_type),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
    }
    size = content.size_bytes
    part = None
    if request.method == "GET" and request.headers.get("if-range", tag) == tag:
        part = wanted_part(request.headers.get("range"), size)
    if not await gateway.client.stored.has(content):
        raise ExpiredError("these bytes are not kept any more")
    headers["Content-Length"] = str(part.size_bytes if part else size)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.first}-{part.last}/{size}"
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers)
    return _Closing(_bytes(gateway, content, part), 206 if part else 200, headers)


async def _bytes(gateway: Gateway, content: Content, part: Part | None) -> AsyncIterator[bytes]:
    stored = gateway.client.stored
    chunks = stored.open(content) if part is None else stored.part(content, part.first, part.last)
    left = part.size_bytes if part else content.size_bytes
    try:
        async for chunk in chunks:
            if len(chunk) > left:
                return  # longer than was promised: better a broken answer than one that looks whole
            left -= len(chunk)
            if chunk:
                yield chunk
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]  # both are generators


def sha256_of(content: Content) -> str:
    """The sha256 of the bytes, from their claim check or from themselves."""
    return content.claim.sha256 if content.claim is not None else wire.sha256_hex(content.inline_bytes() or b"")
