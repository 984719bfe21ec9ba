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
        turn = asyncio.Semaphore(_READ_AT_ONCE)

        async def one(sequence: int) -> tuple[int, DeadLetter] | None:
            async with turn:
                whole = await self._reader.at(self._names.dead_stream, sequence)
            if whole is None:
                return None
            letter = _parsed(whole)
            body = letter.body.model_copy(update={"inline_base64": None})
            return sequence, letter.model_copy(update={"body": body})

        found = await asyncio.gather(*(one(message.sequence) for message in await self._headers(limit, before)))
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


def _legal(given: str) -> bool:
    return given.isascii() and given.isalnum()


def _parsed(message: StoredMessage) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(message.data)
    except ValueError as error:
        raise InvokerError(f"a stored dead letter cannot be read: {error}") from error
