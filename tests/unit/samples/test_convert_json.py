"""convert: JSON, JSON Lines and text, and what is refused in words."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest

from tests.sample_functions import RecordingContext
from tests.unit.samples.converting import converted, refused, rows_of, run, types


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b'[{"a": 1}, {"a": {"b": [1, 2]}}]', [{"a": 1}, {"a": {"b": [1, 2]}}]),
        (b'{"a": [1, {"b": 2}]}', [{"a": [1, {"b": 2}]}]),
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b"[1, 2.5, null, [3]]", [{"value": 1}, {"value": 2.5}, {"value": None}, {"value": [3]}]),
        (b' "x" ', [{"value": "x"}]),
        (b"[] []\n[1]", [{"value": 1}]),
        (b"", []),
        (b" \n ", []),
        (codecs.BOM_UTF8 + b"[]", []),
        (rb'["\ud83d\ude00", "\ud800"]', [{"value": "\U0001f600"}, {"value": "\ud800"}]),
        ([{"a": 1}], [{"a": 1}]),
        ({"a": 1}, [{"a": 1}]),
    ],
)
def test_json(data: Any, rows: list[dict[str, Any]], context: RecordingContext) -> None:
    assert converted(data, context, "json") == rows


def test_json_lines(context: RecordingContext) -> None:
    assert converted(b'{"a": 1}\r\n\n  \n[2]\n"x"', context, "jsonl") == [{"a": 1}, {"value": [2]}, {"value": "x"}]


def test_text_is_a_record_a_line(context: RecordingContext) -> None:
    summary = run("one\r\n\n\tthree\f\x0b\u2028ü\nlast".encode(), context, "text")
    assert [row["text"] for row in rows_of(context)] == ["one", "", "\tthree\f\x0b\u2028ü", "last"]
    assert [row["line"] for row in rows_of(context)] == [1, 2, 3, 4]
    assert types(summary) == {"line": "integer", "text": "string"}


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (b"\0\1\2", "csv", "is binary; csv, tsv, json, jsonl and text can be converted"),
        (b'[{"a": 1}, {"a": ]', "json", "value 2 is no JSON: Expecting value"),
        (b'[{"a": 1}', "json", "value 1 of the JSON array is not followed by a comma or its end"),
        (b"[1 2]", "json", "value 1 of the JSON array is not followed by a comma or its end"),
        (b"[1,]", "json", None),
        (b"]", "json", "value 1 is no JSON: Expecting value"),
        (b"[NaN]", "json", "value 1 is no JSON: NaN is no JSON number"),
        (b"[1e999]", "json", "value 1 is no JSON: the number 1e999 is too large"),
        (b"[" + b"9" * 5000 + b"]", "json", "value 1 is no JSON: Exceeds the limit"),
        (b'["' + b"x" * 9_000_000, "json", "value 1 is longer than 8,388,608 characters"),
        (b"[" * 200_000, "json", "is nested too deeply"),
        (b'["\xff"]', "json", "holds bytes that are no text"),
        (b'{"a": 1}\n{"a": 1\n', "jsonl", "line 2 is no JSON: Expecting ',' delimiter"),
        (b"Infinity\n", "jsonl", "line 1 is no JSON: Infinity is no JSON number"),
        (b"x" * 9_000_000, "text", "line 1: a record is longer than 8,388,608 characters"),
        (b'x\n"a\n' + b"b\n" * 5_000_000, "csv", "a record is longer than 8,388,608 characters; is a quote left open?"),
        (b"," * 10_000 + b"\n", "csv", "has more than 10,000 columns"),
        (codecs.BOM_UTF16_LE + b"x\0\n\0\0\xd8", "csv", "holds bytes that are no text"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_cannot_be_converted_is_said(
    data: bytes, kind: str, sentence: str | None, context: RecordingContext
) -> None:
    if sentence is None:  # a comma too many harms nobody
        assert converted(data, context, kind) == [{"value": 1}]
        return
    message = refused(data, context, kind)
    assert message.startswith("bad: ")
    assert sentence in message


def test_an_error_early_in_a_long_file_is_found_early(context: RecordingContext) -> None:
    data = b'[{"a": 1}, {"a" 2}, ' + b'{"a": 1}, ' * 1_000_000 + b"{}]"
    assert refused(data, context, "json") == "bad: value 2 is no JSON: Expecting ':' delimiter"


def test_keys_without_end_are_refused(context: RecordingContext) -> None:
    data = "\n".join(json.dumps({f"key{number}": 1}) for number in range(10_001))
    assert "has more than 10,000 columns" in refused(data.encode(), context, "jsonl")
