"""What a caller finds on its reply subject, byte by byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import NoSubscriptionError, PayloadTooLargeError
from invoker.request import ClaimCheck, Content, RequestRecord
from invoker.result import Attempt, AttemptError, Reason, Result, State, reason_info
from trigger.reply import claimed_reply, error_reply, failure_reply, no_subscription_problem, success_reply
from trigger.verdict import Verdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECORD = RequestRecord(
    request_id="r", topic="oders", received_at=NOW, accepted_at=NOW, sha256="0" * 64, catalog="c", root_request_id="r"
)


def result(reason: Reason = Reason.COMPLETED, **fields: object) -> Result:
    return Result(
        **{
            "request_id": "r",
            "run_id": "run",
            "function": "f",
            "topic": "t",
            "state": Verdict(reason).final_state,
            "reason": reason,
            "class_": reason_info(reason).result_class,
            "finished_at": NOW,
            "root_request_id": "r",
        }
        | fields
    )


def test_success_is_the_output_itself() -> None:
    reply = success_reply(result(output=Content.inline(b"\x00out", "text/csv")), 3, b"\x00out")
    assert reply.data == b"\x00out"
    assert reply.headers == {
        "Invoker-Request-Id": "r",
        "Invoker-Run-Id": "run",
        "Invoker-Function": "f",
        "Invoker-State": "succeeded",
        "Invoker-Reason": "completed",
        "Invoker-Runs": "3",
        "Invoker-Finished-At": "2026-03-01T12:00:00+00:00",
        "Content-Type": "text/csv",
    }
    assert success_reply(result(), 1, b"").headers["Content-Type"] == "application/octet-stream"


def test_a_reply_tells_when_its_run_was_queued_began_and_ended() -> None:
    times = {"queued_at": NOW, "started_at": NOW + timedelta(seconds=2), "finished_at": NOW + timedelta(seconds=3.5)}
    for reply in (success_reply(result(**times), 1, b""), failure_reply(result(Reason.ERROR, **times), 1)):
        assert {name: value for name, value in reply.headers.items() if name.endswith("-At")} == {
            "Invoker-Queued-At": "2026-03-01T12:00:00+00:00",
            "Invoker-Started-At": "2026-03-01T12:00:02+00:00",
            "Invoker-Finished-At": "2026-03-01T12:00:03.500000+00:00",
        }


def test_a_large_output_is_its_claim_check() -> None:
    claim = ClaimCheck(object="output/x", size_bytes=10**7, sha256="0" * 64)
    reply = claimed_reply(result(output=Content.claimed(claim, "text/csv")), 1, claim)
    assert ClaimCheck.model_validate_json(reply.data) == claim
    assert ClaimCheck.model_validate_json(reply.headers["Invoker-Claim"]) == claim
    assert reply.headers["Content-Type"] == "text/csv", "of the bytes, not of the claim check"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.COMPLETED])
def test_a_failure_is_a_problem(reason: Reason) -> None:
    reply = failure_reply(result(reason, message="because"), 2)
    problem = json.loads(reply.data)
    assert (problem["code"], problem["status"], problem["detail"]) == (
        str(reason),
        reason_info(reason).http_status,
        "because",
    )
    assert (problem["request_id"], problem["run_id"], problem["function"]) == ("r", "run", "f")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["Nats-Service-Error-Code"] == str(problem["status"])
    assert reply.headers["Nats-Service-Error"] == "because"
    assert reply.headers["Invoker-Runs"] == "2"


def test_a_problem_tells_what_the_last_attempt_raised() -> None:
    attempts = (Attempt(number=1), Attempt(number=2, error=AttemptError(type="KeyError", message="'n'")))
    problem = json.loads(failure_reply(result(Reason.ERROR, attempts=attempts), 1).data)
    assert (problem["attempts"], problem["error"]["type"]) == (2, "KeyError")


@given(st.text(max_size=400))
def test_whatever_a_function_raises_fits_into_a_header(words: str) -> None:
    header = failure_reply(result(Reason.ERROR, message=words), 1).headers["Nats-Service-Error"]
    assert header
    assert header.isascii()
    assert len(header) <= 200
    assert "\r" not in header
    assert "\n" not in header


def test_an_event_that_became_no_run() -> None:
    reply = error_reply(PayloadTooLargeError("too large", limit_bytes=5), "r")
    problem = json.loads(reply.data)
    assert (problem["code"], problem["status"], problem["limit_bytes"], problem["request_id"]) == (
        "payload-too-large",
        413,
        5,
        "r",
    )
    assert reply.headers["Invoker-Runs"] == "0"
    assert reply.headers["Invoker-Reason"] == "payload-too-large"
    assert "Invoker-Run-Id" not in reply.headers


def test_nothing_matched_suggests_what_is_near() -> None:
    error = no_subscription_problem(RECORD, [("orders", "f"), ("orders.>", "g")])
    assert isinstance(error, NoSubscriptionError)
    assert error.message == "no subscription matches the topic 'oders'; closest: orders (f)"
    assert error.fields["suggestions"][1] == {"pattern": "orders.>", "function": "g"}
    assert no_subscription_problem(RECORD, []).message == "no subscription matches the topic 'oders'"


def test_states_of_success_and_failure() -> None:
    assert result().state is State.SUCCEEDED
    assert not result(Reason.CANCELLED).succeeded
    assert wire.H_RUNS == "Invoker-Runs"
