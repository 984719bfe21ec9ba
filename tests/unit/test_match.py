"""The matcher: its answers against the naive one of `invoker.wire`, what it remembers, and what it explains."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invoker import wire
from trigger.filter import EventAttributes, compile_filter
from trigger.function import Subscription
from trigger.match import Matcher

TOKENS = st.sampled_from(["a", "b", "c", "ab", "_x-1", "ü"])
TOPICS = st.lists(TOKENS, min_size=1, max_size=6).map(".".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    tokens = draw(st.lists(st.one_of(TOKENS, st.just("*")), min_size=0, max_size=5))
    if not tokens or draw(st.booleans()):
        tokens.append(draw(st.sampled_from([">", "*", "a"])))
    return ".".join(tokens)


def matcher_of(*given: str) -> Matcher:
    """A matcher whose functions are named by their position: f0, f1, …"""
    return Matcher((f"f{index}", Subscription(pattern)) for index, pattern in enumerate(given))


def naive(given: Iterable[str], topic: str) -> tuple[str, ...]:
    return tuple(sorted(f"f{i}" for i, pattern in enumerate(given) if wire.subject_matches(pattern, topic)))


@given(st.lists(patterns(), max_size=60), st.lists(TOPICS, min_size=1, max_size=40))
@example(["a.*", "a.*", "a.b", "a.>", "*.*", ">"], ["a.b", "a", "a.b.c"])
@example(["a.*.c", "a.*.d", "a.*"], ["a.x.c", "a.x.d", "a.x", "a.x.c.e"])
@example(["*.>", "*.*.>", "*"], ["a", "a.b", "a.b.c"])
@settings(max_examples=400, deadline=None)
def test_answers_are_those_of_the_naive_matcher(given: list[str], topics: list[str]) -> None:
    matcher = matcher_of(*given)
    for topic in topics:
        assert matcher.match_topic(topic) == naive(given, topic)
        assert matcher.match(EventAttributes(topic)) == naive(given, topic)


@given(st.lists(patterns(), max_size=30), TOPICS)
@settings(max_examples=200, deadline=None)
def test_explain_agrees_with_match_for_every_subscription(given: list[str], topic: str) -> None:
    verdicts = matcher_of(*given).explain(EventAttributes(topic))
    assert [verdict.pattern for verdict in verdicts] == given
    assert tuple(sorted(verdict.function for verdict in verdicts if verdict.matched)) == naive(given, topic)
    assert all(verdict.clause for verdict in verdicts)


@given(st.lists(patterns(), min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_subscriptions_does_not_matter(given: list[str], random) -> None:  # type: ignore[no-untyped-def] # hypothesis' Random has no public type
    named = [(f"f{index}", Subscription(pattern)) for index, pattern in enumerate(given)]
    shuffled = list(named)
    random.shuffle(shuffled)
    one, other = Matcher(named), Matcher(shuffled)
    for topic in ("a", "a.b", "a.b.c", "c.ab.a.b", "b.b.b.b.b.b"):
        assert one.match_topic(topic) == other.match_topic(topic)


def test_a_function_whose_patterns_overlap_is_named_once() -> None:
    subscriptions = [("f", Subscription(pattern)) for pattern in ("a.b", "a.*", "a.>", ">", "*.b")]
    assert Matcher(subscriptions).match(EventAttributes("a.b")) == ("f",)


def test_names_are_sorted_whatever_the_order() -> None:
    matcher = Matcher([("zeta", Subscription("a")), ("alpha", Subscription("*")), ("mid", Subscription(">"))])
    assert matcher.match_topic("a") == ("alpha", "mid", "zeta")


def test_without_subscriptions_nothing_matches() -> None:
    assert Matcher([]).match(EventAttributes("a.b")) == ()


def test_a_filter_decides_per_event_and_not_per_topic() -> None:
    """The topic is remembered after the first event; the filter must be asked again for the second."""
    matcher = Matcher([("json", Subscription("a", compile_filter({"exact": {"type": "json"}})))])
    assert matcher.match(EventAttributes("a", type="json")) == ("json",)
    assert matcher.match(EventAttributes("a", type="xml")) == ()
    assert matcher.match_topic("a") == ("json",)


def test_a_subscription_without_filter_wins_over_one_with() -> None:
    never = compile_filter({"exact": {"type": "never"}})
    matcher = Matcher(
        [("f", Subscription("a.*", never)), ("f", Subscription("a.b")), ("g", Subscription("a.>", never))]
    )
    assert matcher.match(EventAttributes("a.b")) == ("f",)


def test_the_functions_with_and_without_filter_are_sorted_together() -> None:
    is_big = compile_filter({"prefix": {"size-bytes": "9"}})
    matcher = Matcher([("b", Subscription("x")), ("a", Subscription("x", is_big)), ("c", Subscription("x", is_big))])
    assert matcher.match(EventAttributes("x", size_bytes=9)) == ("a", "b", "c")


def test_what_is_remembered_is_bounded_and_stays_right() -> None:
    matcher = Matcher([("f0", Subscription("a.*")), ("f1", Subscription("a.>"))], remembered_names=100)
    for round_ in range(3):
        for number in range(200):
            assert matcher.match_topic(f"a.{number}") == ("f0", "f1"), round_
            assert len(matcher._recent) + len(matcher._older) <= 100


@pytest.mark.parametrize(
    ("pattern", "topic", "clause"),
    [
        ("a.b", "a.c", "token 2 is 'c', wanted 'b'"),
        ("a.b", "a", "the topic ends after token 1, the pattern goes on with 'b'"),
        ("a.*", "a", "the topic ends after token 1, the pattern goes on with '*'"),
        ("a.>", "a", "the topic ends after token 1, the pattern goes on with at least one more token"),
        ("a", "a.b", "the pattern ends after token 1, the topic goes on with 'b'"),
        ("*.b.>", "x.c.d", "token 2 is 'c', wanted 'b'"),
        ("a.>", "a.b.c", "the topic fits"),
    ],
)
def test_explain_names_the_token_that_decided(pattern: str, topic: str, clause: str) -> None:
    [verdict] = matcher_of(pattern).explain(EventAttributes(topic))
    assert verdict.clause == clause


def test_explain_names_the_filter_clause_that_decided() -> None:
    document = {"all": [{"prefix": {"topic": "a"}}, {"suffix": {"topic": ".gz"}}]}
    matcher = Matcher([("f", Subscription("a.*", compile_filter(document)))])
    [refused] = matcher.explain(EventAttributes("a.zip"))
    [fitting] = matcher.explain(EventAttributes("a.gz"))
    assert not refused.matched
    assert refused.clause == "filter all[1].suffix.topic does not fit: topic is 'a.zip', wanted ending in '.gz'"
    assert fitting.matched
    assert fitting.clause == "filter all fits: all 2 fit"
