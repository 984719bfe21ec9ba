"""convert as a whole: its answer, what travels beside the bytes, the kind of a table, Parquet, and little memory."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.sample_functions import SAMPLES, RecordingContext, event
from tests.unit.samples.converting import convert, in_a_process, published, rows_of, run

# the whole answer


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


# Parquet


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


# memory


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
