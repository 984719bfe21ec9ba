"""What the command line makes of its arguments: bytes, content type, pairs, durations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.cli import arguments as payload
from invoker.errors import InputRefusedError


@pytest.mark.parametrize(
    ("data", "name", "wanted"),
    [
        (b"", None, None),
        (b'{"a": 1}', None, payload.JSON),
        (b" [1, 2]\n", None, payload.JSON),
        (b"12", None, payload.TEXT),
        (b'"x"', None, payload.TEXT),
        (b"{not json}", None, payload.TEXT),
        ("grüß".encode(), None, payload.TEXT),
        (b"\xff\xfe", None, payload.BYTES),
        (b"a\0b", None, payload.BYTES),
        (b"[" * 5000, None, payload.TEXT),
        (b"a,b\n", "rows.csv", "text/csv"),
        (b"{}", "x.json", payload.JSON),
        (b"{}", "x.gz", "application/gzip"),
        (b"\x89PNG", "logo.png", "image/png"),
        (b"{}", "noending", payload.JSON),
    ],
)
def test_content_type_is_guessed(data: bytes, name: str | None, wanted: str | None) -> None:
    assert payload.guess_content_type(data, name) == wanted


@given(st.binary(max_size=200))
def test_every_payload_has_a_type_unless_it_is_empty(data: bytes) -> None:
    assert (payload.guess_content_type(data) is None) == (data == b"")


def test_data_is_text_file_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(b"a\tb\n")
    assert payload.read_data(None) == payload.Payload(b"", None)
    assert payload.read_data('{"a":1}') == payload.Payload(b'{"a":1}', payload.JSON)
    assert payload.read_data(f"@{file}") == payload.Payload(b"a\tb\n", "text/tab-separated-values")


def test_a_large_file_stays_a_file(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as sparse:
        sparse.truncate(payload.READ_WHOLE_BYTES + 1)
    found = payload.read_data(f"@{file}")
    assert found == payload.Payload(file, payload.JSON)
    assert found.size_bytes == payload.READ_WHOLE_BYTES + 1
    assert payload.read_data("abc").size_bytes == 3


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match=r"cannot read .*nowhere\.json: No such file"):
        payload.read_data(f"@{tmp_path / 'nowhere.json'}")
    with pytest.raises(InputRefusedError, match="Is a directory"):
        payload.read_data(f"@{tmp_path}")


def test_pairs() -> None:
    assert payload.pairs(["a=1", "b=x=y", "c="], "--param") == {"a": "1", "b": "x=y", "c": ""}
    for wrong in ("a", "=1", "a b=1", "a:b=1", "ä=1", "a=1\n2", "a=\r"):
        with pytest.raises(ValueError, match="--header"):
            payload.pairs([wrong], "--header")


@pytest.mark.parametrize(("first", "second"), [("a=1", "a=2"), ("a=1", "a=1"), ("Level=1", "level=2")])
def test_a_pair_that_is_given_twice_is_refused_by_its_name(first: str, second: str) -> None:
    """Names travel as headers, where case does not count."""
    name = second.partition("=")[0]
    with pytest.raises(ValueError, match=f"^--param '{name}' is given twice: '{first}' and '{second}'$"):
        payload.pairs([first, "b=1", second], "--param")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("30", 30), ("0.5", 0.5), ("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("0", 0)],
)
def test_durations(text: str, wanted: float) -> None:
    assert payload.seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "x", "-1", "5 m", "5y", "m5", "1h30", "inf", "nan", "1e9"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        payload.seconds(text)


def test_json_of_any_depth_is_never_a_crash() -> None:
    assert payload.guess_content_type(json.dumps([]).encode()) == payload.JSON
    assert payload.guess_content_type(b"[" * 100_000 + b"]" * 100_000) in (payload.JSON, payload.TEXT)
