"""The columns of a table and their types, found in one reading and applied in the next."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from tables import MAX_COLUMNS, ConvertError, Record, Table

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # fits 64 bits; 007 is a code, not a number
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TYPED: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "number": float,
    "boolean": lambda text: text.lower() == "true",
}


def columns_of(table: Table) -> dict[str, str]:
    """The type of each column: integer, number, boolean, date, string, null; in JSON also object, array and mixed."""
    type_of, otherwise = (type_of_text, "string") if table.textual else (type_of_value, "mixed")
    columns: dict[str, str] = {}
    for record in table.records():
        for name, value in record.items():
            known = columns.get(name, "null")
            if known != otherwise:  # nothing can change that one any more
                columns[name] = common_type(known, type_of(value), otherwise)
        if len(columns) > MAX_COLUMNS:
            raise ConvertError(f"has more than {MAX_COLUMNS:,} columns")
    return dict.fromkeys(table.header, "null") | columns


def common_type(one: str, other: str, otherwise: str) -> str:
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    return "number" if {one, other} == {"integer", "number"} else otherwise


def type_of_text(text: str | list[str] | None) -> str:
    if isinstance(text, list):
        return "array"
    if not text:
        return "null"
    if INTEGER.fullmatch(text):
        return "integer"
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return "number"
    if text.lower() in ("true", "false"):
        return "boolean"
    return "date" if DATE.fullmatch(text) and is_date(text) else "string"


def is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def type_of_value(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer" if -(2**63) <= value < 2**63 else "mixed"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def typed_records(table: Table, columns: dict[str, str]) -> Iterator[Record]:
    """The records with every value in its column's type; an empty field of a table is null."""
    if not table.textual:
        yield from table.records()
        return
    for record in table.records():
        yield {name: typed(value, columns[name]) for name, value in record.items()}


def typed(value: Any, kind: str) -> Any:
    if not value:
        return None
    return TYPED[kind](value) if kind in TYPED else value
