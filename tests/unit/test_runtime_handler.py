"""How a handler is found, and what it is called with."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest

from invoker.runtime.event import Event, Input, InvalidInputError
from invoker.runtime.exits import NO_RETRY
from invoker.runtime.handler import arguments, load, parameters_of
from invoker.runtime.note import AttemptFailedError


@dataclass
class Order:
    number: int


class Model(pydantic.BaseModel):
    number: int


CONTEXT = object()
GIVEN = Input("application/json", "/nowhere", data=b'{"number": 7}')


def called(handler: Callable[..., Any]) -> list[Any]:
    event = Event(GIVEN, {"topic": "t"})
    names = {id(event): "event", id(CONTEXT): "context"}
    return [names.get(id(one), one) for one in arguments(parameters_of(handler), event, CONTEXT, GIVEN)]


class Callables:
    def method(self, event: Any, context: Any) -> None: ...
    @classmethod
    def of_class(cls, event: Any) -> None: ...
    @staticmethod
    def static() -> None: ...
    def __call__(self, order: Order, context: Any) -> None: ...


def wrapped(act: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(act)
    def outer(*arguments: Any) -> Any:
        return act(*arguments)

    return outer


def annotated(order: Order, context: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "wanted"),
    [
        (lambda: None, []),
        (lambda event: None, ["event"]),
        (lambda event, context: None, ["event", "context"]),
        (lambda context, event: None, ["context", "event"]),
        (lambda context: None, ["context"]),
        (lambda e, c: None, ["event", "context"]),
        (lambda e, c=None: None, ["event", "context"]),
        (lambda event, context, extra=3: None, ["event", "context"]),
        (lambda *everything: None, ["event", "context"]),
        (Callables().method, ["event", "context"]),
        (Callables.of_class, ["event"]),
        (Callables.static, []),
        (Callables(), [Order(7), "context"]),
        (functools.partial(lambda a, event: None, 1), ["event"]),
        (wrapped(annotated), [Order(7), "context"]),
        (annotated, [Order(7), "context"]),
        (print, ["event", "context"]),
    ],
)
def test_a_handler_gets_what_it_can_take(handler: Callable[..., Any], wanted: list[Any]) -> None:
    assert called(handler) == wanted


def test_typed_data_stands_first_or_is_called_data() -> None:
    def first(order: Model) -> None: ...
    def first_then_both(order: Order, context: Any, event: Any) -> None: ...
    def named(event: Any, data: Order) -> None: ...
    def named_between(event: Any, data: Order, context: Any) -> None: ...
    def untyped(event: Any, order: Order) -> None: ...

    # Local annotations are text here (`from __future__`) that is found in this module.
    assert called(first) == [Model(number=7)]
    assert called(first_then_both) == [Order(7), "context", "event"]
    assert called(named) == ["event", Order(7)]
    assert called(named_between) == ["event", Order(7), "context"]
    assert called(untyped) == ["event", "context"], "an annotation elsewhere says nothing about the data"


def test_an_annotation_that_cannot_be_resolved_is_no_type() -> None:
    def handler(event: NotThere, context: Also.Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821 -- the point

    assert called(handler) == ["event", "context"]


def test_a_handler_that_wants_more_is_wrong() -> None:
    with pytest.raises(AttemptFailedError, match="'extra'") as raised:
        called(lambda event, context, extra: None)
    assert raised.value.exit_code == NO_RETRY


def test_data_that_does_not_fit_is_found_before_the_handler_runs() -> None:
    def handler(order: Order) -> None: ...

    given = Input("application/json", "/nowhere", data=b"{}")
    with pytest.raises(InvalidInputError, match="/number: is missing"):
        arguments(parameters_of(handler), Event(given, {}), CONTEXT, given)


# finding it


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_handler_is_found_in_a_package_too(code: Path) -> None:
    (code / "found_pkg").mkdir()
    (code / "found_pkg" / "inner.py").write_text("def handle(): return 3\n")
    assert load("found_pkg.inner.handle", str(code))() == 3
    assert sys.path[0] == str(code)


@pytest.mark.parametrize(
    ("spec", "source", "words"),
    [
        ("handle", "", "must be written module.function"),
        (".handle", "", "must be written module.function"),
        ("nowhere.handle", "x = 1", r"there is no module 'nowhere' in the function's code \(wrong_code.py\)"),
        (
            "wrong_code.hande",
            "def handle(): ...\ndef other(): ...",
            "'hande' does not exist in wrong_code.py; it has handle, other",
        ),
        ("wrong_code.handle", "handle = 3", "'handle' is not callable in wrong_code.py"),
        ("wrong_code.handle", "def handle(:\n  pass", r"\(wrong_code.py, line 1\)"),
        ("wrong_code.handle", "\n\n  x = 1\n y = 2", r"\(wrong_code.py, line 3\)"),
    ],
)
def test_a_wrong_handler_is_said_in_words(code: Path, spec: str, source: str, words: str) -> None:
    (code / "wrong_code.py").write_text(source)
    with pytest.raises(AttemptFailedError, match=words) as raised:
        load(spec, str(code))
    assert raised.value.exit_code == NO_RETRY


def test_what_the_module_raises_passes_through(code: Path) -> None:
    (code / "raising_code.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load("raising_code.handle", str(code))
