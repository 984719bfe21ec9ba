"""States, reasons and the result document: closed lists without holes, read by every version."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.request import Content
from invoker.result import Attempt, AttemptError, Reason, Result, ResultClass, RunStatusDocument, State, reason_info

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DESIGN = (
    "completed error out-of-memory timeout pending-timeout image-pull config unschedulable refused invalid-input "
    "invalid-output output-too-large function-removed expired-in-queue evicted node-lost deleted cancelled engine"
)


def result(**given: Any) -> Result:
    fields = {
        "request_id": "r",
        "run_id": "x",
        "function": "f",
        "topic": "t",
        "finished_at": NOW,
        "root_request_id": "r",
    }
    return Result.model_validate({"state": "succeeded", "reason": "completed", **fields, **given})


def test_the_list_of_reasons_is_the_agreed_one() -> None:
    assert [str(reason) for reason in Reason] == DESIGN.split()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_means_something_at_every_door(reason: Reason) -> None:
    info = reason_info(reason)
    assert info.result_class in get_args(ResultClass)
    assert re.fullmatch(r"[A-Z].*\.", info.meaning)
    succeeded = reason is Reason.COMPLETED
    assert (info.result_class == "success") == succeeded
    assert (info.exit_code == 0) == succeeded
    assert (info.http_status == 200) == succeeded
    assert info.exit_code in (0, 3, 6)


def test_states_are_unfinished_or_finished() -> None:
    unfinished = [state for state in State if not state.finished]
    assert unfinished == [State.QUEUED, State.STARTING, State.RUNNING]
    assert len(set(State)) == 8


attempts = st.builds(
    Attempt,
    number=st.integers(1, 9),
    started_at=st.one_of(st.none(), st.just(NOW)),
    exit_code=st.one_of(st.none(), st.integers(-64, 255)),
    reason=st.one_of(st.none(), st.sampled_from(Reason)),
    error=st.one_of(st.none(), st.builds(AttemptError, type=st.text(), message=st.text(), traceback=st.text())),
)


@given(
    st.sampled_from([state for state in State if state.finished]),
    st.sampled_from(Reason),
    st.lists(attempts, max_size=3).map(tuple),
    st.text(),
    st.binary(),
)
def test_a_result_is_read_as_it_was_written(
    state: State, reason: Reason, tries: tuple[Attempt, ...], message: str, output: bytes
) -> None:
    written = result(state=state, reason=reason, attempts=tries, message=message, output=Content.inline(output))
    assert Result.model_validate_json(written.to_json()) == written
    json.dumps(written.problem())


def test_keys_of_a_later_version_are_passed_over() -> None:
    document = json.loads(result().to_json())
    document |= {"later": 1}
    document["output"] |= {"later": 1}
    assert Result.model_validate_json(json.dumps(document)) == result()


def test_the_class_is_called_class_on_the_wire() -> None:
    document = json.loads(result(**{"class": "caller"}).to_json())
    assert document["class"] == "caller"
    assert "class_" not in document


def test_the_document_has_the_agreed_keys() -> None:
    assert set(json.loads(result().to_json())) >= {
        "version", "request_id", "run_id", "function", "topic", "state", "reason", "message", "class", "output",
        "attempts", "queued_at", "started_at", "finished_at", "spec_hash", "catalog", "engine", "job",
        "root_request_id", "parent_run_id", "hops", "log_tail", "labels",
    }  # fmt: skip


def test_a_failure_is_a_problem_document() -> None:
    error = AttemptError(type="ValueError", message="no such column", traceback="Traceback…")
    failed = result(
        state="failed",
        reason="error",
        message="raised ValueError",
        attempts=[{"number": 1}, Attempt(number=2, error=error)],
    )
    problem = failed.problem()
    assert (problem["code"], problem["status"], problem["attempts"]) == ("error", 502, 2)
    assert (problem["detail"], problem["run_id"]) == ("raised ValueError", "x")
    assert problem["error"]["type"] == "ValueError"
    assert result(state="lost", reason="node-lost").problem()["detail"] == reason_info(Reason.NODE_LOST).meaning


def test_a_state_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="state"):
        result(state="sleeping")


def test_a_status_is_read_as_it_was_written() -> None:
    status = RunStatusDocument(
        run_id="x", request_id="r", function="f", topic="t", state=State.RUNNING, at=NOW, percent=12.5, text="half way"
    )
    assert RunStatusDocument.model_validate_json(status.to_json()) == status


def test_the_reasons_are_documented_one_by_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text()
    for reason in Reason:
        assert f"`{reason}`" in page
