"""Lists of runs, newest first: unfinished ones from RUNS, finished ones from the headers of RESULTS, read backwards.

Paging is by key, not by number: a cursor is a sequence, so rows are never left out when runs finish in between (a run
that finishes between two pages may be shown on both).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from invoker import wire
from invoker.errors import InputRefusedError
from invoker.reading import StoredMessage, StreamReader
from invoker.request import RunTicket
from invoker.result import Reason, RunStatusDocument, State
from invoker.results.nats import ResultStream
from invoker.views import RunRow

_AT_ONCE = 64
_PARTS = 16
"""Parts of a stretch that are looked through at once."""
_LAST = 2**62
_MAX_CURSOR_DIGITS = 18
"""No stream comes so far, and JetStream's sequences have 64 bits: a longer number would be refused by the server."""
_UNFINISHED, _FINISHED = "u", "f"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; None means any, and so does no state at all. `since` and `until` are instants: queued (or
    finished) at or after the one, before the other; `topic` is a topic or a topic pattern; `text` stands in the id of
    the run or of its request."""

    function: str | None = None
    states: frozenset[State] = frozenset()
    reason: Reason | None = None
    request_id: str | None = None
    since: datetime | None = None
    topic: str | None = None
    until: datetime | None = None
    text: str | None = None

    def wants_unfinished(self) -> bool:
        return self.reason is None and (not self.states or not all(state.finished for state in self.states))

    def wants_finished(self) -> bool:
        return not self.states or any(state.finished for state in self.states)

    def fits(self, row: RunRow) -> bool:
        return (
            self.function in (None, row.function)
            and (not self.states or row.state in self.states)
            and self.reason in (None, row.reason)
            and self.request_id in (None, row.request_id)
            and (self.topic is None or wire.subject_matches(self.topic, row.topic))
            and self._is_before(row.finished_at or row.queued_at)
            and self._has_text(row.run_id, row.request_id)
        )

    def may_fit(self, ticket: RunTicket, queued_at: datetime) -> bool:
        """Whether an unfinished run may be wanted, as far as its message tells."""
        return (
            self.function in (None, ticket.function)
            and self.request_id in (None, ticket.request_id)
            and (self.since is None or queued_at >= self.since)
            and self._is_before(queued_at)
            and self._has_text(ticket.run_id, ticket.request_id)
        )

    def _is_before(self, at: datetime | None) -> bool:
        return self.until is None or (at is not None and at < self.until)

    def _has_text(self, *ids: str) -> bool:
        return self.text is None or any(self.text in one for one in ids)


class FinishedRows(Protocol):
    """Another place where the rows of finished runs are had, sooner than from the stream."""

    def finished(self, wanted: RunFilter, before: int | None) -> AsyncGenerator[RunRow, None]:
        """The wanted rows with a sequence below `before`, newest first, without a gap, as far back as it knows."""
        ...

    async def known_from(self) -> int | None:
        """The sequence from which on it knows every finished run as of now; None when it knows nothing for certain."""
        ...


class RunListing:
    """Lists the runs of one instance."""

    def __init__(self, reader: StreamReader, results: ResultStream, names: wire.Names) -> None:
        self._reader = reader
        self._results = results
        self._names = names

    async def rows(
        self, wanted: RunFilter, *, before: str | None = None, recent: FinishedRows | None = None
    ) -> AsyncGenerator[RunRow, None]:
        """The wanted runs, unfinished before finished, each part newest first; `before` is a row's cursor.

        Finished ones are read from `recent` as far back as it reaches, then from the stream. A run that finishes while
        this goes on is given once.
        """
        part, sequence = _parsed_cursor(before)
        shown: set[str] = set()
        if part == _UNFINISHED and wanted.wants_unfinished():
            async for row in self.unfinished(wanted, sequence):
                shown.add(row.run_id)
                yield row
        if wanted.wants_finished():
            sequence = sequence if part == _FINISHED else None
            # Asked after the unfinished ones were read: a run that finished in between is on one of the two sides.
            known = await recent.known_from() if recent is not None else None
            if recent is not None and known is not None and (sequence is None or sequence > known):
                async for row in recent.finished(wanted, sequence):
                    if row.run_id not in shown:
                        yield row
                sequence = known
            if sequence is None or sequence > 1:
                async for row in self._finished(wanted, sequence):
                    if row.run_id not in shown:
                        yield row

    async def _finished(self, wanted: RunFilter, before: int | None) -> AsyncGenerator[RunRow, None]:
        subject = self._names.result(wanted.request_id or "*", wanted.function or "*")
        stream = self._names.results_stream
        async for message in self._reader.backwards(stream, [subject], before=before):
            if wanted.since is not None and message.stored_at < wanted.since:
                return
            row = finished_row(message)
            if row is not None and wanted.fits(row):
                yield row

    async def unfinished(
        self, wanted: RunFilter, before: int | None = None, *, at_once: int = _AT_ONCE
    ) -> AsyncGenerator[RunRow, None]:
        """The wanted unfinished runs below that place, newest first. So many places are looked at at a time.

        RUNS is a work queue, where a second consumer is refused: its messages are read one by one, many at once."""
        state = (await self._reader.state(self._names.runs_stream)).state
        high = state.last_seq if before is None else min(state.last_seq, before - 1)
        left, first = state.messages, max(1, state.first_seq)
        while left > 0 and high >= first:
            if left * left < at_once * (high - first + 1):
                for row in await self._rows_of(await self._scattered(first, high), wanted):
                    yield row
                return
            low = max(first, high - at_once + 1)
            found = [message for message in await self._tickets(low, high) if message is not None]
            left, high = left - len(found), low - 1
            for row in await self._rows_of(found, wanted):
                yield row

    async def first_unfinished(self, function: str, limit: int) -> list[RunRow]:
        """The unfinished runs of a function that were accepted first, oldest first: those that run, if any do."""
        return await self._rows_of(await self._onwards(1, _LAST, function, limit), RunFilter())

    async def _scattered(self, first: int, high: int) -> list[StoredMessage]:
        """The few messages of a wide stretch, newest first: from each to the next, in several parts at once. A run that
        takes long leaves the place of all that finished meanwhile between itself and the others."""
        width = -(-(high - first + 1) // _PARTS)
        begins = range(first, high + 1, width)
        parts = await asyncio.gather(*(self._onwards(low, min(high, low + width - 1)) for low in begins))
        return [message for part in reversed(parts) for message in reversed(part)]

    async def _onwards(self, low: int, high: int, function: str = "*", limit: int | None = None) -> list[StoredMessage]:
        """The messages of a function between two sequences, oldest first."""
        found: list[StoredMessage] = []
        while low <= high and (limit is None or len(found) < limit):
            message = await self._reader.following(self._names.runs_stream, self._names.run(function, "*"), low)
            if message is None or message.sequence > high:
                break
            found.append(message)
            low = message.sequence + 1
        return found

    async def _tickets(self, low: int, high: int) -> list[StoredMessage | None]:
        stream = self._names.runs_stream
        return await asyncio.gather(*(self._reader.at(stream, sequence) for sequence in range(high, low - 1, -1)))

    async def _rows_of(self, messages: Sequence[StoredMessage], wanted: RunFilter) -> list[RunRow]:
        tickets = [(message, RunTicket.read(message.data)) for message in messages]
        chosen = [
            (message, ticket) for message, ticket in tickets if ticket and wanted.may_fit(ticket, message.stored_at)
        ]
        if not chosen:
            return []
        statuses, topics, sealed = await asyncio.gather(
            asyncio.gather(*(self._results.status(ticket.run_id) for _, ticket in chosen)),
            self._topics({ticket.request_id for _, ticket in chosen}),
            self._results.sealed([(ticket.request_id, ticket.function) for _, ticket in chosen]),
        )
        rows = [
            _unfinished_row(message, ticket, status, topics.get(ticket.request_id, ""))
            for (message, ticket), status in zip(chosen, statuses, strict=True)
            # Finished, though its process has not ended yet: its result is there, and it is listed by that. Its status
            # says so a moment later, or never, since statuses may be lost.
            if (ticket.request_id, ticket.function) not in sealed and (status is None or not status.state.finished)
        ]
        return [row for row in rows if wanted.fits(row)]

    async def _topics(self, request_ids: set[str]) -> dict[str, str]:
        subjects = [self._names.accepted(request_id) for request_id in sorted(request_ids)]
        found = await self._reader.between(self._names.results_stream, subjects, 1, _LAST)
        return {
            wire.header(message.headers, wire.H_REQUEST_ID) or "": wire.header(message.headers, wire.H_TOPIC) or ""
            for message in found
        }


def finished_row(message: StoredMessage) -> RunRow | None:
    """The row of a stored result, from its headers alone; None for a state or reason of a later version. Pure."""
    headers = message.headers
    try:
        state, reason = State(headers[wire.H_STATE]), Reason(headers[wire.H_REASON])
    except (KeyError, ValueError):
        return None  # a state or reason that a later version added: not for this list
    return RunRow(
        run_id=headers.get(wire.H_RUN_ID, ""),
        request_id=headers.get(wire.H_REQUEST_ID, ""),
        function=headers.get(wire.H_FUNCTION, ""),
        topic=headers.get(wire.H_TOPIC, ""),
        state=state,
        reason=reason,
        attempts=int(headers.get(wire.H_ATTEMPT) or 0),
        queued_at=_instant(headers.get(wire.H_QUEUED_AT)),
        started_at=_instant(headers.get(wire.H_STARTED_AT)),
        finished_at=_instant(headers.get(wire.H_FINISHED_AT)) or message.stored_at,
        cursor=f"{_FINISHED}{message.sequence}",
    )


def _unfinished_row(message: StoredMessage, ticket: RunTicket, status: RunStatusDocument | None, topic: str) -> RunRow:
    state = status.state if status is not None else State.QUEUED
    return RunRow(
        run_id=ticket.run_id,
        request_id=ticket.request_id,
        function=ticket.function,
        topic=status.topic if status is not None else topic,
        state=state,
        reason=None,
        attempts=len(status.attempts) if status is not None else 0,
        queued_at=message.stored_at,
        started_at=status.started_at if status is not None else None,
        finished_at=None,
        cursor=f"{_UNFINISHED}{message.sequence}",
        percent=status.percent if status is not None else None,
        text=status.text if status is not None else None,
    )


def checked_state(value: State | str | None) -> State | None:
    """The state of that name; raises `InputRefusedError` with all of them."""
    try:
        return State(value) if value is not None else None
    except ValueError as error:
        raise InputRefusedError(f"there is no state {value!a}; there are: {', '.join(State)}") from error


def checked_reason(value: Reason | str | None) -> Reason | None:
    """The reason of that name; raises `InputRefusedError` with all of them."""
    try:
        return Reason(value) if value is not None else None
    except ValueError as error:
        raise InputRefusedError(f"there is no reason {value!a}; there are: {', '.join(Reason)}") from error


def _parsed_cursor(cursor: str | None) -> tuple[str, int | None]:
    if cursor is None:
        return _UNFINISHED, None
    part, digits = cursor[:1], cursor[1:]
    if part not in (_UNFINISHED, _FINISHED) or not (
        digits.isascii() and digits.isdigit() and len(digits) <= _MAX_CURSOR_DIGITS
    ):
        raise InputRefusedError(f"{cursor[:40]!a} is not a cursor of a list of runs")
    return part, int(digits)


def _instant(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
