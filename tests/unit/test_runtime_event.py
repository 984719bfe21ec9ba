"""The event a handler sees: a dictionary of Kubeless' keys whose data is made when it is asked for."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from invoker.runtime.event import Event, Input, InvalidInputError


def event(data: bytes = b"", content_type: str = "application/octet-stream", folder: Path = Path("/nowhere")) -> Event:
    return Event(Input(content_type, str(folder), data=data), {"event-id": "1", "topic": "t"})


@pytest.mark.parametrize(
    ("content_type", "data", "wanted"),
    [
        ("application/octet-stream", b"\xff", b"\xff"),
        ("application/json", b' {"a": 1} ', {"a": 1}),
        ("Application/JSON; charset=utf-8", b"[1]", [1]),
        ("application/vnd.x+json", b"3", 3),
        ("application/problem+json", b"null", None),
        ("text/plain", "ä".encode(), "ä"),
        ("text/csv; charset=latin-1", b"\xe4", "ä"),
        ('text/csv; charset="utf-8"', b"", ""),
        ("image/png", b"", b""),
    ],
)
def test_data_is_what_it_is_declared_to_be(content_type: str, data: bytes, wanted: Any) -> None:
    assert event(data, content_type)["data"] == wanted


@pytest.mark.parametrize(
    ("content_type", "data", "words"),
    [
        ("application/json", b"{", "the input is not JSON: .* line 1, column 2"),
        ("application/json", b"", "the input is not JSON"),
        ("application/json", b"[NaN]", "NaN is no JSON number"),
        ("text/plain", b"a\xff", "the input is not utf-8, as its content type says, at byte 1"),
        ("text/plain; charset=klingon", b"a", "the unknown character set 'klingon'"),
    ],
)
def test_data_that_is_not_what_it_is_declared_to_be(content_type: str, data: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        event(data, content_type)["data"]


def test_every_way_of_looking_gives_the_data() -> None:
    wanted = {"event-id": "1", "topic": "t", "data": [1]}

    def fresh() -> Event:
        return event(b"[1]", "application/json")

    assert fresh().get("data") == [1]
    assert fresh().get("nothing", 3) == 3
    assert dict(fresh()) == wanted
    assert {**fresh()} == wanted
    assert dict(fresh().items()) == wanted
    assert [1] in list(fresh().values())
    assert fresh() == wanted
    assert fresh().copy() == wanted
    assert copy.copy(fresh()) == wanted
    assert copy.deepcopy(fresh()) == wanted
    assert pickle.loads(pickle.dumps(fresh())) == wanted
    assert json.loads(json.dumps(fresh())) == wanted
    assert repr(fresh()) == repr(wanted)
    assert (fresh() | {"x": 1})["data"] == [1]
    assert ({"x": 1} | fresh())["data"] == [1]
    assert fresh().pop("data") == [1]
    assert {"x": 1, **fresh()}["data"] == [1]
    other: dict[str, Any] = {}
    other.update(fresh())
    assert other == wanted
    assert set(fresh()) == set(wanted)
    assert "data" in fresh()
    assert len(fresh()) == 3


def test_data_is_made_once() -> None:
    one = event(b"[1]", "application/json")
    assert one["data"] is one["data"]
    one["data"] = 3
    assert one["data"] == 3


def test_the_file_is_made_when_it_is_asked_for(tmp_path: Path) -> None:
    one = event(b"\xff{", "application/json", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert Path(one["data-file"]).read_bytes() == b"\xff{"
    assert one.get("data-file") == one["data-file"]
    with pytest.raises(KeyError):
        one["nothing"]


def test_a_large_input_stays_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"[1, 2]")
    one = Event(Input("application/json", str(tmp_path), file=str(file)), {})
    assert one["data-file"] == str(file)
    assert one["data"] == [1, 2]
