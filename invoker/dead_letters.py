"""Reading dead letters, newest first."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from invoker import wire
from invoker.errors import InvokerError, UnknownIdError
from invoker.lookup import the_one_fitting
from invoker.reading import StoredMessage, StreamReader
from invoker.views import DeadLetter

_LOOKED_AT = 5_000
_READ_AT_ONCE = 8
"""Letters whose bytes are in memory at once while a page is read."""
_READ_TOGETHER_BYTES = 4 * 1024 * 1024
"""A page of letters that are smaller together is read at once."""


class DeadLetterReader:
    """Reads the DEAD stream of one instance. Headers first, since a letter's body may be large."""

    def __init__(self, reader: StreamReader, names: wire.Names) -> None:
        self._reader = reader
        self._names = names

    async def newest(self, limit: int) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        for message in await self._headers(limit):
            whole = await self._reader.at(self._names.dead_stream, message.sequence)
            if whole is not None:
                letters.append(_parsed(whole))
        return letters

    async def page(self, limit: int, before: int | None = None) -> list[tuple[int, DeadLetter]]:
        """Letters with their sequences, newest first, below the sequence `before`; without their bytes."""
        headers = await self._headers(limit, before)
        if not headers:
            return []
        # Those after a page would come along with it: only of the newest page is known how much that is.
        if before is None and sum(map(_size, headers)) <= _READ_TOGETHER_BYTES:
            stream, subjects = self._names.dead_stream, [self._names.dead("*")]
            whole = await self._reader.between(
                stream, subjects, headers[-1].sequence, headers[0].sequence, headers_only=False
            )
            return [_without_bytes(message) for message in reversed(whole)]
        turn = asyncio.Semaphore(_READ_AT_ONCE)

        async def one(sequence: int) -> tuple[int, DeadLetter] | None:
            async with turn:
                message = await self._reader.at(self._names.dead_stream, sequence)
            return None if message is None else _without_bytes(message)

        found = await asyncio.gather(*(one(message.sequence) for message in headers))
        return [letter for letter in found if letter is not None]

    async def exact(self, dead_id: str) -> DeadLetter:
        """The letter of exactly that id. Raises `UnknownIdError`."""
        subject = self._names.dead(dead_id)
        message = await self._reader.last(self._names.dead_stream, subject) if _legal(dead_id) else None
        if message is None:
            raise UnknownIdError(f"no dead letter {dead_id[:80]!a}", hint="invoker dead list")
        return _parsed(message)

    async def one(self, given: str) -> DeadLetter:
        """The letter of that id, which may be shortened. Raises `UnknownIdError` or `AmbiguousIdError`."""
        message = await self._reader.last(self._names.dead_stream, self._names.dead(given)) if _legal(given) else None
        if message is None:
            ids = [found.subject.rpartition(".")[2] for found in await self._headers(_LOOKED_AT)]
            fitting = the_one_fitting(given, ids)
            if fitting is not None:
                message = await self._reader.last(self._names.dead_stream, self._names.dead(fitting))
        if message is None:
            raise UnknownIdError(f"no dead letter {given}", hint="invoker dead list")
        return _parsed(message)

    async def _headers(self, limit: int, before: int | None = None) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        if limit <= 0:
            return found
        stream, subjects = self._names.dead_stream, [self._names.dead("*")]
        async with aclosing(self._reader.backwards(stream, subjects, before=before)) as messages:
            async for message in messages:
                found.append(message)
                if len(found) >= limit:
                    break
        return found


def _without_bytes(message: StoredMessage) -> tuple[int, DeadLetter]:
    letter = _parsed(message)
    body = letter.body.model_copy(update={"inline_base64": None})
    return message.sequence, letter.model_copy(update={"body": body})


def _size(message: StoredMessage) -> int:
    """How large the message is of which only the headers were read."""
    return int(wire.header(message.headers, "Nats-Msg-Size") or 0)


def _legal(given: str) -> bool:
    return given.isascii() and given.isalnum()


def _parsed(message: StoredMessage) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(message.data)
    except ValueError as error:
        raise InvokerError(f"a stored dead letter cannot be read: {error}") from error
