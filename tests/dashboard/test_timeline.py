"""The drawing of a run's time, and what is said of its attempts, its log and what to do next."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from invoker.gateway.dashboard.advice import _RUNBOOKS, _STEPS, advice
from invoker.gateway.dashboard.run_facts import attempt_columns, invoker_lines, kubectl_lines, spec_used
from invoker.gateway.dashboard.run_log_view import MAX_LINES, log_view, look_of
from invoker.gateway.dashboard.timeline import NARROWEST, WIDTH, Timeline, timeline
from invoker.gateway.request_documents import RunDetail
from invoker.result import Attempt, Reason, Result, RunStatusDocument, State, reason_info
from invoker.views import FunctionInfo, LogLine, RunView
from trigger.verdict import Verdict

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def attempt(number: int, start: float, end: float | None = None, reason: Reason | None = None) -> Attempt:
    return Attempt(number=number, started_at=at(start), finished_at=None if end is None else at(end), reason=reason)


def drawn(state: State, *attempts: Attempt, finished: float | None = None, **more: Any) -> Timeline:
    given = {"queued_at": BEGIN, "dispatched_at": None, "now": at(100)} | more
    return timeline(state=state, attempts=attempts, finished_at=None if finished is None else at(finished), **given)


def told(time: Timeline) -> list[tuple[str, float, bool]]:
    return [(one.name, one.seconds, one.goes_on) for one in time.segments]


def test_a_run_that_was_tried_again_has_all_of_its_stretches_without_a_gap() -> None:
    time = drawn(State.SUCCEEDED, attempt(1, 10, 30, Reason.ERROR), attempt(2, 50, 90, Reason.COMPLETED), finished=100)
    assert told(time) == [
        ("queued and starting", 10, False),
        ("attempt 1", 20, False),
        ("pause before the next attempt", 20, False),
        ("attempt 2", 40, False),
        ("finishing", 10, False),
    ]
    assert [one.kind for one in time.segments] == ["waiting", "failed", "pause", "attempt", "finishing"]
    assert [(one.x, one.width) for one in time.segments] == [(0, 100), (100, 200), (300, 200), (500, 400), (900, 100)]
    assert time.seconds == 100
    assert "attempt 2 40.0 s" in time.words


@pytest.mark.parametrize(
    ("state", "attempts", "more", "expected"),
    [
        (State.QUEUED, (), {}, [("queued", 100, True)]),
        (State.STARTING, (), {"dispatched_at": at(30)}, [("queued", 30, False), ("starting", 70, True)]),
        (State.STARTING, (), {}, [("queued and starting", 100, True)]),
        (State.RUNNING, (attempt(1, 40),), {}, [("queued and starting", 40, False), ("attempt 1", 60, True)]),
        (
            State.RUNNING,
            (attempt(1, 40, 60, Reason.ERROR),),
            {},
            [("queued and starting", 40, False), ("attempt 1", 20, False), ("pause before the next attempt", 40, True)],
        ),
        (
            State.RUNNING,
            (attempt(1, 40, 60, Reason.COMPLETED),),
            {},
            [("queued and starting", 40, False), ("attempt 1", 20, False), ("finishing", 40, True)],
        ),
        (State.RUNNING, (Attempt(number=1),), {}, [("since it was queued", 100, True)]),
        (State.RUNNING, (), {"queued_at": None}, []),
    ],
)
def test_what_goes_on_reaches_to_now(state: State, attempts: Any, more: Any, expected: Any) -> None:
    assert told(drawn(state, *attempts, **more)) == expected


def test_the_wait_of_a_run_is_parted_where_its_engine_got_it() -> None:
    one = attempt(1, 40, 90, Reason.COMPLETED)
    ran = [("attempt 1", 50, False), ("finishing", 10, False)]
    finished = drawn(State.SUCCEEDED, one, finished=100, dispatched_at=at(30))
    assert told(finished) == [("queued", 30, False), ("starting", 10, False), *ran]
    never = drawn(State.FAILED, finished=100, dispatched_at=at(30))
    assert told(never) == [("queued", 30, False), ("starting", 70, False)]
    rounded = drawn(State.SUCCEEDED, one, finished=100, dispatched_at=at(40.9))
    assert told(rounded) == [("queued", 40, False), ("starting", 0, False), *ran]
    taken_over = drawn(State.SUCCEEDED, one, finished=100, dispatched_at=at(60))
    assert told(taken_over) == [("queued and starting", 40, False), *ran], "asked for again by a second controller"


def test_a_run_that_never_began_and_one_whose_attempts_are_unknown_are_drawn_too() -> None:
    assert told(drawn(State.FAILED, finished=3)) == [("waiting", 3, False)]
    assert told(drawn(State.LOST, Attempt(number=1), finished=3)) == [("waiting", 3, False)]


def test_clocks_that_disagree_make_no_drawing_that_leaves_its_place() -> None:
    """The times are of different machines: an attempt may seem to begin before its run was queued."""
    for attempts in ([attempt(1, -5, -1, Reason.ERROR), attempt(2, -3, 200)], [attempt(1, 50, 40)], [attempt(1, 300)]):
        time = drawn(State.SUCCEEDED, *attempts, finished=10)
        for one in time.segments:
            assert one.seconds >= 0
            assert 0 <= one.x <= one.x + one.width <= WIDTH


def test_what_is_short_beside_the_rest_is_seen_all_the_same() -> None:
    time = drawn(State.SUCCEEDED, attempt(1, 3600, 3600.02, Reason.COMPLETED), finished=3600.021)
    assert all(one.width >= NARROWEST for one in time.segments)
    assert all(one.x <= following.x for one, following in pairwise(time.segments))


def test_attempts_beside_each_other_are_measured_by_the_longest() -> None:
    columns = attempt_columns([attempt(1, 0, 10, Reason.ERROR), attempt(2, 20)], State.RUNNING, None, at(60))
    assert [(one.seconds, one.width, one.goes_on) for one in columns] == [(10, 25, False), (40, 100, True)]
    assert attempt_columns([Attempt(number=1)], State.LOST, at(3), at(60))[0].seconds is None


def test_an_attempt_that_a_cancel_ended_looks_neither_good_nor_bad() -> None:
    """Neither in the drawing nor in its column; one that had failed before that stays so."""
    attempts = [attempt(1, 1, 3, Reason.ERROR), attempt(2, 5)]
    kinds = [one.kind for one in drawn(State.CANCELLED, *attempts, finished=9).segments]
    assert kinds == ["waiting", "failed", "pause", "ended"]
    assert [one.kind for one in attempt_columns(attempts, State.CANCELLED, at(9), at(60))] == ["failed", "ended"]
    told_so = attempt(1, 1, 3, Reason.CANCELLED)
    assert drawn(State.CANCELLED, told_so, finished=3).segments[-1].kind == "ended"


def test_an_attempt_is_drawn_alike_in_the_timeline_and_in_its_column() -> None:
    """Also one of which only the exit code is known."""
    attempts = [Attempt(number=1, started_at=at(1), finished_at=at(2), exit_code=3), attempt(2, 2, 9, Reason.COMPLETED)]
    columns = [one.kind for one in attempt_columns(attempts, State.SUCCEEDED, at(9), at(60))]
    assert columns == ["failed", "attempt"]
    kinds = [one.kind for one in drawn(State.SUCCEEDED, *attempts, finished=9).segments]
    assert [one for one in kinds if one in ("failed", "attempt")] == columns


def test_commands_are_quoted_and_of_kubernetes_only_where_it_ran_there() -> None:
    assert kubectl_lines("local", "ns/name") == ()
    assert kubectl_lines("kubernetes", None) == kubectl_lines("kubernetes", "name") == ()
    lines = kubectl_lines("kubernetes", "jobs/run-1; rm -rf /")
    assert lines[0] == "kubectl -n jobs get job 'run-1; rm -rf /' -o yaml"
    assert any(" logs " in line for line in lines)
    assert any("describe job" in line for line in lines)
    unfinished = RunDetail(request_id="r", run_id="x", function="f", topic="t", state=State.RUNNING)
    assert "invoker runs cancel x" in invoker_lines(unfinished)
    ended = unfinished.model_copy(update={"reason": Reason.ERROR})
    assert "invoker runs replay x" in invoker_lines(ended)


def test_the_version_that_ran_is_compared_with_the_present_one() -> None:
    function = FunctionInfo(name="f", spec_hash="abc", command=("echo", "a b"))
    assert spec_used("abc", function, None).same is True
    assert spec_used("abc", function, None).command == "echo 'a b'"
    other = spec_used("def", function, None)
    assert other.same is False
    assert "another version" in other.words
    assert spec_used(None, function, None).same is None
    assert "not in the catalog" in spec_used("abc", None, None).words
    assert "not known" in spec_used("abc", None, "no controller has answered yet").words


@pytest.mark.parametrize("text", ["ERROR: no", "ValueError: x", "Traceback (most recent call last):", "kernel panic"])
def test_lines_that_look_like_trouble_are_counted(text: str) -> None:
    view = log_view([LogLine(text), LogLine("a Warning"), LogLine("fine")], 3)
    assert (look_of(text), view.bad, view.warnings, view.by_attempt) == ("bad", 1, 1, False)


def test_a_log_is_cut_into_attempts_and_says_what_it_leaves_out() -> None:
    lines = [LogLine("a", 1, "stdout"), LogLine("b", 1, "stderr"), LogLine("c", 2, "stdout")]
    view = log_view(lines, 3 + MAX_LINES)
    assert [(part.attempt, len(part.lines)) for part in view.parts] == [(1, 2), (2, 1)]
    assert (view.left_out, view.by_attempt) == (MAX_LINES, True)
    assert len(log_view([LogLine("x" * 100_000)], 1).parts[0].lines[0].text) < 5_000


def ended(reason: Reason, message: str = "") -> RunView:
    state = Verdict(reason).final_state
    result = Result(
        request_id="r", run_id="x", function="f", topic="t", state=state, reason=reason, message=message,
        finished_at=BEGIN, root_request_id="r",
    )  # fmt: skip
    return RunView("r", "x", "f", state, reason, result)


def unfinished(state: State, **status: Any) -> RunView:
    document = RunStatusDocument(
        run_id="x", request_id="r", function="f", topic="t", state=state, at=BEGIN, **status
    )  # fmt: skip
    return RunView("r", "x", "f", state, None, None, document if status else None)


def test_every_reason_says_what_to_do_next() -> None:
    assert set(_STEPS) == set(Reason)
    for reason in Reason:
        given = advice(ended(reason, "it used too much"), None, None)
        assert given.happened.startswith(reason_info(reason).meaning)
        assert "It used too much." in given.happened
        assert bool(given.next) == (reason is not Reason.COMPLETED)


def test_the_words_name_what_there_is() -> None:
    """Sections of the runbooks and settings are where the words say."""
    docs = Path(__file__).parents[2] / "docs"
    sections = set(re.findall(r"^## (\w+)$", (docs / "runbooks.md").read_text(), re.MULTILINE))
    settings = set(re.findall(r"`(INVOKER_\w+)`", (docs / "configuration.md").read_text()))
    assert set(_RUNBOOKS.values()) <= sections
    text = (Path(inspect.getfile(advice))).read_text()
    assert set(re.findall(r'"(Invoker[A-Z]\w+)"', text)) <= sections
    assert set(re.findall(r"INVOKER_[A-Z_]+", text)) <= settings


def test_a_message_that_only_repeats_the_reason_is_said_once_and_one_that_may_quote_a_secret_not_at_all() -> None:
    meaning = reason_info(Reason.COMPLETED).meaning
    assert advice(ended(Reason.COMPLETED, meaning), None, None).happened == meaning
    more = advice(ended(Reason.INVALID_INPUT, "the input does not fit the schema of f"), None, None)
    assert more.happened == "The input does not fit the schema of f."
    assert advice(ended(Reason.CANCELLED, "cancelled on request"), None, None).happened == "The run was cancelled."
    assert advice(ended(Reason.CANCELLED, "a mistake"), None, None).happened == "The run was cancelled. A mistake."
    raised = advice(ended(Reason.ERROR, "billing.NoMoney: 3 missing (attempt 1)"), None, None)
    assert raised.happened.endswith(" billing.NoMoney: 3 missing (attempt 1)."), "a name stays as it is"
    hidden = advice(ended(Reason.INVALID_INPUT, "'hunter2' is too short"), None, None, hides=True)
    assert "hunter2" not in hidden.happened


@pytest.mark.parametrize(
    ("run", "function", "problem", "words"),
    [
        (unfinished(State.QUEUED), FunctionInfo(name="f"), "NATS is away", "No controller answers"),
        (unfinished(State.QUEUED), None, None, "not in the catalog"),
        (unfinished(State.QUEUED), FunctionInfo(name="f", paused=True, queued=3), None, "paused: 3 runs of it wait"),
        (unfinished(State.QUEUED), FunctionInfo(name="f", status="broken"), None, "cannot be loaded"),
        (
            unfinished(State.QUEUED),
            FunctionInfo(name="f", concurrency=2, running=2, queued=1),
            None,
            "2 runs at once at most, and that many run now; 1 more waits",
        ),
        (unfinished(State.QUEUED), FunctionInfo(name="f", concurrency=2, running=1), None, "waits for a controller"),
        (unfinished(State.STARTING, engine="kubernetes", text="pulling the image"), None, None, "Pulling the image."),
        (
            unfinished(State.RUNNING, attempts=(attempt(1, 0, 1), attempt(2, 2))),
            FunctionInfo(name="f", backoff_limit=3, timeout_seconds=60),
            None,
            "Attempt 2 of at most 4",
        ),
    ],
)
def test_an_unfinished_run_says_what_it_waits_for(
    run: RunView, function: FunctionInfo | None, problem: str | None, words: str
) -> None:
    given = advice(run, function, problem)
    assert words in given.happened
    assert given.next
