"""Bodies that come in by HTTP: read in bounded pieces, never whole unless they are known to be small."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.requests import Request

from invoker.errors import InvokerError

TooLarge = Callable[[int], InvokerError]
"""Makes the error for a body of that many bytes (or of more than that many, when it did not say its length)."""


@dataclass(frozen=True, slots=True)
class Body:
    """The beginning of a body, and what follows it: None when the beginning is all of it."""

    head: bytes
    rest: AsyncIterator[bytes] | None

    def data(self) -> bytes | AsyncIterator[bytes]:
        """All of it: as bytes when they are in hand, else to be read on."""
        return self.head if self.rest is None else self.chunks()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.head
        if self.rest is not None:
            async for chunk in self.rest:
                yield chunk


def declared_bytes(request: Request) -> int | None:
    """The length that the client said, None when it said none."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def refuse_larger(request: Request, limit: int, error: TooLarge) -> None:
    """Raise before a byte is read when the client says that it sends more than `limit`."""
    length = declared_bytes(request)
    if length is not None and length > limit:
        raise error(length)


async def bounded(request: Request, limit: int, error: TooLarge) -> AsyncIterator[bytes]:
    """The body's pieces as they come; raises at the first byte above `limit` and reads no further."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise error(size)
        yield chunk


async def read_head(chunks: AsyncIterator[bytes], hold: int) -> Body:
    """The body with up to `hold` bytes (and the piece that crosses them) in hand; the rest stays unread."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) > hold:
            return Body(bytes(head), chunks)
    return Body(bytes(head), None)


async def read_small(request: Request, limit: int, error: TooLarge) -> bytes:
    """All of a body that must be small."""
    refuse_larger(request, limit, error)
    return b"".join([chunk async for chunk in bounded(request, limit, error)])


async def digest(chunks: AsyncIterator[bytes]) -> tuple[int, str]:
    """Size and sha256 of a body that is read to be compared, not kept."""
    hasher, size = hashlib.sha256(), 0
    async for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
    return size, hasher.hexdigest()


async def held_back(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks, each given out only when the next one is there or the iteration has ended well.

    Why: a claim check is verified after its last chunk. A reader who got all bytes by then would take them for good;
    this way a failed check leaves the answer short of its length, which every HTTP client notices.
    """
    previous: bytes | None = None
    async for chunk in chunks:
        if previous is not None:
            yield previous
        previous = chunk
    if previous is not None:
        yield previous
