"""Events that no record names: still queued, or become dead letters. One reading answers all who ask at once, since
everybody who waits for an event asks, and all of them the same messages."""

from __future__ import annotations

import asyncio
from itertools import islice

from invoker import wire
from invoker.reading import StoredMessage, StreamReader
from invoker.shared_reads import SharedReads
from invoker.views import DeadLetter

_QUEUED_LOOKED_AT = 256
_DEAD_LOOKED_AT = 200


class UnacceptedEvents:
    """Finds the newest events of one instance that are no requests: queued ones and dead letters."""

    def __init__(self, reader: StreamReader, names: wire.Names) -> None:
        self._reader = reader
        self._names = names
        self._queued = SharedReads(self._read_queued)
        self._dead = SharedReads(self._read_dead)

    async def queued_topic(self, request_id: str) -> str | None:
        """The topic of an event that waits to be accepted; None when it is not among the newest ones."""
        return (await self._queued(self._names.events_stream)).get(request_id)

    async def dead_letter(self, request_id: str) -> DeadLetter | None:
        """The newest dead letter of an event; None when it is not among the newest ones, or gone."""
        sequence = (await self._dead(self._names.dead_stream)).get(request_id)
        letter = None if sequence is None else await self._reader.at(self._names.dead_stream, sequence)
        return None if letter is None else DeadLetter.model_validate_json(letter.data)

    async def _read_queued(self, stream: str) -> dict[str, str]:
        """The topics of the newest events by request id."""
        state = (await self._reader.state(stream)).state
        if not state.messages:
            return {}
        newest = await newest_messages(self._reader, stream, state.first_seq, state.last_seq)
        return {_request_id(message): self._names.topic_of(message.subject) for message in reversed(newest)}

    async def _read_dead(self, stream: str) -> dict[str, int]:
        """The sequences of the newest dead letters by request id."""
        found: dict[str, int] = {}
        looked_at = 0
        async for message in self._reader.backwards(stream, [self._names.dead("*")]):
            looked_at += 1
            if looked_at > _DEAD_LOOKED_AT:
                break
            found.setdefault(wire.header(message.headers, wire.H_REQUEST_ID) or "", message.sequence)
        return found


async def newest_messages(reader: StreamReader, stream: str, first: int, last: int) -> list[StoredMessage]:
    """Those of the newest few hundred sequences that are still there, newest first. One by one: a work queue allows no
    second consumer."""
    sequences = islice(range(last, max(0, first - 1), -1), _QUEUED_LOOKED_AT)
    found = await asyncio.gather(*(reader.at(stream, sequence) for sequence in sequences))
    return [message for message in found if message is not None]


def _request_id(message: StoredMessage) -> str:
    """Of the message id that its publisher chose; an event without one is found by nobody."""
    return wire.canonical_id(wire.header(message.headers, wire.H_MESSAGE_ID) or "")
