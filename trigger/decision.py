"""What is to be done with a delivered run: the decision of dispatch, and when a run is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from invoker.request import RequestRecord, RunTicket
from invoker.result import Reason, Result, State
from trigger.catalog import Catalog
from trigger.function import Function
from trigger.verdict import Verdict

EXPIRY_SHARE = 0.9
"""A run unfinished after this share of the retention is given up, while its record can still be read."""
BROKEN_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """Decision: start this version of the function."""

    function: Function
    record: RequestRecord


@dataclass(frozen=True, slots=True)
class Conclude:
    """Decision: the run has its result, finish it."""

    result: Result


@dataclass(frozen=True, slots=True)
class Wait:
    """Decision: not now; the run goes back for so long."""

    seconds: float
    why: str


Decision = Start | Conclude | Wait | Verdict


def decide(
    ticket: RunTicket,
    record: RequestRecord | None,
    result: Result | None,
    catalog: Catalog,
    *,
    now: datetime,
    retention_seconds: float,
) -> Decision:
    """What is to be done with a delivered run. Pure; every delivery of it asks anew."""
    if result is not None:
        return Conclude(result)
    if record is None:
        return Verdict(Reason.EXPIRED_IN_QUEUE, "its request record has expired", state=State.LOST)
    if now >= expiry_of(record, retention_seconds):
        return Verdict(Reason.EXPIRED_IN_QUEUE, f"had not started {EXPIRY_SHARE} of the retention after its acceptance")
    function = catalog.functions.get(ticket.function)
    if function is not None:
        return Start(function, record)
    if not catalog.complete:
        return Wait(BROKEN_RETRY_SECONDS, "the function cannot be loaded now")
    return Verdict(Reason.FUNCTION_REMOVED, f"function {ticket.function} left the catalog while its run was queued")


def expiry_of(record: RequestRecord, retention_seconds: float) -> datetime:
    """When the request's runs are given up."""
    return record.accepted_at + timedelta(seconds=EXPIRY_SHARE * retention_seconds)
