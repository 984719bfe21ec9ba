"""Which attempt is asking, and what a result says of the attempts before it.

All pods of a Job share one template, so an attempt is known by its pod's UID: `AttemptBook` numbers them in order of
first sight. An engine that counts by itself says the number (`Invoker-Attempt`), and then that one holds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from invoker.gateway.run_address import RunAddress
from invoker.request import RequestRecord
from invoker.result import Attempt, Reason, RunStatusDocument, State

MAX_RUNS = 20_000
MAX_PODS = 200
"""A Job that makes more pods than this has its later ones counted as one; memory stays bounded in any case."""


@dataclass(slots=True)
class _Seen:
    numbers: dict[str, int] = field(default_factory=dict)
    started: dict[int, datetime] = field(default_factory=dict)


class AttemptBook:
    """The attempts seen lately, by run: bounded, forgotten with the process. Nothing is decided from it."""

    def __init__(self, max_runs: int = MAX_RUNS) -> None:
        self._runs: OrderedDict[str, _Seen] = OrderedDict()
        self._max_runs = max_runs

    def number(self, run_id: str, pod_uid: str, told: int | None = None) -> int:
        """The attempt of a pod: the number it was told, else its place in the order of first sight, from 1."""
        numbers = self._seen(run_id).numbers
        if told is None:
            told = numbers.get(pod_uid) or max(numbers.values(), default=0) + 1
        if len(numbers) < MAX_PODS:
            numbers[pod_uid] = told
        return told

    def start(self, run_id: str, number: int, at: datetime) -> None:
        """Note when an attempt first asked for its input; later calls change nothing."""
        started = self._seen(run_id).started
        if len(started) < MAX_PODS:
            started.setdefault(number, at)

    def started_at(self, run_id: str, number: int) -> datetime | None:
        seen = self._runs.get(run_id)
        return seen.started.get(number) if seen else None

    def _seen(self, run_id: str) -> _Seen:
        seen = self._runs.setdefault(run_id, _Seen())
        self._runs.move_to_end(run_id)
        if len(self._runs) > self._max_runs:
            self._runs.popitem(last=False)
        return seen


def completed_attempts(
    status: RunStatusDocument | None, number: int, started_at: datetime | None, now: datetime
) -> tuple[Attempt, ...]:
    """The attempts for a result whose attempt `number` just gave the output: earlier ones as last heard of."""
    known = {attempt.number: attempt for attempt in status.attempts} if status else {}
    present = known.get(number) or Attempt(number=number)
    known[number] = present.model_copy(
        update={
            "started_at": present.started_at or started_at,
            "finished_at": now,
            "reason": Reason.COMPLETED,
            "error": None,
        }
    )
    return tuple(known[each] for each in sorted(known))


def running_attempts(status: RunStatusDocument | None, number: int, started_at: datetime | None) -> tuple[Attempt, ...]:
    """The attempts for a status while attempt `number` is at work."""
    known = {attempt.number: attempt for attempt in status.attempts} if status else {}
    known.setdefault(number, Attempt(number=number, started_at=started_at))
    return tuple(known[each] for each in sorted(known))


def first_status(
    address: RunAddress, record: RequestRecord, started_at: datetime | None, now: datetime
) -> RunStatusDocument:
    """The news of a run of which there were none, from what its address and its request's record say."""
    return RunStatusDocument(
        run_id=address.run_id,
        request_id=address.request_id,
        function=address.function,
        topic=record.topic,
        state=State.RUNNING,
        queued_at=record.received_at,
        started_at=started_at,
        at=now,
        engine=address.engine or None,
        job=address.job,
        spec_hash=address.spec_hash or None,
        catalog=address.catalog or None,
        root_request_id=record.root_request_id,
        parent_run_id=record.parent_run_id,
    )
