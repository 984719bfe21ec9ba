"""What is to be done with a delivered run: the whole table, and when a run is given up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from invoker.request import RequestRecord, RunTicket
from invoker.result import Reason, Result, State
from tests.custody.workload import function
from trigger.catalog import BrokenFunction, Catalog
from trigger.custody import HeldRun, overdue
from trigger.decision import Conclude, Start, Wait, decide, expiry_of
from trigger.dispatch import facts_of, starting_status
from trigger.function import Function
from trigger.function_code import FunctionFolder
from trigger.function_file import read_functions
from trigger.verdict import Verdict

ACCEPTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETENTION = 100.0
TICKET = RunTicket(run_id="run", request_id="r", function="f")
RECORD = RequestRecord(
    request_id="r", topic="t", received_at=ACCEPTED, accepted_at=ACCEPTED, sha256="0" * 64, catalog="c",
    functions=("f",), root_request_id="r",
)  # fmt: skip
RESULT = Result(
    request_id="r", run_id="run", function="f", topic="t", state=State.CANCELLED, reason=Reason.CANCELLED,
    finished_at=ACCEPTED, root_request_id="r",
)  # fmt: skip


def a_function(name: str = "f") -> Function:
    document = json.dumps(function(name, "t", "true", output={"from": "stdout"})).encode()
    loaded = read_functions(document, f"{name}/function.yaml", FunctionFolder(Path(name)))
    assert not loaded.broken, loaded.broken
    return loaded.functions[0]


F = a_function()
HAS_IT = Catalog.of([F])
LACKS_IT = Catalog.of([a_function("other")])
LACKS_IT_AND_IS_BROKEN = Catalog.of([], [BrokenFunction("f/function.yaml", "f/function.yaml: broken")])
BROKEN_BUT_KEPT = Catalog.of([a_function("other")], [BrokenFunction("x.yaml", "x.yaml: broken", kept=True)])


def decided(record: RequestRecord | None, result: Result | None, catalog: Catalog, after: float = 0.0) -> object:
    now = ACCEPTED + timedelta(seconds=after)
    return decide(TICKET, record, result, catalog, now=now, retention_seconds=RETENTION)


@pytest.mark.parametrize("record", [RECORD, None])
@pytest.mark.parametrize("catalog", [HAS_IT, LACKS_IT, LACKS_IT_AND_IS_BROKEN])
@pytest.mark.parametrize("after", [0, 89.9, 90, 1000])
def test_a_result_decides_before_everything_else(record: RequestRecord | None, catalog: Catalog, after: float) -> None:
    assert decided(record, RESULT, catalog, after) == Conclude(RESULT)


@pytest.mark.parametrize("catalog", [HAS_IT, LACKS_IT, LACKS_IT_AND_IS_BROKEN])
def test_without_a_record_it_is_lost(catalog: Catalog) -> None:
    verdict = decided(None, None, catalog)
    assert isinstance(verdict, Verdict)
    assert (verdict.reason, verdict.final_state) == (Reason.EXPIRED_IN_QUEUE, State.LOST)


@pytest.mark.parametrize("catalog", [HAS_IT, LACKS_IT, LACKS_IT_AND_IS_BROKEN])
def test_after_nine_tenths_of_the_retention_it_has_expired(catalog: Catalog) -> None:
    assert decided(RECORD, None, HAS_IT, 89.999) == Start(F, RECORD)
    verdict = decided(RECORD, None, catalog, 90)
    assert isinstance(verdict, Verdict)
    assert (verdict.reason, verdict.final_state) == (Reason.EXPIRED_IN_QUEUE, State.FAILED)


@pytest.mark.parametrize("catalog", [LACKS_IT, Catalog.empty(), BROKEN_BUT_KEPT])
def test_a_function_that_left_the_catalog(catalog: Catalog) -> None:
    verdict = decided(RECORD, None, catalog)
    assert isinstance(verdict, Verdict)
    assert (verdict.reason, verdict.final_state) == (Reason.FUNCTION_REMOVED, State.FAILED)
    assert "function f left the catalog" in verdict.message


def test_a_function_that_cannot_be_read_now_is_waited_for() -> None:
    waits = decided(RECORD, None, LACKS_IT_AND_IS_BROKEN)
    assert isinstance(waits, Wait)
    assert waits.seconds > 0


def test_the_present_version_is_started() -> None:
    assert decided(RECORD, None, HAS_IT) == Start(F, RECORD)


def test_when_a_request_is_given_up() -> None:
    assert expiry_of(RECORD, 100) == ACCEPTED + timedelta(seconds=90)


def test_overdue_are_only_those_that_nobody_ends_yet() -> None:
    def held(run_id: str, **fields: object) -> HeldRun:
        ticket = RunTicket(run_id=run_id, request_id="r", function="f")
        run = HeldRun(ticket, "ack", 1, expires_at=ACCEPTED)
        for name, value in fields.items():
            setattr(run, name, value)
        return run

    runs = [
        held("now"),
        held("later", expires_at=ACCEPTED + timedelta(microseconds=1)),
        held("never", expires_at=None),
        held("concluding", concluding=True),
        held("ending", overdue=True),
    ]
    assert [run.run_id for run in overdue(runs, ACCEPTED)] == ["now"]


def test_what_results_and_statuses_say_about_the_version() -> None:
    facts = facts_of(F, "catalog-1", "local")
    assert (facts.spec_hash, facts.catalog, facts.engine, facts.output) == (
        F.spec_hash,
        "catalog-1",
        "local",
        F.output.mode,
    )
    run = HeldRun(TICKET, "ack", 1, facts=facts, started_at=ACCEPTED + timedelta(seconds=1))
    status = starting_status(run, RECORD)
    assert (status.state, status.at, status.queued_at) == (State.STARTING, run.started_at, ACCEPTED)
    assert (status.spec_hash, status.topic) == (F.spec_hash, "t")
