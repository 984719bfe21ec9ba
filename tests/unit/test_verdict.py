"""How a run ended, as a table: from what the engine saw to the document that everybody reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Reason, State, reason_info
from trigger.engine import AttemptStatus, Phase, RunEnd, RunStatus
from trigger.plan import OutputMode
from trigger.verdict import RunFacts, Verdict, attempt_of, ended_unknown, judge, known_attempts, result_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICKET = RunTicket(run_id="run", request_id="request", function="f")
RECORD = RequestRecord(
    request_id="request", topic="t", received_at=NOW - timedelta(seconds=9), accepted_at=NOW, sha256="0" * 64,
    catalog="c", functions=("f",), root_request_id="root", parent_run_id="parent", hops=2,
)  # fmt: skip


def ended(
    state: State, reason: Reason, *, message: str = "", output: bytes | None = None, note: object = None
) -> RunStatus:
    termination = json.dumps(note).encode() if note is not None else b""
    attempt = AttemptStatus(1, NOW, NOW, 1, reason, "", termination)
    return RunStatus("run", Phase.ENDED, (attempt,), RunEnd(state, reason, message, output), "job")


GOOD = ended(State.SUCCEEDED, Reason.COMPLETED, output=b"out")


@pytest.mark.parametrize(
    ("facts", "reason", "output"),
    [
        (RunFacts(output=OutputMode.STDOUT), Reason.COMPLETED, b"out"),
        (RunFacts(output=OutputMode.TERMINATION), Reason.COMPLETED, b"out"),
        (RunFacts(output=OutputMode.API), Reason.COMPLETED, b""),
        (RunFacts(output=OutputMode.API, runtime="python"), Reason.ERROR, None),
        (RunFacts(output=OutputMode.STDOUT, runtime="python"), Reason.COMPLETED, b"out"),
    ],
)
def test_a_good_end(facts: RunFacts, reason: Reason, output: bytes | None) -> None:
    verdict, found = judge(GOOD, facts)
    assert (verdict.reason, found) == (reason, output)
    assert verdict.final_state is (State.SUCCEEDED if reason is Reason.COMPLETED else State.FAILED)


def test_a_good_end_without_output_bytes_is_empty() -> None:
    status = ended(State.SUCCEEDED, Reason.COMPLETED)
    assert judge(status, RunFacts(output=OutputMode.STDOUT)) == (Verdict(Reason.COMPLETED), b"")


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.COMPLETED])
def test_a_bad_end_keeps_the_engines_words_and_gives_no_output(reason: Reason) -> None:
    status = ended(State.FAILED, reason, message="because", output=b"never given")
    verdict, output = judge(status, RunFacts(output=OutputMode.STDOUT))
    assert (verdict.reason, verdict.message, verdict.final_state, output) == (reason, "because", State.FAILED, None)


def test_an_engine_that_knows_nothing_is_an_engine_error() -> None:
    verdict, output = judge(ended_unknown("run"), RunFacts())
    assert (verdict.reason, verdict.final_state, output) == (Reason.ENGINE, State.LOST, None)
    assert judge(RunStatus("run", Phase.ENDED), RunFacts())[0] == verdict


def test_the_runtimes_note_says_what_was_raised() -> None:
    status = ended(State.FAILED, Reason.ERROR, message="exit code 1", note={"type": "KeyError", "message": "'n'"})
    verdict, _ = judge(status, RunFacts(runtime="python"))
    assert verdict.message == "KeyError: 'n' (attempt 1)"
    nothing = ended(State.FAILED, Reason.ERROR, note={"type": "Oops", "message": ""})
    assert judge(nothing, RunFacts())[0].message == "Oops (attempt 1)"


@pytest.mark.parametrize("reason", ["invalid-input", "invalid-output", "output-too-large"])
def test_the_runtime_may_name_reasons_that_only_it_can_know(reason: str) -> None:
    note = {"type": "X", "message": "m", "reason": reason, "errors": [{"pointer": "/n"}, "no dict"]}
    verdict, _ = judge(ended(State.FAILED, Reason.ERROR, note=note), RunFacts(runtime="python"))
    assert (verdict.reason, verdict.message, verdict.errors) == (Reason(reason), "m", ({"pointer": "/n"},))


@pytest.mark.parametrize("reason", ["completed", "cancelled", "timeout", "nonsense", 7, None, ["invalid-input"]])
def test_a_function_cannot_talk_itself_into_another_reason(reason: object) -> None:
    note = {"type": "X", "message": "m", "reason": reason}
    verdict, _ = judge(ended(State.FAILED, Reason.ERROR, note=note), RunFacts(runtime="python"))
    assert verdict.reason is Reason.ERROR


@pytest.mark.parametrize("reason", [Reason.OUT_OF_MEMORY, Reason.TIMEOUT, Reason.CANCELLED, Reason.NODE_LOST])
def test_a_note_does_not_hide_what_the_engine_saw(reason: Reason) -> None:
    note = {"type": "X", "message": "m", "reason": "invalid-input"}
    assert judge(ended(State.FAILED, reason, message="seen", note=note), RunFacts())[0].message == "seen"


@pytest.mark.parametrize("termination", [b"", b"plain text", b"{", b'{"a": 1}', b"[1]", b'"text"', b"\xff{", b"{}"])
def test_anything_else_in_the_termination_file_is_no_note(termination: bytes) -> None:
    attempt = attempt_of(AttemptStatus(2, NOW, None, None, None, "", termination))
    assert (attempt.number, attempt.started_at, attempt.error) == (2, NOW, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=()), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["type", "message", "traceback", "reason", "errors", "other"])


@given(st.dictionaries(KEYS, JSON) | JSON | st.just({"type": 1, "reason": ["invalid-input"], "errors": 7}))
def test_whatever_a_function_notes_becomes_a_document(note: object) -> None:
    """A run whose result cannot be written would stay unfinished for ever."""
    status = ended(State.FAILED, Reason.ERROR, note=note)
    verdict, _ = judge(status, RunFacts(runtime="python"))
    document = result_of(TICKET, RECORD, verdict, facts=RunFacts(), status=status, now=NOW).to_json()
    assert json.loads(document)["state"] == "failed"


@pytest.mark.parametrize(
    "termination", [b'{"type":' + b"[" * 4000, b'{"type":"\\ud800"}', b'{"type":"x","message":"\\udfff"}']
)
def test_what_cannot_be_stored_again_is_no_note(termination: bytes) -> None:
    attempt = AttemptStatus(1, NOW, NOW, 1, Reason.ERROR, "", termination)
    status = RunStatus("run", Phase.ENDED, (attempt,), RunEnd(State.FAILED, Reason.ERROR, "exit code 1"))
    verdict, _ = judge(status, RunFacts(runtime="python"))
    assert verdict.message == "exit code 1"
    assert result_of(TICKET, RECORD, verdict, facts=RunFacts(), status=status, now=NOW).to_json()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_finished_state(reason: Reason) -> None:
    assert Verdict(reason).final_state.finished
    wanted = {
        Reason.COMPLETED: State.SUCCEEDED,
        Reason.TIMEOUT: State.TIMED_OUT,
        Reason.PENDING_TIMEOUT: State.TIMED_OUT,
        Reason.CANCELLED: State.CANCELLED,
        Reason.NODE_LOST: State.LOST,
        Reason.DELETED: State.LOST,
        Reason.ENGINE: State.LOST,
    }
    assert Verdict(reason).final_state is wanted.get(reason, State.FAILED)
    assert Verdict(reason, state=State.LOST).final_state is State.LOST


def test_the_document_of_a_verdict() -> None:
    facts = RunFacts("spec", "catalog", "local", OutputMode.STDOUT)
    result = result_of(
        TICKET, RECORD, Verdict(Reason.COMPLETED), facts=facts, status=GOOD, now=NOW, output=Content.inline(b"out"),
        log_tail="words",
    )  # fmt: skip
    assert (result.run_id, result.request_id, result.function, result.topic) == ("run", "request", "f", "t")
    assert (result.state, result.reason, result.class_) == (State.SUCCEEDED, Reason.COMPLETED, "success")
    assert (result.queued_at, result.started_at, result.finished_at) == (RECORD.received_at, NOW, NOW)
    assert (result.spec_hash, result.catalog, result.engine, result.job) == ("spec", "catalog", "local", "job")
    assert (result.root_request_id, result.parent_run_id, result.hops) == ("root", "parent", 2)
    assert (result.output.inline_bytes(), result.log_tail) == (b"out", "words")
    assert result.message == reason_info(Reason.COMPLETED).meaning


def test_the_document_of_a_run_whose_record_is_gone() -> None:
    verdict = Verdict(Reason.EXPIRED_IN_QUEUE, "gone", ({"pointer": ""},), state=State.LOST)
    result = result_of(TICKET, None, verdict, facts=RunFacts(), status=None, now=NOW)
    assert (result.topic, result.queued_at, result.started_at, result.attempts) == ("", None, None, ())
    assert (result.root_request_id, result.parent_run_id, result.hops) == ("request", None, 0)
    assert (result.state, result.message, result.errors) == (State.LOST, "gone", ({"pointer": ""},))


def test_attempts_so_far() -> None:
    assert known_attempts(None) == ()
    assert [attempt.number for attempt in known_attempts(GOOD)] == [1]
