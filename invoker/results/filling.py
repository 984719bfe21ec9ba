"""Filling a copy of the RESULTS stream: in order, from where it stands, again from the beginning once it was emptied.

A task beside everything else: no run and no reply waits for it, and while the copy is away or behind, polls are
answered from NATS. Several gateways may fill the same copy at once: they write the same things.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.reading import StoredMessage, StreamReader, Tail

LOOK_SECONDS = 1.0
"""How often a copy is looked at when there is nothing to write: it may have been emptied."""
RETRY_SECONDS = 0.5
BATCH_DOCUMENTS, BATCH_BYTES = 256, 4 * 1024 * 1024
DEFAULT_RETENTION = timedelta(days=2)
"""For a stream without an age: what is copied always expires."""

_log = structlog.get_logger(component="results")


class CopyAwayError(Exception):
    """The copy cannot be reached, or does not do what it is asked; the message says why, without secrets. No caller
    meets it: NATS answers instead."""


@dataclass(frozen=True, slots=True)
class CopiedDocument:
    """One document for the copy: the record of a request (`function` is None) or the result of one of its runs."""

    request_id: str
    function: str | None
    data: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """How far a copy is: it was given everything up to `sequence` since it was empty; `epoch` names that emptiness."""

    epoch: str
    sequence: int


class ResultsCopy(Protocol):
    """What is filled. Everything may raise `CopyAwayError`."""

    async def place(self, stream_identity: str, retention: timedelta, *, anew: bool = False) -> Place:
        """Where it stands with this stream; at 0 when it is empty, was filled from another one, or with `anew`."""
        ...

    async def write(
        self, documents: Sequence[CopiedDocument], before: Place, sequence: int, retention: timedelta
    ) -> bool:
        """Take the documents between those two places. False when the copy is not (any more) at `before` or further:
        then its place must be asked for again. Safe to repeat."""
        ...


class Filler:
    """Fills one copy from one instance's stream."""

    def __init__(self, reader: StreamReader, names: wire.Names, copy: ResultsCopy) -> None:
        self._reader = reader
        self._names = names
        self._copy = copy
        self._told: set[str] = set()
        self.sequence = 0
        """The copy has everything up to there."""
        self.is_reachable = False
        """Whether the copy did what it was last asked."""

    async def run(self) -> None:
        """Keep the copy up to date, for ever; outages on either side are pauses."""
        while True:
            try:
                await self._fill()
            except (ServerUnreachableError, CopyAwayError) as error:
                self.is_reachable = self.is_reachable and not isinstance(error, CopyAwayError)
                self._tell(str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _fill(self) -> None:
        """From the copy's place on, until it turns out to be at another one."""
        info = await self._reader.state(self._names.results_stream)
        retention = timedelta(seconds=info.config.max_age) if info.config.max_age else DEFAULT_RETENTION
        identity = str(info.created)
        place = await self._copy.place(identity, retention)
        if place.sequence > info.state.last_seq:
            # The server lost its last messages: others will have their sequences.
            place = await self._copy.place(identity, retention, anew=True)
        self._tell(None)
        self.is_reachable, self.sequence = True, place.sequence
        _log.info("results copy", at=place.sequence, behind=info.state.last_seq - place.sequence)
        subjects = [self._names.accepted("*"), self._names.result("*", "*")]
        async with self._reader.tail(self._names.results_stream, subjects, first=place.sequence + 1) as tail:
            while True:
                messages = await _next(tail)
                sequence = messages[-1].sequence if messages else place.sequence
                found = (copied(message, self._names, retention) for message in messages)
                documents = [document for document in found if document is not None]
                if not await self._copy.write(documents, place, sequence, retention):
                    _log.warning("results copy was emptied or set back; it is filled again")
                    return
                place = Place(place.epoch, sequence)
                self.sequence = sequence

    def _tell(self, problem: str | None) -> None:
        """Say every reason of an outage once."""
        if problem is None:
            self._told.clear()
        elif problem not in self._told:
            self._told.add(problem)
            _log.warning("results copy waits; polls are answered from NATS", error_message=problem)


async def _next(tail: Tail) -> list[StoredMessage]:
    """What has come, as much as one write should have; nothing when nothing came for a while."""
    messages: list[StoredMessage] = []
    size, patience = 0, LOOK_SECONDS
    while len(messages) < BATCH_DOCUMENTS and size < BATCH_BYTES:
        try:
            async with asyncio.timeout(patience):
                message = await anext(tail)
        except TimeoutError:
            break
        messages.append(message)
        size += len(message.data)
        patience = 0.0  # only what is there already
    return messages


def copied(message: StoredMessage, names: wire.Names, retention: timedelta) -> CopiedDocument | None:
    """The document that a stored message is for the copy, None for one that is neither record nor result. Pure."""
    kind, _, rest = message.subject.removeprefix(f"{names.instance}.").partition(".")
    request_id, _, function = rest.partition(".")
    if kind not in ("accepted", "result") or bool(function) != (kind == "result"):
        return None
    return CopiedDocument(request_id, function or None, message.data, message.stored_at + retention)
