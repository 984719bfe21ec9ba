"""convert: CSV and TSV of every kind, and the types that columns get."""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.sample_functions import RecordingContext, fresh_context
from tests.unit.samples.converting import converted, published, rows_of, run, types

# CSV and TSV


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


# types


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
