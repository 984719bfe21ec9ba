"""From what a program has in its hands to the bytes of an event, and the content type that goes with them."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from invoker import wire
from invoker.errors import InputRefusedError

Payload: TypeAlias = (
    bytes | bytearray | memoryview | str | Path | AsyncIterable[bytes] | Mapping[str, Any] | list[Any] | BaseModel
)
"""Bytes as they are; text; a file; a stream; or anything that has a JSON form (dict, list, model, dataclass)."""

_READ_BYTES = 256 * 1024
_HEADER_NAME = re.compile(r"[!-9;-~]+")


def encoded(data: Payload | Any, content_type: str | None = None) -> tuple[bytes | AsyncIterable[bytes], str | None]:
    """The bytes (or the stream of them) and their content type: the given one, else what the kind of data says.

    Raises `InputRefusedError` for values without a JSON form and for files that cannot be read.
    """
    match data:
        case bytes():
            return data, content_type
        case bytearray() | memoryview():
            return bytes(data), content_type
        case str():
            return _text(data), content_type or wire.CONTENT_TYPE_TEXT
        case Path():
            return _file(data), content_type or mimetypes.guess_type(data.name)[0] or wire.CONTENT_TYPE_BYTES
        case AsyncIterable():
            return data, content_type
        case _:
            return _json(data), content_type or wire.CONTENT_TYPE_JSON


async def settled(data: bytes | AsyncIterable[bytes], threshold: int) -> bytes | AsyncIterable[bytes]:
    """The bytes when a stream ends at or below the threshold, else a stream of the same bytes.

    Why: a small file or stream then travels inside its message, not by claim check.
    """
    if isinstance(data, bytes):
        return data
    iterator = aiter(data)
    buffer = bytearray()
    async for part in iterator:
        buffer += part
        if len(buffer) > threshold:
            return _continued(bytes(buffer), iterator)
    return bytes(buffer)


async def whole(data: bytes | AsyncIterable[bytes]) -> bytes:
    """All the bytes at once, for what is known to be small."""
    return data if isinstance(data, bytes) else b"".join([part async for part in data])


async def _continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _file(path: Path) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as file:
            while part := await asyncio.to_thread(file.read, _READ_BYTES):
                yield part
    except OSError as error:
        raise InputRefusedError(f"the file {path} cannot be read: {error.strerror or error}") from error


def _text(data: str) -> bytes:
    try:
        return data.encode()
    except UnicodeEncodeError as error:
        raise InputRefusedError("the text is not valid Unicode (it holds half of a surrogate pair)") from error


def _json(data: Any) -> bytes:
    try:
        return to_json(data)
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise InputRefusedError(
            f"{type(data).__name__} has no JSON form: {error}", hint="give bytes, or something that JSON can hold"
        ) from error


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise `InputRefusedError` for a header that cannot travel: it would be changed, or end in another header."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InputRefusedError(f"header name {name!a} must be printable ASCII without spaces and colons")
        if "\r" in value or "\n" in value or "\0" in value:
            raise InputRefusedError(f"the value of header {name} has a line end or a NUL in it")
