"""Numbering attempts, and what a result says of the ones before: bounded, and never wrong about its own."""

from __future__ import annotations

from datetime import UTC, datetime

from invoker.gateway.run_attempts import MAX_PODS, AttemptBook, completed_attempts
from invoker.result import Reason

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)


def test_pods_are_numbered_in_the_order_of_first_sight() -> None:
    book = AttemptBook()
    assert [book.number("run", pod) for pod in "abab"] == [1, 2, 1, 2]
    assert book.number("other", "b") == 1
    assert book.number("run", "c", told=7) == 7
    assert book.number("run", "d") == 8


def test_the_first_question_is_the_start() -> None:
    book = AttemptBook()
    assert book.started_at("run", 1) is None
    book.start("run", 1, EARLIER)
    book.start("run", 1, NOW)
    assert book.started_at("run", 1) == EARLIER


def test_the_book_forgets_the_runs_that_were_quiet_for_longest() -> None:
    book = AttemptBook(max_runs=2)
    for run in ("a", "b"):
        book.start(run, 1, EARLIER)
    book.number("a", "pod")
    book.start("c", 1, EARLIER)
    assert [run for run in "abc" if book.started_at(run, 1)] == ["a", "c"]


def test_a_run_with_countless_pods_takes_bounded_memory() -> None:
    book = AttemptBook()
    numbers = [book.number("run", f"pod-{place}") for place in range(MAX_PODS + 50)]
    assert numbers[:MAX_PODS] == list(range(1, MAX_PODS + 1))
    assert set(numbers[MAX_PODS:]) == {MAX_PODS + 1}


def test_without_news_a_result_knows_its_own_attempt() -> None:
    [attempt] = completed_attempts(None, 3, EARLIER, NOW)
    assert (attempt.number, attempt.started_at, attempt.finished_at) == (3, EARLIER, NOW)
    assert attempt.reason is Reason.COMPLETED
