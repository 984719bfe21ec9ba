"""Suggestions for a topic that matches nothing: the right ones, in a small catalog and in a very large one."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trigger.function import Subscription
from trigger.match import Matcher
from trigger.nearest import CANDIDATES, REMEMBERED, edit_distance


def matcher_of(*given: str) -> Matcher:
    return Matcher((f"f{index}", Subscription(pattern)) for index, pattern in enumerate(given))


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("order.created", ["orders.created"]),
        ("orders.craeted", ["orders.created"]),
        ("user.17.signup", ["users.*.signup"]),
        ("logs.a.b.c", ["log.>"]),
        ("log", ["log.>"]),
        ("something.else.entirely", []),
        ("orders.created", []),
    ],
)
def test_nearest_finds_the_pattern_that_was_probably_meant(topic: str, expected: list[str]) -> None:
    matcher = matcher_of("orders.created", "users.*.signup", "log.>", "unrelated.topic.of.somebody")
    assert [pattern for pattern, _ in matcher.nearest(topic)] == expected


def test_nearest_gives_the_nearest_first_and_at_most_n() -> None:
    matcher = matcher_of("aaaaaaaa", "aaaaaabb", "aaaaaaab", "aaaaabab")
    assert matcher.nearest("aaaaaaac", n=2) == [("aaaaaaaa", "f0"), ("aaaaaaab", "f2")]


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("tenant471.order.created", ["tenant471.orders.created"]),
        ("tenantt47.orders.created", ["tenant47.orders.created"]),
        ("tenant471.orders.craeted", ["tenant471.orders.created"]),
        ("nobody.knows.this", []),
    ],
)
def test_nearest_in_a_large_catalog(topic: str, expected: list[str]) -> None:
    matcher = matcher_of(*(f"tenant{number}.orders.created" for number in range(CANDIDATES + 1)))
    assert [pattern for pattern, _ in matcher.nearest(topic, n=20) if pattern in expected or not expected] == expected


def test_nearest_answers_alike_when_it_is_asked_often() -> None:
    matcher = matcher_of("orders.created")
    for number in range(REMEMBERED * 3):
        assert matcher.nearest(f"orders.creatd{number % 10}") == [("orders.created", "f0")]
        assert matcher.nearest(f"quite.another.{number}") == []


def test_an_answer_may_be_changed_by_its_receiver() -> None:
    matcher = matcher_of("orders.created")
    matcher.nearest("orders.creatd").clear()
    assert matcher.nearest("orders.creatd") == [("orders.created", "f0")]


@given(st.text("ab.", max_size=8), st.text("ab.", max_size=8))
@example("ab", "ba")
@settings(max_examples=300, deadline=None)
def test_the_edit_distance_is_the_recursive_definition(one: str, other: str) -> None:
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        key = (i, j)
        if key not in seen:
            best = min(distance(i - 1, j) + 1, distance(i, j - 1) + 1)
            best = min(best, distance(i - 1, j - 1) + (one[i - 1] != other[j - 1]))
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                best = min(best, distance(i - 2, j - 2) + 1)
            seen[key] = best
        return seen[key]

    seen: dict[tuple[int, int], int] = {}
    exact = distance(len(one), len(other))
    assert edit_distance(one, other, 20) == exact
    assert min(edit_distance(one, other, 2), 3) == min(exact, 3)
