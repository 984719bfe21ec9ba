"""The forms of output, and how numbers and ids are written for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from invoker import quantities, wire
from invoker.cli.output import Form, rendered_item, rendered_items

ITEMS = [{"id": "a", "text": "ü\n"}, {"id": "b", "text": None}]


def test_one_item() -> None:
    assert json.loads(rendered_item(ITEMS[0], Form.JSON, "id")) == ITEMS[0]
    assert rendered_item(ITEMS[0], Form.JSONL, "id") == '{"id":"a","text":"ü\\n"}\n'
    assert rendered_item(ITEMS[0], Form.NAME, "id") == "a\n"
    assert yaml.safe_load(rendered_item(ITEMS[0], Form.YAML, "id")) == ITEMS[0]


def test_a_list() -> None:
    assert json.loads(rendered_items(ITEMS, Form.JSON, "id")) == ITEMS
    assert [json.loads(line) for line in rendered_items(ITEMS, Form.JSONL, "id").splitlines()] == ITEMS
    assert rendered_items(ITEMS, Form.NAME, "id") == "a\nb\n"
    assert yaml.safe_load(rendered_items(ITEMS, Form.YAML, "id")) == ITEMS
    assert rendered_items([], Form.JSON, "id") == "[]\n"
    assert rendered_items([], Form.NAME, "id") == ""


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (None, ""), (0, "0 ms"), (0.0614, "61 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (1.94, "1.9 s"),
        (59.94, "59.9 s"), (59.96, "1 m 00 s"), (125, "2 m 05 s"), (3599.6, "1 h 00 m"), (11520, "3 h 12 m"),
        (352800, "4 d 2 h"), (-1, "0 ms"),
    ],
)  # fmt: skip
def test_durations_as_people_read_them(seconds: float | None, wanted: str) -> None:
    assert quantities.duration(seconds) == wanted


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (186_368, "182 KiB"), (1_153_434, "1.1 MiB"), (2**40, "1.0 TiB")],
)
def test_sizes(count: int, wanted: str) -> None:
    assert quantities.size(count) == wanted


@given(st.binary(min_size=10, max_size=10))
def test_a_short_id_is_a_part_that_can_be_typed_back(random_bytes: bytes) -> None:
    timed = wire.new_request_id(datetime.now(UTC), random_bytes)
    assert timed.endswith(quantities.short_id(timed).removeprefix("…"))
    hashed = wire.digest_id("run", timed)
    assert hashed.startswith(quantities.short_id(hashed))
    assert quantities.short_id("order-17") == "order-17"


def test_seconds_between() -> None:
    now = datetime.now(UTC)
    assert quantities.between(now, now + timedelta(seconds=2)) == 2
    assert quantities.between(None, now) is None
