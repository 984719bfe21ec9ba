"""convert: whatever goes in comes out, and no row is lost."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_functions import fresh_context
from tests.unit.samples.converting import convert, converted, rows_of, run, types

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
