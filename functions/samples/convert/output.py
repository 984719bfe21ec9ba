"""Writing records: as JSON Lines, or as Parquet where pyarrow is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from tables import ConvertError, Record

BATCH_ROWS = 10_000

Writer = Callable[[Iterable[Record], dict[str, str], Path], int]


def writer_of(format: str) -> Writer:
    return {"jsonl": write_json_lines, "parquet": write_parquet}[format]


def write_json_lines(records: Iterable[Record], columns: dict[str, str], target: Path) -> int:
    rows = 0
    with target.open("wb") as file:
        for rows, record in enumerate(records, start=1):  # noqa: B007  # the last number is the count
            file.write(json_line(record))
    return rows


def json_line(record: Record) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may escape and UTF-8 cannot hold
        return json.dumps(record).encode() + b"\n"


def write_parquet(records: Iterable[Record], columns: dict[str, str], target: Path) -> int:
    """In batches, so that memory is bounded. What Parquet has no column for (nested, mixed) is written as JSON text."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConvertError("format=parquet needs pyarrow where the function runs; install it, or use jsonl") from error
    kinds = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "null": pa.null(),
    }
    schema = pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in columns.items()])
    rows, records = 0, iter(records)
    with pq.ParquetWriter(target, schema) as writer:
        while batch := list(islice(records, BATCH_ROWS)):
            cells = {name: [cell(record.get(name), kind) for record in batch] for name, kind in columns.items()}
            writer.write_table(pa.table(cells, schema=schema))
            rows += len(batch)
    return rows


def cell(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind in ("object", "array", "mixed"):
        return json.dumps(value, ensure_ascii=False)
    if kind == "date":
        return date.fromisoformat(value)
    return float(value) if kind == "number" else value
