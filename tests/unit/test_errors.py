"""The errors: the tree in the docstring is the tree in the code, and what crosses a wire comes back as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import invoker.errors
from invoker.errors import InvokerError, SettingsError
from invoker.problem import error_of_problem, parsed_problem

LINE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+Error)\b(?P<words>.*?)(?:exit (?P<exit>\d+))?$")


def kinds(kind: type[InvokerError] = InvokerError) -> Iterator[type[InvokerError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == invoker.errors.__name__:
            yield from kinds(child)


def documented() -> dict[str, tuple[str | None, str | None]]:
    """Parent and exit code by name, as the docstring draws them."""
    found: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (invoker.errors.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth = len(match["indent"])
            above = [one for one in above if one[0] < depth]
            found[match["name"]] = (above[-1][1] if above else None, match["exit"])
            above.append((depth, match["name"]))
    return found


def test_the_docstring_draws_every_error_under_its_parent() -> None:
    drawn = {name: parent for name, (parent, _) in documented().items()}
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in kinds()}
    assert drawn == real | {"InvokerError": None}


def test_the_docstring_tells_every_exit_code() -> None:
    exits = {kind.__name__: kind.exit_code for kind in kinds()}
    told = {name: int(exit_code) for name, (_, exit_code) in documented().items() if exit_code}
    assert told == {name: exits[name] for name in told}
    for name, (parent, exit_code) in documented().items():
        if exit_code is None and parent not in (None, "InvokerError", "EngineError"):
            assert exits[name] == exits[str(parent)], f"{name} has its parent's exit code, or its own is drawn"


def test_codes_are_unique_and_stable_words() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_exit_codes_and_http_statuses_are_known_ones() -> None:
    for kind in kinds():
        assert kind.exit_code in (1, 2, 3, 4, 5, 6, 7)
        assert 400 <= kind.http_status <= 599


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_wire(kind: type[InvokerError]) -> None:
    error = kind("what happened", hint="what to do", run_id="abc", limit_bytes=7)
    again = error_of_problem(error.problem())
    assert type(again) is kind
    assert (again.message, again.hint, again.fields) == (
        "what happened",
        "what to do",
        {"run_id": "abc", "limit_bytes": 7},
    )


def test_a_problem_of_a_later_version_is_still_an_error() -> None:
    error = error_of_problem({"code": "not-invented-yet", "detail": "something new", "title": "x", "more": 1})
    assert type(error) is InvokerError
    assert (error.message, error.fields) == ("something new", {"more": 1})
    assert error_of_problem({}, "fallback").message == "fallback"
    assert error_of_problem({"code": "unknown", "message": "a", "self": "b", "hint": 3}).exit_code == 4


def test_problems_hold_nothing_internal() -> None:
    problem = SettingsError("INVOKER_X: no", hint="h").problem()
    assert set(problem) == {"type", "title", "status", "detail", "code", "hint"}
    assert problem["type"].endswith("/invalid-setting")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b"\xff", b'"x"'])
def test_what_is_no_problem_document_is_none(data: bytes) -> None:
    assert parsed_problem(data) is None
