"""Turns a table into JSON Lines or Parquet, and says what was in it.

    collected.csv · uncompressed.tsv · … .json · .jsonl · .text  ──▶  converted.jsonl (or converted.parquet)

The table is read twice, one record at a time: first for the type of each column, then to write every value in its
column's type. So memory stays the same however long the table is, and a column never changes its type halfway. The
run's output is the summary: rows, columns with their types, and the sha256 of what was published.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from columns import columns_of, typed_records
from output import writer_of
from tables import READERS, ConvertError, Table, open_text

DEFAULTS = {"format": "jsonl", "kind": "auto", "comment": "#", "delimiter": "", "columns": ""}
CONTENT_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Publish the table in the wanted format and return its summary."""
    params = DEFAULTS | (event.get("params") or {})
    name = unquote(header(event, "File-Name") or "the input")
    path, target = input_file(event, Path(context.workdir)), Path(context.workdir) / "output"
    write = writer_of(params["format"])
    with clear_errors(name), open_table(event, name, path, params) as table:
        columns = columns_of(table)
        context.progress(50, f"{name}: {len(columns)} columns")
        rows = write(typed_records(table, columns), columns, target)
    summary = summarize(name, table, columns, rows, target) | {"format": params["format"]}
    topic = f"converted.{params['format']}"
    context.publish(topic, target, CONTENT_TYPES[params["format"]], file_headers(event, summary))
    context.progress(100, f"{name}: {rows:,} rows → {topic}")
    return summary


def summarize(name: str, table: Table, columns: dict[str, str], rows: int, target: Path) -> dict[str, Any]:
    with target.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": name,
        "kind": table.kind,
        "rows": rows,
        "columns": [{"name": column, "type": kind} for column, kind in columns.items()],
        "bytes": target.stat().st_size,
        "sha256": sha256,
        "encoding": table.encoding,
        "delimiter": table.delimiter or None,
        **vars(table.counts),
    }


def file_headers(event: dict[str, Any], summary: dict[str, Any]) -> dict[str, str]:
    """What travels beside the bytes; where the table was found is handed on."""
    headers = {
        "File-Name": quote(f"{without_suffix(summary['name'])}.{summary['format']}"),
        "File-Size": str(summary["bytes"]),
        "File-Sha256": summary["sha256"],
        "File-Rows": str(summary["rows"]),
    }
    handed_on = {key: header(event, key) for key in ("File-Path", "File-Archive")}
    return headers | {key: value for key, value in handed_on.items() if value}


def without_suffix(name: str) -> str:
    """`zone` for `zone.tab`, but `changelog.Debian` as it is: only what names the kind of a table is taken off."""
    return name.removesuffix(suffix) if (suffix := PurePosixPath(name).suffix).lower() in SUFFIXES else name


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """What goes wrong while reading, in a sentence that names the file."""
    try:
        yield
    except ConvertError as error:
        raise ConvertError(f"{name}: {error}") from error
    except RecursionError as error:
        raise ConvertError(f"{name}: is nested too deeply") from error
    except csv.Error as error:
        raise ConvertError(f"{name}: is no table: {error}") from error
    except UnicodeError as error:
        raise ConvertError(f"{name}: holds bytes that are no text: {error}") from error


# --- what the input is -------------------------------------------------------------------------------------------

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".geojson": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
MEDIA_TYPES = {
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
}


@contextmanager
def open_table(event: dict[str, Any], name: str, path: Path, params: dict[str, Any]) -> Iterator[Table]:
    """The input as a table that can be read, as long as the context lasts."""
    with path.open("rb") as file:
        head = file.read(8 * 1024)
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    if encoding == "utf-8" and b"\0" in head:
        raise ConvertError("is binary; csv, tsv, json, jsonl and text can be converted")
    kind = params["kind"] if params["kind"] != "auto" else kind_of(event, name, head)
    names = [column.strip() for column in params["columns"].split(",")] if params["columns"] else []
    with open_text(path, kind, encoding) as text:
        yield Table(text, kind, params["comment"], params["delimiter"], names, encoding)


def kind_of(event: dict[str, Any], name: str, head: bytes) -> str:
    """The last word of the topic if it is a kind, else what name, content type or first character say."""
    if (word := event.get("topic", "").split(".")[-1]) in READERS:
        return str(word)
    suffix = PurePosixPath(name).suffix.lower()
    media_type = (event.get("event-type") or "").split(";")[0].strip().lower()
    guess = "json" if head.lstrip()[:1] in (b"[", b"{") else "text"
    return SUFFIXES.get(suffix) or MEDIA_TYPES.get(media_type) or guess


# --- the event ---------------------------------------------------------------------------------------------------


def input_file(event: dict[str, Any], workdir: Path) -> Path:
    """The input as a file: the runtime's own when the input was large, else one written here."""
    if path := event.get("data-file"):
        return Path(path)
    data = event["data"]
    if isinstance(data, dict | list):
        data = json.dumps(data)
    path = workdir / "input"
    path.write_bytes(data.encode() if isinstance(data, str) else data or b"")
    return path


def header(event: dict[str, Any], name: str) -> str | None:
    """A header of the event, whatever case it was written in."""
    headers = event.get("headers") or {}
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
