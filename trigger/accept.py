"""Accept: the request record, then one run message per function. What is repeated changes nothing.

Why this order: the record fixes, once and by one catalog snapshot, which functions run. Only then are runs written, and
only after all of them is the event acked (by intake). A redelivered event finds the record and completes *its* list.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from invoker.claimcheck import ClaimStore
from invoker.errors import BackPressureError, ClaimCheckError, IdempotencyMismatchError, InvokerError
from invoker.publish import EventPublisher
from invoker.request import Content, Event, RequestRecord, RunTicket
from invoker.result import Result
from invoker.results.nats import ResultStream
from trigger.moments import Moment, Moments
from trigger.room import ResultsRoom, needed_bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request whose record is stored and whose unfinished runs are all queued. `new` is False for a repeat, and
    then `finished` holds the results that its runs have already."""

    record: RequestRecord
    new: bool
    finished: tuple[Result, ...] = ()


class Acceptor:
    """Turns matched events into stored requests and queued runs."""

    def __init__(
        self, results: ResultStream, claims: ClaimStore, publisher: EventPublisher, room: ResultsRoom, moments: Moments
    ) -> None:
        self._results = results
        self._claims = claims
        self._publisher = publisher
        self._room = room
        self._moments = moments

    async def accept(
        self, event: Event, functions: tuple[str, ...], catalog: str, *, now: datetime, repeated: bool
    ) -> Accepted:
        """When this returns record and runs are stored. Safe to repeat, also by two controllers at once.

        Raises `IdempotencyMismatchError` when the request id was used for another body or topic (the first one
        stands), `ClaimCheckError` when the event's bytes are gone, `BackPressureError` when a stream is full.
        """
        existing = await self._results.record(event.request_id) if repeated else None
        new = False
        if existing is None:
            # Before the body is stored: what is refused here comes back every second.
            await self._room.take(needed_bytes(event, len(functions), self._publisher.claim_threshold()))
            existing, new = await self._create(event, functions, catalog, now)
        if existing is None:
            raise InvokerError(f"the record of {event.request_id} expired while its event was being accepted")
        self._moments.reached(Moment.RECORD_WRITTEN)
        check_same(event, existing)
        # A run that has its result left the queue for good; putting it back would only make a second reply.
        finished = () if new else await self._finished(existing)
        await self._queue_runs(existing, {result.function for result in finished})
        return Accepted(existing, new, finished)

    async def knows(self, request_id: str) -> bool:
        """Whether the request was accepted already: then its runs are fixed, whatever the catalog says now."""
        return await self.record(request_id) is not None

    async def record(self, request_id: str) -> RequestRecord | None:
        """What a request was accepted as; None when it is unknown, or its retention is over."""
        return await self._results.record(request_id)

    async def _create(
        self, event: Event, functions: tuple[str, ...], catalog: str, now: datetime
    ) -> tuple[RequestRecord | None, bool]:
        """The stored record, and whether it is this one. Raises `ClaimCheckError` when there is none to be made."""
        try:
            record = record_of(event, functions, catalog, await self._body(event), now)
        except ClaimCheckError:
            # Accepted before its bytes were removed: its runs are fixed, and each of them says what is wrong.
            existing = await self._results.record(event.request_id)
            if existing is None:
                raise
            return existing, False
        # A body that came as a claim check is its publisher's, and stays.
        own = record.body.claim if event.content.claim is None else None
        try:
            if await self._results.put_record(record):
                return record, True
        except BackPressureError:
            # Surely not stored, and it comes back every second: what was put for it would pile up meanwhile.
            await self._claims.withdraw(own, kept=None)
            raise
        existing = await self._results.record(event.request_id)
        await self._claims.withdraw(own, kept=existing.body.claim if existing is not None else None)
        return existing, False

    async def _body(self, event: Event) -> Content:
        """The body for the record: behind a claim check when the record would not fit into a message otherwise."""
        content = event.content
        if content.claim is not None:
            # Used again: its retention begins anew. Raises when it is gone, before anything is promised.
            await self._claims.touch(content.claim)
            return content
        if content.size_bytes <= self._publisher.claim_threshold():
            return content
        claim = await self._claims.put(content.inline_bytes() or b"", owner="input")
        return Content.claimed(claim, content.content_type)

    async def _finished(self, record: RequestRecord) -> tuple[Result, ...]:
        results = await asyncio.gather(
            *(self._results.result(record.request_id, function) for function in record.functions)
        )
        return tuple(result for result in results if result is not None)

    async def _queue_runs(self, record: RequestRecord, finished: set[str]) -> None:
        await asyncio.gather(
            *(
                self._put_ticket(RunTicket(run_id=run_id, request_id=record.request_id, function=function))
                for function, run_id in record.run_ids().items()
                if function not in finished
            )
        )

    async def _put_ticket(self, ticket: RunTicket) -> None:
        await self._results.put_ticket(ticket)
        self._moments.reached(Moment.SOME_RUNS_WRITTEN)


def record_of(event: Event, functions: tuple[str, ...], catalog: str, body: Content, now: datetime) -> RequestRecord:
    """The record that an event becomes. Pure."""
    return RequestRecord(
        request_id=event.request_id,
        message_id=event.message_id,
        topic=event.topic,
        received_at=event.received_at,
        accepted_at=now,
        sha256=event.sha256,
        catalog=catalog,
        functions=functions,
        reply_to=event.reply_to,
        root_request_id=event.root_request_id or event.request_id,
        parent_run_id=event.parent_run_id,
        hops=event.hops,
        replay_of=event.replay_of,
        headers=dict(event.headers),
        params=dict(event.params),
        body=body,
    )


def check_same(event: Event, record: RequestRecord) -> None:
    """Raise `IdempotencyMismatchError` when the event is not the one its record was made of.

    For an event that a run caused the first body wins silently: its id derives from the run, and a repeated attempt
    may well say something else.
    """
    if event.parent_run_id is not None or (event.sha256, event.topic) == (record.sha256, record.topic):
        return
    what = "topic" if event.topic != record.topic else "body"
    raise IdempotencyMismatchError(
        f"request {event.request_id} exists already with another {what}; the first one stands",
        hint="use a new request id for a new request",
    )
