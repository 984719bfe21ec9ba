"""Reading tables: CSV, TSV, JSON, JSON Lines and plain text become records, one at a time.

Nothing here holds more than one record, and a record has a largest size: so a table may be of any length, and a quote
that is never closed does not swallow it whole.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

CHUNK_CHARACTERS = 64 * 1024
MAX_RECORD_CHARACTERS = 8 * 1024 * 1024
MAX_COLUMNS = 10_000
SNIFFED_LINES = 100
SNIFFED_CHARACTERS = 64 * 1024
EXTRA = "_extra"  # the column for fields beyond the last named one
csv.field_size_limit(MAX_RECORD_CHARACTERS)

Record = dict[str, Any]


class ConvertError(ValueError):
    """The table cannot be converted. Nothing was published."""


@dataclass
class Counts:
    """What is worth knowing about how a table was read."""

    comment_lines: int = 0
    short_rows: int = 0
    long_rows: int = 0
    latin1_lines: int = 0


@dataclass
class Table:
    """The input, open, and how to read it. `records` may be called again, and starts from the beginning.

    Once it has begun, `header` says what the columns of a table are called; `counts` is about the last complete run.
    Values of CSV and TSV are `textual`: not typed yet.
    """

    text: TextIO
    kind: str
    comment: str = ""
    delimiter: str = ""
    names: list[str] = field(default_factory=list)
    encoding: str = "utf-8"
    header: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def textual(self) -> bool:
        return self.kind in ("csv", "tsv")

    def records(self) -> Iterator[Record]:
        self.counts = Counts()
        self.text.seek(0)
        return READERS[self.kind](self)


def open_text(path: Path, kind: str, encoding: str) -> TextIO:
    """The file as text. Bytes that are no UTF-8 are kept as surrogates, for `Lines` to read as Latin-1; JSON has no
    such excuse."""
    errors = "surrogateescape" if encoding == "utf-8" and kind != "json" else "strict"
    return path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, errors=errors, newline="")


# --- lines and plain text ----------------------------------------------------------------------------------------


class Lines:
    """The lines of a text, of bounded length. A line that is no UTF-8 is read as Latin-1, and counted.

    Comments are recognized only where a record begins: a line that goes on inside quotes may begin with anything.
    """

    def __init__(self, text: TextIO, counts: Counts, comment: str = "") -> None:
        self.text = text
        self.counts = counts
        self.comment = comment
        self.last_comment = ""
        self.number = 0
        self.record_characters = 0

    def begin_record(self) -> None:
        self.record_characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = self.text.readline(MAX_RECORD_CHARACTERS + 1)
            if not line:
                raise StopIteration
            self.number += 1
            at_beginning = self.record_characters == 0
            self.record_characters += len(line)
            if self.record_characters > MAX_RECORD_CHARACTERS:
                limit = f"{MAX_RECORD_CHARACTERS:,} characters"
                raise ConvertError(f"line {self.number:,}: a record is longer than {limit}; is a quote left open?")
            if not (at_beginning and self.comment and line.startswith(self.comment)):
                return self.as_text(line)
            self.last_comment = self.as_text(line)
            self.counts.comment_lines += 1
            self.begin_record()

    def as_text(self, line: str) -> str:
        if line.isascii() or not SURROGATE.search(line):
            return line
        self.counts.latin1_lines += 1
        return line.encode("utf-8", "surrogateescape").decode("latin-1")


SURROGATE = re.compile("[\udc80-\udcff]")


def read_text(table: Table) -> Iterator[Record]:
    """One record a line."""
    lines = Lines(table.text, table.counts)
    for line in lines:
        yield {"line": lines.number, "text": line.rstrip("\r\n")}
        lines.begin_record()


# --- CSV and TSV -------------------------------------------------------------------------------------------------


def read_table(table: Table) -> Iterator[Record]:
    """One record a row, every value still text. A short row ends in nulls, a long one keeps its rest as `_extra`."""
    if not table.delimiter:
        table.delimiter = "\t" if table.kind == "tsv" else sniff_delimiter(table)
    lines = Lines(table.text, table.counts, table.comment)
    rows = read_rows(lines, table.delimiter)
    if (first := next(rows, None)) is None:
        return
    heading = table.names or names_in_comment(lines.last_comment.removeprefix(table.comment), table.delimiter, first)
    names = table.header = unique_names(heading or first)
    if table.kind == "csv":
        lines.comment = ""  # below the head of a CSV file a value may well begin with "#"
    if heading:
        yield record_of_row(names, first, table.counts)
    for row in rows:
        yield record_of_row(names, row, table.counts)


def read_rows(lines: Lines, delimiter: str) -> Iterator[list[str]]:
    """The rows that are not blank. `Lines` is told where each begins, so that it knows a comment from a value."""
    rows = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.begin_record()
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ConvertError(f"line {lines.number:,}: {error}") from error
        if row is None:
            return
        if row:
            yield row


def record_of_row(names: list[str], row: list[str], counts: Counts) -> Record:
    record: Record = dict(zip(names, row, strict=False))
    if len(row) < len(names):
        counts.short_rows += 1
        record |= dict.fromkeys(names[len(row) :])
    elif len(row) > len(names):
        counts.long_rows += 1
        record[EXTRA] = row[len(names) :]
    return record


def sniff_delimiter(table: Table) -> str:
    """The sign that cuts most of the first hundred lines into the same number of fields, and more than one."""
    lines = table.text.read(SNIFFED_CHARACTERS).splitlines(keepends=True)[:SNIFFED_LINES]
    table.text.seek(0)
    sample = [line for line in lines if not (table.comment and line.startswith(table.comment))]

    def fitness(delimiter: str) -> tuple[float, int]:
        widths = Counter(len(row) for row in csv.reader(sample, delimiter=delimiter) if row)
        width, rows = max(widths.items(), key=lambda item: item[1], default=(0, 0))
        return (rows / widths.total(), width) if width > 1 else (0.0, 0)

    return max(",;\t|", key=fitness)


def names_in_comment(comment: str, delimiter: str, first_row: list[str]) -> list[str]:
    """The column names, when the comment right above the table holds them, as `#code  name` does in .tab files."""
    names = [name.strip() for name in comment.split(delimiter) if name.strip()]
    return names if len(names) >= max(2, len(first_row)) and not comment[0].isspace() else []


def unique_names(names: list[str]) -> list[str]:
    """The names, made up where there is none and numbered where one comes again."""
    if len(names) > MAX_COLUMNS:
        raise ConvertError(f"has more than {MAX_COLUMNS:,} columns")
    unique: dict[str, None] = {}
    for position, name in enumerate(names, start=1):
        wanted = candidate = name.strip() or f"column_{position}"
        number = 1
        while candidate in unique or candidate == EXTRA:
            number += 1
            candidate = f"{wanted}_{number}"
        unique[candidate] = None
    return list(unique)


# --- JSON and JSON Lines -----------------------------------------------------------------------------------------


def read_json_lines(table: Table) -> Iterator[Record]:
    lines = Lines(table.text, table.counts)
    for line in lines:
        if line.strip():
            try:
                yield record_of_value(DECODER.decode(line))
            except ValueError as error:
                raise ConvertError(f"line {lines.number:,} is no JSON: {error}") from error
        lines.begin_record()


def read_json(table: Table) -> Iterator[Record]:
    """The elements of an array, else the document itself; several documents in a row are taken one by one."""
    values = JsonValues(table.text)
    while mark := values.peek():
        if mark != "[":
            yield record_of_value(values.take())
            continue
        values.skip_mark()
        while values.peek() != "]":
            yield record_of_value(values.take())
            if values.peek() == ",":
                values.skip_mark()
            elif values.peek() != "]":
                raise ConvertError(f"value {values.count:,} of the JSON array is not followed by a comma or its end")
        values.skip_mark()


def record_of_value(value: Any) -> Record:
    return value if isinstance(value, dict) else {"value": value}


class JsonValues:
    """Takes one JSON value after the other from a text, holding little more than the one that is being read."""

    def __init__(self, text: TextIO) -> None:
        self.text = text
        self.buffer = ""
        self.at = 0
        self.ended = False
        self.count = 0

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            self.at = BLANKS.match(self.buffer, self.at).end()  # type: ignore[union-attr]  # it also matches nothing
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if self.ended:
                return ""
            self.read_more()

    def skip_mark(self) -> None:
        self.at += 1

    def take(self) -> Any:
        """The next value. A failure at the buffer's end may only mean that the rest has not been read yet."""
        self.count += 1
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                if self.ended or not self.may_go_on(error):
                    raise ConvertError(f"value {self.count:,} is no JSON: {error.msg}") from error
            except ValueError as error:
                raise ConvertError(f"value {self.count:,} is no JSON: {error}") from error
            else:
                if self.ended or NUMBER_PART.match(self.buffer, end).end() < len(self.buffer):  # type: ignore[union-attr]  # it also matches nothing
                    self.at = end
                    return value
            self.read_more()

    def may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may be due to the buffer's end: an open string, or something at the very end."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - 16

    def read_more(self) -> None:
        """Read as much again as is held, so that a value of any size is tried only a few times."""
        rest = self.buffer[self.at :]
        if len(rest) > MAX_RECORD_CHARACTERS:
            raise ConvertError(f"value {self.count:,} is longer than {MAX_RECORD_CHARACTERS:,} characters")
        more = self.text.read(max(CHUNK_CHARACTERS, len(rest)))
        self.buffer, self.at, self.ended = rest + more, 0, not more


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


DECODER = json.JSONDecoder(parse_float=finite, parse_constant=refuse_constant)
BLANKS = re.compile(r"[ \t\r\n]*")
NUMBER_PART = re.compile(r"[0-9eE.+-]*")
READERS: dict[str, Callable[[Table], Iterator[Record]]] = {
    "csv": read_table,
    "tsv": read_table,
    "json": read_json,
    "jsonl": read_json_lines,
    "text": read_text,
}
