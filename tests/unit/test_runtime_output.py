"""What a handler returns, as bytes with a content type."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest

from invoker.runtime.api_client import FileBody
from invoker.runtime.output import InvalidOutputError, encode


@dataclass
class Pair:
    left: int
    right: Any


class Model(pydantic.BaseModel):
    at: datetime.datetime
    number: int = 3


AT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        (None, None, b""),
        ("grün", TEXT, "grün".encode()),
        ("", TEXT, b""),
        (b"\xff", BYTES, b"\xff"),
        (bytearray(b"a"), BYTES, b"a"),
        (memoryview(b"a"), BYTES, b"a"),
        ({"a": [1, None, "ä"]}, JSON, '{"a":[1,null,"ä"]}'.encode()),
        ([], JSON, b"[]"),
        ((1, 2), JSON, b"[1,2]"),
        (3, JSON, b"3"),
        (2.5, JSON, b"2.5"),
        (True, JSON, b"true"),
        (Pair(1, Pair(2, AT)), JSON, b'{"left":1,"right":{"left":2,"right":"2026-01-02T00:00:00+00:00"}}'),
        (Model(at=AT), JSON, b'{"at":"2026-01-02T00:00:00Z","number":3}'),
        ([Model(at=AT)], JSON, b'[{"at":"2026-01-02T00:00:00Z","number":3}]'),
    ],
)
def test_values_have_their_form(value: Any, content_type: str | None, body: bytes) -> None:
    assert encode(value, "it") == (content_type, body)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "it is a set that cannot be JSON: a value of type set has no form in JSON; return str, bytes"),
        (object(), "a value of type object"),
        ({"a": {"b": 1j}}, "it is a dict that cannot be JSON: a value of type complex"),
        (float("nan"), "it is a float that cannot be JSON"),
        ({(1, 2): 3}, "keys must be str"),
        ((one for one in ()), "a value of type generator"),
        (Pair, "it is a type that cannot be JSON"),
        ("\udc80", "it is text that is no Unicode at character 0"),
        (Path("/nowhere/at/all"), "it is the path /nowhere/at/all, which is no file"),
        (Path("/"), "it is the path /, which is no file"),
    ],
)
def test_what_has_no_form_is_said_in_words(value: Any, words: str) -> None:
    with pytest.raises(InvalidOutputError, match=words) as raised:
        encode(value, "it")
    assert raised.value.reason == "invalid-output"


def test_a_list_that_holds_itself_has_no_form() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidOutputError, match="Circular"):
        encode(ring, "it")


def test_a_path_is_its_files_content(tmp_path: Path) -> None:
    for name, content_type in (("a.CSV", "text/csv; charset=utf-8"), ("b.tar.gz", "application/gzip"), ("c", BYTES)):
        file = tmp_path / name
        file.write_bytes(b"12345")
        found, body = encode(file, "it")
        assert found == content_type
        assert isinstance(body, FileBody)
        assert (body.path, body.size) == (str(file), 5)
