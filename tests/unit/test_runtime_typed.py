"""Typed data: what fits becomes an instance, what does not is told by field."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.runtime import lean_json
from invoker.runtime.event import Input, InvalidInputError
from invoker.runtime.exits import NO_RETRY
from invoker.runtime.typed import validated


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Place:
    city: str
    code: int | None = None


class Model(pydantic.BaseModel):
    number: int
    place: str = pydantic.Field(min_length=2)


@dataclass
class Everything:
    text: str
    number: int
    ratio: float
    flag: bool
    names: list[str]
    scores: dict[str, float]
    place: Place
    places: list[Place] = field(default_factory=list)
    maybe: str | None = None
    either: int | str = 0
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    day: datetime.date | None = None
    at: datetime.datetime | None = None
    pair: tuple[int, str] = (0, "")
    row: tuple[int, ...] = ()
    tags: frozenset[str] = frozenset()
    anything: Any = None
    noted: Annotated[int, "a note"] = 0
    model: Model | None = None
    plain: list = field(default_factory=list)  # type: ignore[type-arg]  # handlers write such things


WHOLE = {
    "text": "t", "number": 1, "ratio": 2, "flag": True, "names": ["a"], "scores": {"x": 1}, "place": {"city": "c"},
    "places": [{"city": "d", "code": 3}], "maybe": "m", "either": "e", "kind": "b", "colour": "blue",
    "day": "2026-01-02", "at": "2026-01-02T03:04:05+00:00", "pair": [1, "x"], "row": [1, 2], "tags": ["t"],
    "anything": [None], "noted": 5, "model": {"number": 1, "place": "xy"}, "plain": [1, "x"], "unknown": "ignored",
}  # fmt: skip


def given_json(value: Any) -> Input:
    return Input("application/json", "/nowhere", data=lean_json.dumps(value).encode())


def problems(model: type, value: Any) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as raised:
        validated(model, given_json(value))
    error = raised.value
    assert error.exit_code == NO_RETRY
    assert error.reason == "invalid-input"
    assert error.errors
    for one in error.errors[:5]:
        assert one["detail"] in error.message
    return {one["pointer"]: one["detail"] for one in error.errors}


def test_what_fits_becomes_an_instance() -> None:
    found = validated(Everything, given_json(WHOLE))
    assert found == Everything(
        text="t", number=1, ratio=2.0, flag=True, names=["a"], scores={"x": 1.0}, place=Place("c"),
        places=[Place("d", 3)], maybe="m", either="e", kind="b", colour=Colour.BLUE, day=datetime.date(2026, 1, 2),
        at=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), pair=(1, "x"), row=(1, 2),
        tags=frozenset({"t"}), anything=[None], noted=5, model=Model(number=1, place="xy"), plain=[1, "x"],
    )  # fmt: skip
    assert type(found.ratio) is float


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"text": 3}, {"/text": "must be a text, is a whole number"}),
        ({"number": "1"}, {"/number": "must be a whole number, is a text"}),
        ({"number": True}, {"/number": "must be a whole number, is a boolean"}),
        ({"number": 1.0}, {"/number": "must be a whole number, is a number"}),
        ({"ratio": "x"}, {"/ratio": "must be a number, is a text"}),
        ({"flag": 1}, {"/flag": "must be true or false, is a whole number"}),
        ({"names": "a"}, {"/names": "must be a list, is a text"}),
        ({"names": [{}, None]}, {"/names/0": "must be a text, is an object", "/names/1": "must be a text, is null"}),
        ({"scores": {"a/b": "x"}}, {"/scores/a~1b": "must be a number, is a text"}),
        ({"scores": []}, {"/scores": "must be an object, is a list"}),
        ({"place": None}, {"/place": "must be an object, is null"}),
        ({"place": {}}, {"/place/city": "is missing"}),
        ({"places": [{"city": 1}]}, {"/places/0/city": "must be a text, is a whole number"}),
        ({"maybe": 1}, {"/maybe": "must be a text, is a whole number"}),
        ({"either": []}, {"/either": "fits none of int, str"}),
        ({"kind": "c"}, {"/kind": "must be one of 'a', 'b', is a text"}),
        ({"colour": "green"}, {"/colour": "must be one of 'red', 'blue'"}),
        ({"day": "x"}, {"/day": "must be an ISO 8601 date"}),
        ({"at": 3}, {"/at": "must be an ISO 8601 datetime"}),
        ({"pair": [1]}, {"/pair": "must be a list of 2, is a list"}),
        ({"row": [1, "x"]}, {"/row/1": "must be a whole number, is a text"}),
        ({"model": {"number": 1, "place": "x"}}, {"/model/place": "String should have at least 2 characters"}),
        ({"text": [], "ratio": "x"}, {"/text": "must be a text, is a list", "/ratio": "must be a number, is a text"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_by_field(change: dict[str, Any], wanted: dict[str, str]) -> None:
    assert problems(Everything, WHOLE | change) == wanted


def test_missing_fields_are_all_told() -> None:
    found = problems(Everything, {})
    assert set(found.values()) == {"is missing"}
    assert list(found) == ["/text", "/number", "/ratio", "/flag", "/names", "/scores", "/place"]


@pytest.mark.parametrize("value", [None, 3, "x", [], [{}]])
def test_what_is_no_object_is_told_as_a_whole(value: Any) -> None:
    assert list(problems(Place, value)) == [""]


def test_a_pydantic_model_validates_itself() -> None:
    assert validated(Model, given_json({"number": 1, "place": "xy"})) == Model(number=1, place="xy")
    found = problems(Model, {"number": "x", "place": "y"})
    assert set(found) == {"/number", "/place"}
    with pytest.raises(InvalidInputError, match="Invalid JSON"):
        validated(Model, Input("application/json", "/nowhere", data=b"{"))


def test_a_check_of_the_dataclasss_own_is_told() -> None:
    @dataclass
    class Checked:
        number: int

        def __post_init__(self) -> None:
            if self.number > 3:
                raise ValueError("number is above 3")

    assert problems(Checked, {"number": 4}) == {"": "number is above 3"}


def test_a_field_that_nobody_can_check_is_the_functions_fault() -> None:
    @dataclass
    class Strange:
        number: complex

    with pytest.raises(TypeError, match="/number: the runtime cannot check a field of type complex"):
        validated(Strange, given_json({"number": 1}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["text", "number", "place", "city", "names", "x"]), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_whatever_comes_is_an_instance_or_a_refusal(value: Any) -> None:
    try:
        found = validated(Place, given_json(value))
    except InvalidInputError:
        return
    assert isinstance(found.city, str)
    assert found.code is None or type(found.code) is int
