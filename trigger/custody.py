"""The runs this controller holds: one owner for the table, the heartbeats that keep it, the slots that bound it.

A run is held from its delivery until its message is acked or given back. Only ids, flags and shared values are kept
per run; records and results are read again when they are needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from invoker import spans
from invoker.request import RunTicket
from trigger.engine import Phase, RunStatus
from trigger.function import Function
from trigger.verdict import RunFacts


class Once:
    """Something that comes once. An `asyncio.Event` is ten times as large, and ten thousand held runs have one each:
    here it is made for those who wait, which few do, and only for a moment."""

    __slots__ = ("_event", "_has_come")

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None
        self._has_come = False

    def is_set(self) -> bool:
        return self._has_come

    def set(self) -> None:
        self._has_come = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it has come; any number may."""
        if self._has_come:
            return
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()


@dataclass(slots=True)
class HeldRun:
    """One run in hand.

    `ack_subject` answers its latest delivery. A run that is being expired is taken `from_queue`, without a delivery:
    its message, at `sequence`, is deleted instead, unless it is delivered meanwhile. `function` is the version the run
    was started with; `status` the engine's latest level; `ended` is set once the engine says that nothing of the run
    lives any more. `start_answered` is there once the engine was asked to start the run, and is set when it has
    answered, whatever it said: in between nobody knows whether something of the run lives. `settling` is whether its
    result is being looked up or made, and `told_again` whether there was news of it meanwhile.
    """

    ticket: RunTicket
    ack_subject: str | None
    sequence: int
    from_queue: bool = False
    function: Function | None = None
    facts: RunFacts = field(default_factory=RunFacts)
    has_slot: bool = False
    started: bool = False
    started_at: datetime | None = None
    start_answered: Once | None = None
    settling: bool = False
    told_again: bool = False
    concluding: bool = False
    overdue: bool = False
    expires_at: datetime | None = None
    status: RunStatus | None = None
    ended: Once = field(default_factory=Once)
    trace_id: str | None = None

    @property
    def run_id(self) -> str:
        return self.ticket.run_id

    def ids(self) -> dict[str, str]:
        """For log lines: which run this is, and its trace once that is known."""
        ticket = self.ticket
        found = {"request_id": ticket.request_id, "run_id": ticket.run_id, "function": ticket.function}
        return found if self.trace_id is None else found | spans.in_trace(self.trace_id, ticket.run_id)


class Custody:
    """The table of held runs. Changed from the event loop only, by whole steps without an await in between."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._held: dict[str, HeldRun] = {}
        self._ended_unheld: dict[str, RunStatus] = {}

    def take(self, ticket: RunTicket, ack_subject: str, sequence: int) -> HeldRun | None:
        """The run, now held. None when it is held already: a new delivery only replaces its ack subject."""
        known = self._held.get(ticket.run_id)
        if known is not None:
            known.ack_subject = ack_subject
            return None
        held = HeldRun(ticket, ack_subject, sequence)
        self._held[ticket.run_id] = held
        end = self._ended_unheld.pop(ticket.run_id, None)
        if end is not None and end.end is not None:
            # It ended between two deliveries: the engine said so once, and nobody held it then.
            self.observe(end)
        return held

    def take_expired(self, ticket: RunTicket, sequence: int) -> HeldRun | None:
        """A run that waits in the queue for too long, to be finished without a delivery; None when it is held."""
        if ticket.run_id in self._held:
            return None
        held = HeldRun(ticket, None, sequence, from_queue=True)
        self._held[ticket.run_id] = held
        return held

    def get(self, run_id: str) -> HeldRun | None:
        return self._held.get(run_id)

    def drop(self, held: HeldRun) -> None:
        """No longer held: acked, or given back. Its slot is free from here on. Safe to repeat."""
        if self._held.get(held.run_id) is held:  # given back and delivered again, it is another one's by now
            del self._held[held.run_id]
        self.free(held)

    def free(self, held: HeldRun) -> None:
        """Give the run's slot back, if it has one."""
        if held.has_slot:
            held.has_slot = False
            self.slots.release(held.ticket.function)

    def all(self) -> list[HeldRun]:
        return list(self._held.values())

    def version(self, name: str, spec_hash: str) -> Function | None:
        """The version of a function that a held run was started with, None when no held run has it."""
        for held in self._held.values():
            if held.function is not None and held.function.name == name and held.function.spec_hash == spec_hash:
                return held.function
        return None

    def count(self, function: str) -> int:
        return sum(1 for held in self._held.values() if held.ticket.function == function)

    def observe(self, status: RunStatus) -> HeldRun | None:
        """Note the engine's level of a run; returns the run if it is held here.

        An end that is reported while nobody holds the run is kept: levels must not be missed by whoever takes it next.
        """
        held = self._held.get(status.run_id)
        if held is None:
            if status.phase is Phase.ENDED:
                self._ended_unheld[status.run_id] = status
            return None
        held.status = status
        if status.phase is Phase.ENDED:
            held.ended.set()
        return held

    def ended_unheld(self) -> list[str]:
        """Runs whose engine side has ended and that are not held here."""
        return list(self._ended_unheld)

    def take_end(self, run_id: str) -> RunStatus | None:
        """The end reported while the run was not held, handed out once."""
        return self._ended_unheld.pop(run_id, None)


class Slots:
    """Permissions to have one more run active in this process, handed out in the order they were asked for.

    No function takes the last tenth: one with ten thousand waiting runs never makes another wait for its own to end.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._reserve = max(1, total // 10) if total > 1 else 0
        self._taken: Counter[str] = Counter()
        self._used = 0
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        return self.total - self._used

    def room(self, function: str) -> int:
        """How many slots the function would get at once."""
        if self._waiting:
            return 0
        return min(self.total - self._used, self.total - self._reserve - self._taken[function])

    async def acquire(self, function: str) -> None:
        """Wait for a slot. Cancelling the wait takes none."""
        if not self._waiting and self._may(function):
            self._take(function)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (function, future)
        self._waiting.append(entry)
        self._hand_out()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(function)  # it was handed out in the same moment
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def release(self, function: str) -> None:
        self._taken[function] -= 1
        self._used -= 1
        if not self._taken[function]:
            del self._taken[function]
        self._hand_out()

    def _may(self, function: str) -> bool:
        return self._used < self.total and self._taken[function] < self.total - self._reserve

    def _take(self, function: str) -> None:
        self._taken[function] += 1
        self._used += 1

    def _hand_out(self) -> None:
        """Give free slots to the first waiters that may have one, passing over functions that have their share."""
        for entry in list(self._waiting):
            if self._used >= self.total:
                return
            function, future = entry
            if future.done():
                self._waiting.remove(entry)
            elif self._may(function):
                self._waiting.remove(entry)
                self._take(function)
                future.set_result(None)


def overdue(runs: Iterable[HeldRun], now: datetime) -> list[HeldRun]:
    """The runs whose time is over (0.9 of the retention since their acceptance) and that are not ending yet. Pure."""
    return [
        held
        for held in runs
        if held.expires_at is not None and held.expires_at <= now and not held.concluding and not held.overdue
    ]
