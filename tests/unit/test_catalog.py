"""The catalog: what is kept of a broken file, who owns a name, and when an unmatched event may be judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger.catalog import BrokenFunction, Catalog, LoadedFunctions, merge
from trigger.function import Function, Subscription
from trigger.plan import Code


def function(name: str, file: str | None = None, spec_hash: str = "1", topic: str = "t") -> Function:
    return Function(name, file or f"{name}/function.yaml", spec_hash, Code(), subscriptions=(Subscription(topic),))


def broken(file: str, name: str | None = None) -> BrokenFunction:
    return BrokenFunction(file, f"{file}:1: wrong", name, 1)


def loaded(*found: Function | BrokenFunction) -> LoadedFunctions:
    return LoadedFunctions(
        tuple(one for one in found if isinstance(one, Function)),
        tuple(one for one in found if isinstance(one, BrokenFunction)),
    )


def test_an_empty_catalog_is_complete_and_matches_nothing() -> None:
    catalog = Catalog.empty()
    assert catalog.complete
    assert catalog.functions == {}
    assert catalog.matcher.match_topic("a") == ()
    assert catalog.version == Catalog.empty().version


def test_a_catalog_cannot_be_changed() -> None:
    catalog = merge(None, loaded(function("a")))
    with pytest.raises(TypeError):
        catalog.functions["b"] = function("b")  # type: ignore[index] # that is the point
    with pytest.raises(AttributeError):
        catalog.broken = ()  # type: ignore[misc] # that is the point


def test_the_version_is_of_the_content_in_any_order() -> None:
    one = merge(None, loaded(function("a"), function("b")))
    other = merge(None, loaded(function("b"), function("a")))
    assert one.version == other.version
    assert len(one.version) == 12
    assert merge(None, loaded(function("a"))).version != one.version
    assert merge(None, loaded(function("a"), function("b", spec_hash="2"))).version != one.version


def test_the_matcher_knows_every_subscription() -> None:
    catalog = merge(None, loaded(function("b", topic="x.*"), function("a", topic="x.>")))
    assert catalog.matcher.match_topic("x.y") == ("a", "b")


def test_a_broken_function_keeps_its_last_good_version() -> None:
    before = merge(None, loaded(function("a"), function("b")))
    after = merge(before, loaded(function("b"), broken("a/function.yaml", "a")))
    assert after.functions == before.functions
    assert [one.kept for one in after.broken] == [True]
    assert after.complete


def test_it_is_kept_over_any_number_of_reloads_and_gone_when_the_file_is() -> None:
    catalog = merge(None, loaded(function("a")))
    for _ in range(3):
        catalog = merge(catalog, loaded(broken("a/function.yaml", "a")))
        assert list(catalog.functions) == ["a"]
    assert list(merge(catalog, loaded()).functions) == []


def test_a_file_that_cannot_be_parsed_keeps_all_its_functions() -> None:
    before = merge(None, loaded(function("a", "f.yaml"), function("b", "f.yaml"), function("c")))
    after = merge(before, loaded(function("c"), broken("f.yaml")))
    assert list(after.functions) == ["a", "b", "c"]
    assert after.complete


def test_a_broken_document_with_a_new_name_keeps_the_one_it_replaced() -> None:
    """The name itself may be what is mistyped, so a broken file removes nothing."""
    before = merge(None, loaded(function("a", "f.yaml"), function("b", "f.yaml")))
    after = merge(before, loaded(function("a", "f.yaml"), broken("f.yaml", "B")))
    assert list(after.functions) == ["a", "b"]
    assert after.complete


def test_a_good_document_removed_beside_a_broken_one_is_gone() -> None:
    before = merge(None, loaded(function("a", "f.yaml"), function("b", "f.yaml")))
    after = merge(before, loaded(broken("f.yaml", "b")))
    assert list(after.functions) == ["b"]


def test_a_function_that_moved_to_another_file_is_not_kept_in_the_old_one() -> None:
    before = merge(None, loaded(function("a", "old.yaml")))
    moved = function("a", "new.yaml", spec_hash="2")
    after = merge(before, loaded(moved, broken("old.yaml")))
    assert after.functions["a"] is moved


def test_the_broken_version_of_another_file_keeps_nothing() -> None:
    before = merge(None, loaded(function("a", "one.yaml")))
    after = merge(before, loaded(broken("two.yaml", "a")))
    assert list(after.functions) == []
    assert not after.complete


def test_a_function_that_never_was_good_leaves_the_catalog_incomplete() -> None:
    catalog = merge(None, loaded(function("a"), broken("b/function.yaml", "b")))
    assert not catalog.complete
    assert merge(catalog, loaded(function("a"), function("b"))).complete


def test_a_name_declared_twice_goes_to_the_first_file() -> None:
    catalog = merge(None, loaded(function("a", "z.yaml"), function("a", "b.yaml")))
    assert catalog.functions["a"].file == "b.yaml"
    [doubled] = catalog.broken
    assert doubled.message == "z.yaml: metadata.name: the name 'a' is used already in b.yaml"
    assert (doubled.file, doubled.name, doubled.field) == ("z.yaml", "a", "metadata.name")
    assert not catalog.complete


def test_a_name_declared_twice_stays_with_the_file_that_had_it() -> None:
    before = merge(None, loaded(function("a", "z.yaml")))
    after = merge(before, loaded(function("a", "b.yaml", "2"), function("a", "z.yaml", "3")))
    assert (after.functions["a"].file, after.functions["a"].spec_hash) == ("z.yaml", "3")
    assert [one.file for one in after.broken] == ["b.yaml"]


def test_a_name_declared_twice_in_one_file() -> None:
    catalog = merge(None, loaded(function("a", "f.yaml", "1"), function("a", "f.yaml", "2")))
    assert catalog.functions["a"].spec_hash == "1"
    assert [one.file for one in catalog.broken] == ["f.yaml"]


NAMES = st.sampled_from("abc")
FILES = st.sampled_from(["1.yaml", "2.yaml"])
FOUND = st.lists(
    st.one_of(st.builds(function, NAMES, FILES, st.sampled_from("12")), st.builds(broken, FILES, st.none() | NAMES)),
    max_size=5,
)


@given(st.lists(FOUND, min_size=1, max_size=4))
def test_merging_never_invents_loses_or_mixes_functions(history: list[list[Function | BrokenFunction]]) -> None:
    catalog: Catalog | None = None
    for found in history:
        before, catalog = catalog, merge(catalog, loaded(*found))
        known = dict(before.functions) if before else {}
        good = {one.name for one in found if isinstance(one, Function)}
        troubled = {one.file for one in catalog.broken}
        assert good <= catalog.functions.keys()
        for name, one in catalog.functions.items():
            assert one.name == name
            assert one in found or (known.get(name) is one and one.file in troubled)
        for one in catalog.broken:
            assert not one.kept or any(f.file == one.file for f in catalog.functions.values())
