"""convert: what becomes of tables of every kind, that no row is lost, and what is refused in words."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.schema import Schema
from tests.sample_functions import SAMPLES, Published, RecordingContext, event, fresh_context, load

convert = load("convert")
SUMMARY = Schema(json.loads((SAMPLES / "convert" / "summary.schema.json").read_text()))


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return fresh_context(tmp_path)


def run(data: Any, context: RecordingContext, kind: str = "csv", name: str = "a", **params: Any) -> dict[str, Any]:
    """The summary, which fits its schema, after one publication."""
    summary: dict[str, Any] = convert.handle(
        event(data, topic=f"uncompressed.{kind}", headers={"File-Name": quote(name)}, params=params), context
    )
    assert SUMMARY.problems(json.loads(json.dumps(summary))) == []
    assert len(context.published) == 1
    return summary


def rows_of(context: RecordingContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in published(context).data.decode().split("\n")[:-1]]


def published(context: RecordingContext) -> Published:
    (one,) = context.published
    return one


def converted(data: Any, context: RecordingContext, kind: str = "csv", **params: Any) -> list[dict[str, Any]]:
    run(data, context, kind, **params)
    return rows_of(context)


def refused(data: Any, context: RecordingContext, kind: str = "csv", **params: Any) -> str:
    with pytest.raises(convert.ConvertError) as caught:
        run(data, context, kind, "bad", **params)
    assert context.published == []
    return str(caught.value)


def types(summary: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["type"] for column in summary["columns"]}


# --- the whole answer --------------------------------------------------------------------------------------------


def test_the_sample_event(context: RecordingContext) -> None:
    summary = run((SAMPLES / "convert" / "event.csv").read_bytes(), context, name="dir/event.csv")
    assert rows_of(context)[1] == {
        "city": "Frankfurt\nam Main",
        "country": "DE",
        "inhabitants": 775790,
        "founded": "0794-02-22",
        "capital": False,
    }
    sent = published(context)
    assert (sent.topic, sent.content_type) == ("converted.jsonl", "application/x-ndjson")
    assert summary == {
        "name": "dir/event.csv",
        "kind": "csv",
        "rows": 3,
        "columns": [
            {"name": "city", "type": "string"},
            {"name": "country", "type": "string"},
            {"name": "inhabitants", "type": "integer"},
            {"name": "founded", "type": "date"},
            {"name": "capital", "type": "boolean"},
        ],
        "format": "jsonl",
        "bytes": len(sent.data),
        "sha256": hashlib.sha256(sent.data).hexdigest(),
        "encoding": "utf-8",
        "delimiter": ",",
        "comment_lines": 0,
        "short_rows": 0,
        "long_rows": 0,
        "latin1_lines": 0,
    }


def test_what_travels_beside_the_bytes(context: RecordingContext) -> None:
    headers = {"File-Name": "t%C3%A4.csv", "File-Path": "/s/t%C3%A4.zip", "File-Archive": "t%C3%A4.zip", "Other": "x"}
    convert.handle(event(b"x\n1\n", topic="uncompressed.csv", headers=headers), context)
    sent = published(context)
    assert sent.headers == {
        "File-Name": "t%C3%A4.jsonl",
        "File-Size": str(len(sent.data)),
        "File-Sha256": hashlib.sha256(sent.data).hexdigest(),
        "File-Rows": "1",
        "File-Path": "/s/t%C3%A4.zip",
        "File-Archive": "t%C3%A4.zip",
    }


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("a.CSV", "a.jsonl"),
        ("d/changelog.Debian", "d/changelog.Debian.jsonl"),
        ("x.json", "x.jsonl"),
        (".csv", ".csv.jsonl"),
        ("d/", "d/.jsonl"),
    ],
)
def test_the_new_name(name: str, new: str, context: RecordingContext) -> None:
    run(b"x\n", context, name=name)
    assert unquote(published(context).headers["File-Name"]) == new


def test_a_large_input_is_read_from_its_file_and_its_data_left_alone(tmp_path: Path, context: RecordingContext) -> None:
    (tmp_path / "input").write_bytes(b"x\n1\n")
    convert.handle({"topic": "t", "headers": {"file-name": "a.csv"}, "data-file": str(tmp_path / "input")}, context)
    assert rows_of(context) == [{"x": 1}]


@pytest.mark.parametrize(
    ("topic", "name", "content_type", "data", "kind"),
    [
        ("collected.tsv", "a.csv", "application/octet-stream", b"x", "tsv"),
        ("my.upload", "a.CSV", "application/json", b"{}", "csv"),
        ("my.upload", "", "text/csv; charset=utf-8", "x\n1\n", "csv"),
        ("my.upload", "a.unknown", "application/json", {"x": 1}, "json"),
        ("invoker.call.convert", "", "", b" [1]", "json"),
        ("invoker.call.convert", "", "", b"hello", "text"),
        ("invoker.call.convert", "", "", None, "text"),
    ],
)
def test_what_decides_the_kind(
    topic: str, name: str, content_type: str, data: Any, kind: str, context: RecordingContext
) -> None:
    ask = event(data, topic=topic, headers={"File-Name": name}) | {"event-type": content_type}
    assert convert.handle(ask, context)["kind"] == kind


def test_the_kind_may_be_said(context: RecordingContext) -> None:
    ask = event(b"a\tb\n", topic="uncompressed.text", params={"kind": "tsv"})
    assert convert.handle(ask, context)["kind"] == "tsv"


# --- CSV and TSV -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str, context: RecordingContext) -> None:
    text = '"a, b; c",x,1\n"d\te|f",y,"2,5;"\n'
    rows = list(csv.reader(io.StringIO(text)))
    data = io.StringIO()
    csv.writer(data, delimiter=delimiter).writerows([["p", "q", "r"], *rows])
    summary = run(data.getvalue().encode(), context)
    assert summary["delimiter"] == delimiter
    assert [list(row.values()) for row in rows_of(context)] == rows


def test_a_delimiter_may_be_given(context: RecordingContext) -> None:
    assert converted(b"a:b\n1:2\n", context, delimiter=":") == [{"a": 1, "b": 2}]


def test_one_column_has_no_delimiter_to_find(context: RecordingContext) -> None:
    assert converted(b"name\nAnna\nBo, Jr.\n", context) == [{"name": "Anna"}, {"name": "Bo", "_extra": [" Jr."]}]


def test_a_mark_at_the_beginning_is_no_part_of_the_first_name(context: RecordingContext) -> None:
    assert converted(codecs.BOM_UTF8 + b"x\n1\n", context) == [{"x": 1}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_as_spreadsheets_save_it(encoding: str, context: RecordingContext) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    summary = run(mark + "größe;x\r\n1;ä\r\n".encode(encoding), context)
    assert (rows_of(context), summary["encoding"]) == ([{"größe": 1, "x": "ä"}], "utf-16")


def test_lines_that_are_no_utf8_are_latin1_and_counted(context: RecordingContext) -> None:
    data = "x\nä\n".encode() + "ü\n".encode("latin-1") + "€\n".encode()
    summary = run(data, context)
    assert [row["x"] for row in rows_of(context)] == ["ä", "ü", "€"]
    assert (summary["encoding"], summary["latin1_lines"]) == ("utf-8", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_and_none_at_the_last_line(end: str, context: RecordingContext) -> None:
    assert converted(end.join(["x,y", "1,2", "", "3,4"]).encode(), context) == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]


def test_ragged_rows_are_kept_and_counted(context: RecordingContext) -> None:
    summary = run(b"x,y\n1\n1,2\n1,2,3,4\n", context)
    assert rows_of(context) == [{"x": 1, "y": None}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "_extra": ["3", "4"]}]
    assert (summary["short_rows"], summary["long_rows"]) == (1, 1)
    assert types(summary) == {"x": "integer", "y": "integer", "_extra": "array"}


def test_names_are_made_unique_and_made_up(context: RecordingContext) -> None:
    assert converted(b"x,,x,_extra, y ,x_2\n1,2,3,4,5,6,7\n", context) == [
        {"x": 1, "column_2": 2, "x_2": 3, "_extra_2": 4, "y": 5, "x_2_2": 6, "_extra": ["7"]}
    ]


def test_quotes_hold_lines_delimiters_and_quotes(context: RecordingContext) -> None:
    assert converted(b'x,y\n"a\n#b\r\n",","\n"""","c"\n', context) == [
        {"x": "a\n#b\r\n", "y": ","},
        {"x": '"', "y": "c"},
    ]


@pytest.mark.parametrize(("data", "rows", "columns"), [(b"", 0, []), (b"\n\n", 0, []), (b"x,y\n", 0, ["x", "y"])])
def test_nothing_and_next_to_nothing(data: bytes, rows: int, columns: list[str], context: RecordingContext) -> None:
    summary = run(data, context)
    assert (summary["rows"], types(summary)) == (rows, dict.fromkeys(columns, "null"))
    assert published(context).data == b""


TAB = b"""# A table of zones
#
#code\tcoordinates\tTZ\t\tcomments
AD\t+4230+00131\tEurope/Andorra
AQ\t-7750+16636\tAntarctica/McMurdo\tNew Zealand time
#@AQ\tAntarctica/
"""


def test_a_tab_file_names_its_columns_in_its_last_comment(context: RecordingContext) -> None:
    summary = run(TAB, context, "tsv")
    assert rows_of(context) == [
        {"code": "AD", "coordinates": "+4230+00131", "TZ": "Europe/Andorra", "comments": None},
        {"code": "AQ", "coordinates": "-7750+16636", "TZ": "Antarctica/McMurdo", "comments": "New Zealand time"},
    ]
    assert (summary["comment_lines"], summary["short_rows"]) == (4, 1)


def test_a_comment_that_is_prose_names_no_columns(context: RecordingContext) -> None:
    assert converted(b"# made by us, on Monday, for you\nx,y\n1,2\n", context) == [{"x": 1, "y": 2}]


def test_a_comment_of_fewer_names_than_fields_names_no_columns(context: RecordingContext) -> None:
    assert converted(b"#1\tof 2\nx\ty\tz\n1\t2\t3\n", context, "tsv") == [{"x": 1, "y": 2, "z": 3}]


def test_a_line_that_goes_on_inside_quotes_is_no_comment(context: RecordingContext) -> None:
    rows = converted(b'x\ty\n"a\n#b\n"\t1\n#c\t2\n', context, "tsv")
    assert rows == [{"x": "a\n#b\n", "y": 1}]


def test_below_its_head_a_csv_file_has_no_comments(context: RecordingContext) -> None:
    summary = run(b"#id,tag\n1,a\n#2,#b\n", context)
    assert rows_of(context) == [{"id": "1", "tag": "a"}, {"id": "#2", "tag": "#b"}]
    assert summary["comment_lines"] == 1


def test_comments_may_be_turned_off_or_begin_otherwise(tmp_path: Path) -> None:
    assert converted(b"#x\n#1\n", fresh_context(tmp_path), "tsv", comment="") == [{"#x": "#1"}]
    assert converted(b"//hi\nx\n1\n", fresh_context(tmp_path), "tsv", comment="//") == [{"x": 1}]


def test_columns_may_be_named_when_there_is_no_header_line(context: RecordingContext) -> None:
    assert converted(b"1,2\n3,4\n", context, columns="a, b") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-20", "0"], "integer", [1, -20, 0]),
        (["1", "", "2"], "integer", [1, None, 2]),
        (["1", "2.50"], "number", [1.0, 2.5]),
        (["1e3", "-0.5E-2"], "number", [1000.0, -0.005]),
        (["true", "FALSE"], "boolean", [True, False]),
        (["2024-02-29", ""], "date", ["2024-02-29", None]),
        (["2023-02-29"], "string", ["2023-02-29"]),
        (["007", "1"], "string", ["007", "1"]),
        (["+49", "1"], "string", ["+49", "1"]),
        (["-0"], "string", ["-0"]),
        (["1234567890123456789"], "string", ["1234567890123456789"]),
        (["1e999"], "string", ["1e999"]),
        (["nan", "inf"], "string", ["nan", "inf"]),
        ([" 1"], "string", [" 1"]),
        (["１"], "string", ["１"]),
        (["1", "true"], "string", ["1", "true"]),
        (["1", "n/a", "2"], "string", ["1", "n/a", "2"]),
        (['""', '""'], "null", [None, None]),
    ],
)
def test_types_of_text(values: list[str], kind: str, expected: list[Any], context: RecordingContext) -> None:
    data = "x,z\n" + "".join(f"{value},\n" for value in values)
    assert types(run(data.encode(), context))["x"] == kind
    assert [row["x"] for row in rows_of(context)] == expected


def test_types_of_json(context: RecordingContext) -> None:
    lines = [
        {"i": 1, "n": 1, "b": True, "s": "1", "a": [1], "o": {"x": 1}, "m": 1, "z": None, "big": 2**64},
        {"i": None, "n": 1.5, "b": False, "s": "x", "a": [], "o": {}, "m": "x", "z": None, "late": 1},
    ]
    summary = run("\n".join(map(json.dumps, lines)).encode(), context, "jsonl")
    assert types(summary) == {
        "i": "integer",
        "n": "number",
        "b": "boolean",
        "s": "string",
        "a": "array",
        "o": "object",
        "m": "mixed",
        "z": "null",
        "big": "mixed",
        "late": "integer",
    }
    assert rows_of(context) == lines


# --- JSON, JSON Lines, text --------------------------------------------------------------------------------------


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


# --- nothing is lost ---------------------------------------------------------------------------------------------

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=20)))
def test_rows_in_are_rows_out(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    """Whatever the cells hold: quotes, line ends, delimiters, comment signs, numbers, text of any script."""
    context = fresh_context(tmp_path_factory.mktemp("run"))
    width = len(rows[0]) if rows else 1
    data = io.StringIO()
    csv.writer(data, quoting=csv.QUOTE_ALL).writerows([[f"c{number}" for number in range(width)], *rows])
    summary = run(data.getvalue().encode(), context, delimiter=",")
    assert summary["rows"] == len(rows)
    kinds = list(types(summary).values())
    assert [
        [as_it_was(value, kind) for value, kind in zip(row.values(), kinds, strict=True)] for row in rows_of(context)
    ] == [[as_it_was_written(cell, kind) for cell, kind in zip(row, kinds, strict=True)] for row in rows]


def as_it_was(value: Any, kind: str) -> Any:
    return str(value) if value is not None and kind == "integer" else value


def as_it_was_written(cell: str, kind: str) -> Any:
    if not cell:
        return None
    return {"number": float, "boolean": lambda text: text.lower() == "true"}.get(kind, str)(cell)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(JSON, max_size=10), st.sampled_from([None, 1, "\t"]))
def test_json_in_is_json_out(tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: Any) -> None:
    rows = [value if isinstance(value, dict) else {"value": value} for value in values]
    for kind, text in (
        ("json", json.dumps(values, indent=indent)),
        ("json", "\n".join(json.dumps(value) for value in rows)),
        ("jsonl", "\n".join(json.dumps(value, ensure_ascii=False) for value in values)),
    ):
        context = fresh_context(tmp_path_factory.mktemp("run"))
        assert converted(text.encode("utf-8", "surrogatepass"), context, kind) == rows


class Trickle(io.StringIO):
    """A text of which each read gives only a character, as the worst of streams might."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read(1)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(JSON, max_size=6), st.sampled_from([None, 2]))
def test_a_json_value_may_be_cut_anywhere(values: list[Any], indent: int | None) -> None:
    for text in (json.dumps(values, indent=indent), " ".join(map(json.dumps, values))):
        table = convert.Table(Trickle(text), "json")
        records = list(table.records())
        wanted = values if text.startswith("[") and text == json.dumps(values, indent=indent) else flat(values)
        assert records == [value if isinstance(value, dict) else {"value": value} for value in wanted]


def flat(values: list[Any]) -> list[Any]:
    """Arrays that stand one after the other give their elements."""
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


# --- Parquet -----------------------------------------------------------------------------------------------------


def test_parquet_keeps_types_and_rows(context: RecordingContext) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (the extra 'parquet')")
    data = b"i,n,b,d,s,z\n1,1.5,true,2024-01-31,x,\n,2,false,,,\n3,4,true,2024-02-01,y,,extra\n"
    summary = run(data, context, name="a.csv", format="parquet")
    sent = published(context)
    assert (sent.topic, sent.headers["File-Name"]) == ("converted.parquet", "a.parquet")
    assert hashlib.sha256(sent.data).hexdigest() == summary["sha256"]
    table = parquet.read_table(io.BytesIO(sent.data))
    kinds = {"i": "int64", "n": "double", "b": "bool", "d": "date32[day]", "s": "string", "z": "null"}
    assert {field.name: str(field.type) for field in table.schema} == kinds | {"_extra": "string"}
    rows = table.to_pylist()
    assert (len(rows), summary["rows"]) == (3, 3)
    assert [str(row["d"]) for row in rows] == ["2024-01-31", "None", "2024-02-01"]
    assert rows[2]["_extra"] == '["extra"]'


def test_parquet_of_nested_json_is_json_text(context: RecordingContext) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (the extra 'parquet')")
    run([{"a": [1], "m": 1, "big": 2**70}, {"a": None, "m": "x"}], context, "json", format="parquet")
    rows = parquet.read_table(io.BytesIO(published(context).data)).to_pylist()
    assert rows == [{"a": "[1]", "m": "1", "big": str(2**70)}, {"a": None, "m": '"x"', "big": None}]


@pytest.mark.parametrize("data", [b"", b"x,y\n"])
def test_parquet_of_nothing(data: bytes, context: RecordingContext) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (the extra 'parquet')")
    run(data, context, format="parquet")
    assert parquet.read_table(io.BytesIO(published(context).data)).num_rows == 0


def test_without_pyarrow_parquet_is_refused_in_words(tmp_path: Path) -> None:
    """A Python without site packages has none, whatever this one has."""
    done = in_a_process(tmp_path, b"x\n1\n", {"format": "parquet"}, "-S", "-E")
    assert "format=parquet needs pyarrow where the function runs; install it, or use jsonl" in done.stderr


# --- memory ------------------------------------------------------------------------------------------------------


def in_a_process(
    tmp_path: Path, data: bytes, params: dict[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "input").write_bytes(data)
    (tmp_path / "work").mkdir()
    program = f"""
        import sys
        sys.path.insert(0, {str(SAMPLES / "convert")!r})
        import main

        class Context:
            workdir = {str(tmp_path / "work")!r}
            def publish(self, topic, data, content_type=None, headers=None): pass
            def progress(self, percent, text): pass

        event = {{"topic": "t", "headers": {{}}, "params": {params!r}, "data-file": {str(tmp_path / "input")!r}}}
        print(main.handle(event, Context())["rows"])
        print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1000)
    """
    command = [sys.executable, *options, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("kind", ["csv", "json", "text"])
def test_memory_does_not_grow_with_the_table(kind: str, tmp_path: Path) -> None:
    row = {"csv": b"1,some text,2.5,2024-01-01\n", "json": b'{"a": 1, "b": "some text"},\n', "text": b"a line of it\n"}
    count = 400_000
    data = row[kind] * count
    if kind == "json":
        data = b"[" + data[:-2] + b"]"
    done = in_a_process(tmp_path, data, {"kind": kind})
    assert done.returncode == 0, done.stderr
    rows, peak = done.stdout.split()
    assert int(rows) == (count - 1 if kind == "csv" else count)
    assert float(peak) < 40
