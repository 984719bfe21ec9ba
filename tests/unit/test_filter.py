"""Filters against a naive evaluator, the refusals with their place, and what `explain` says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.request import Content, Event
from trigger.filter import MAX_CLAUSES, MAX_DEPTH, EventAttributes, FilterError, compile_filter

ATTRIBUTES = st.sampled_from(["topic", "id", "type", "source", "content-type", "size-bytes", "x-tenant", "X-Tenant"])
TEXTS = st.text("ab.", min_size=1, max_size=3)
CLAUSES = st.builds(
    lambda dialect, body: {dialect: body},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(ATTRIBUTES, TEXTS, min_size=1, max_size=3),
)
FILTERS = st.recursive(
    CLAUSES,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=8,
)
EVENTS = st.builds(
    EventAttributes,
    topic=TEXTS,
    id=TEXTS,
    type=st.none() | TEXTS,
    source=st.none() | TEXTS,
    content_type=st.none() | TEXTS,
    size_bytes=st.integers(0, 100),
    headers=st.dictionaries(st.sampled_from(["x-tenant", "X-Tenant", "other"]), TEXTS, max_size=1),
)


def naive(document: dict[str, Any], event: EventAttributes) -> bool:
    """The dialects as the specification words them, over plain dictionaries."""
    values = {key.lower(): value for key, value in event.headers.items()} | {
        "topic": event.topic,
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "content-type": event.content_type,
        "size-bytes": str(event.size_bytes),
    }
    [(dialect, body)] = document.items()
    if dialect == "all":
        return all(naive(part, event) for part in body)
    if dialect == "any":
        return any(naive(part, event) for part in body)
    if dialect == "not":
        return not naive(body, event)
    tests = {
        "exact": lambda a, b: a == b,
        "prefix": lambda a, b: a[: len(b)] == b,
        "suffix": lambda a, b: a[-len(b) :] == b,
    }
    return all(
        values.get(name.lower()) is not None and tests[dialect](values[name.lower()], wanted)
        for name, wanted in body.items()
    )


@given(FILTERS, st.lists(EVENTS, min_size=1, max_size=10))
@settings(max_examples=500, deadline=None)
def test_filters_are_what_the_naive_evaluator_says(document: dict[str, Any], events: list[EventAttributes]) -> None:
    compiled = compile_filter(document)
    for event in events:
        assert compiled.matches(event) is naive(document, event)


@given(FILTERS, EVENTS)
@settings(max_examples=300, deadline=None)
def test_explain_agrees_with_matches_and_names_a_clause(document: dict[str, Any], event: EventAttributes) -> None:
    verdict = compile_filter(document).explain(event)
    assert verdict.matched is naive(document, event)
    assert verdict.clause
    assert verdict.detail


@pytest.mark.parametrize(
    ("document", "event", "clause", "detail"),
    [
        (
            {"suffix": {"topic": ".gz"}},
            EventAttributes("a.zip"),
            "suffix.topic",
            "topic is 'a.zip', wanted ending in '.gz'",
        ),
        ({"exact": {"type": "x"}}, EventAttributes("a"), "exact.type", "the event has no type, wanted exactly 'x'"),
        (
            {"any": [{"exact": {"id": "1"}}, {"exact": {"id": "2"}}]},
            EventAttributes("a", id="3"),
            "any",
            "none of 2 fits: id is '3', wanted exactly '1'; id is '3', wanted exactly '2'",
        ),
        (
            {"all": [{"exact": {"id": "3"}}, {"not": {"prefix": {"X-Kind": "te"}}}]},
            EventAttributes("a", id="3", headers={"x-kind": "test"}),
            "all[1].not",
            "the opposite of: x-kind is 'test', wanted beginning with 'te'",
        ),
    ],
)
def test_explain_names_the_clause_that_decided(
    document: dict[str, Any], event: EventAttributes, clause: str, detail: str
) -> None:
    verdict = compile_filter(document).explain(event)
    assert (verdict.matched, verdict.clause, verdict.detail) == (False, clause, detail)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"suffix": {"topic": ".gz"}}, "topic ends in '.gz'"),
        ({"exact": {"Type": "a", "id": 1}}, "type is 'a' and id is '1'"),
        (
            {"all": [{"prefix": {"x": "a"}}, {"any": [{"exact": {"y": "b"}}, {"not": {"exact": {"y": "c"}}}]}]},
            "x begins with 'a' and (y is 'b' or not (y is 'c'))",
        ),
    ],
)
def test_filters_in_words(document: dict[str, Any], words: str) -> None:
    assert compile_filter(document).words == words


def test_numbers_in_a_filter_compare_with_the_decimal_text() -> None:
    compiled = compile_filter({"exact": {"size-bytes": 0}})
    assert compiled.matches(EventAttributes("a", size_bytes=0))
    assert not compiled.matches(EventAttributes("a", size_bytes=10))


def test_exact_may_ask_for_empty_text_but_an_absent_attribute_is_not_empty() -> None:
    compiled = compile_filter({"exact": {"x-tenant": ""}})
    assert compiled.matches(EventAttributes("a", headers={"X-Tenant": ""}))
    assert not compiled.matches(EventAttributes("a"))


def test_what_is_shown_of_a_value_is_short_and_printable() -> None:
    verdict = compile_filter({"exact": {"x": "y"}}).explain(EventAttributes("a", headers={"x": "\x1b[31m" + "z" * 500}))
    assert verdict.detail.isprintable()
    assert len(verdict.detail) < 150


def test_attributes_of_an_event() -> None:
    event = Event(
        topic="a.b",
        request_id="r1",
        content=Content(size_bytes=7, content_type="text/csv"),
        sha256="0" * 64,
        headers={"CE-Type": "org.made", "ce-source": "/me", "X-Tenant": "t"},
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    attributes = EventAttributes.of(event)
    names = ("topic", "id", "type", "source", "content-type", "size-bytes", "x-tenant", "missing")
    assert [attributes.get(name) for name in names] == ["a.b", "r1", "org.made", "/me", "text/csv", "7", "t", None]


def nested(depth: int) -> dict[str, Any]:
    return {"exact": {"id": "1"}} if depth == 0 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (None, (), "a filter is a mapping"),
        ({}, (), "a filter is a mapping"),
        ([], (), "a filter is a mapping"),
        ({"exact": {"id": "1"}, "not": {}}, (), "one dialect per filter, not exact, not; combine with 'all'"),
        ({"sql": "1=1"}, ("sql",), "unknown filter dialect 'sql'; known are exact, prefix, suffix, all, any, not"),
        ({"exact": "x"}, ("exact",), "'exact' wants a mapping of attribute to text"),
        ({"exact": {}}, ("exact",), "'exact' wants a mapping"),
        ({"prefix": {"id": ""}}, ("prefix", "id"), "text that is not empty"),
        ({"exact": {"id": True}}, ("exact", "id"), "put the value in quotes"),
        ({"exact": {"id": None}}, ("exact", "id"), "put the value in quotes"),
        ({"exact": {"a b": "1"}}, ("exact", "a b"), "'a b' is no attribute and no legal header name"),
        ({"all": []}, ("all",), "'all' wants a list of filters that is not empty"),
        ({"any": {"exact": {}}}, ("any",), "'any' wants a list"),
        ({"all": [{"exact": {"id": "1"}}, {"any": [3]}]}, ("all", 1, "any", 0), "a filter is a mapping"),
        ({"not": {"not": {"suffx": {"id": "1"}}}}, ("not", "not", "suffx"), "unknown filter dialect 'suffx'"),
        (nested(MAX_DEPTH + 1), ("not",) * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} levels deep"),
        ({"any": [{"exact": {"id": str(i)}} for i in range(MAX_CLAUSES + 1)]}, None, f"at most {MAX_CLAUSES} clauses"),
    ],
)
def test_refusals_name_the_place(document: Any, path: tuple[str | int, ...] | None, words: str) -> None:
    with pytest.raises(FilterError) as refused:
        compile_filter(document)
    assert words in refused.value.message
    if path is not None:
        assert refused.value.path == path


def test_the_deepest_and_the_widest_filters_are_taken() -> None:
    compile_filter(nested(MAX_DEPTH))
    compile_filter({"any": [{"exact": {"id": str(i)}} for i in range(MAX_CLAUSES)]})
