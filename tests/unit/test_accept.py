"""What a record is made of, and when a second event is the same request."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from invoker import wire
from invoker.errors import IdempotencyMismatchError
from invoker.request import ClaimCheck, Content, Event
from trigger.accept import check_same, record_of
from trigger.room import RECORD_BYTES, RESULT_BYTES, needed_bytes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = Content.inline(b"data", "text/plain")
EVENT = Event(
    "t", "r", BODY, wire.sha256_hex(b"data"), {"X": "y"}, NOW - timedelta(seconds=1), message_id="a.b",
    reply_to="replies.r", params={"n": "1"},
)  # fmt: skip


def test_the_record_of_an_event() -> None:
    record = record_of(EVENT, ("f", "g"), "catalog", BODY, NOW)
    assert (record.request_id, record.message_id, record.topic, record.sha256) == ("r", "a.b", "t", EVENT.sha256)
    assert (record.received_at, record.accepted_at) == (EVENT.received_at, NOW)
    assert (record.functions, record.catalog, record.body) == (("f", "g"), "catalog", BODY)
    assert (record.root_request_id, record.parent_run_id, record.hops) == ("r", None, 0)
    assert (record.headers, record.params, record.reply_to) == ({"X": "y"}, {"n": "1"}, "replies.r")
    assert record.run_ids() == {"f": wire.run_id_of("r", "f"), "g": wire.run_id_of("r", "g")}


def test_the_record_of_a_later_stage() -> None:
    event = replace(EVENT, root_request_id="root", parent_run_id="parent", hops=4, replay_of="older")
    record = record_of(event, (), "catalog", BODY, NOW)
    assert (record.root_request_id, record.parent_run_id, record.hops, record.replay_of) == (
        "root",
        "parent",
        4,
        "older",
    )


def test_the_same_body_and_topic_are_the_same_request() -> None:
    record = record_of(EVENT, ("f",), "catalog", BODY, NOW)
    check_same(EVENT, record)
    check_same(replace(EVENT, headers={}, reply_to=None), record)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"sha256": wire.sha256_hex(b"other")}, "body"),
        ({"topic": "u"}, "topic"),
        ({"topic": "u", "sha256": "x"}, "topic"),
    ],
)
def test_another_body_or_topic_is_refused(changed: dict[str, str], what: str) -> None:
    record = record_of(EVENT, ("f",), "catalog", BODY, NOW)
    with pytest.raises(IdempotencyMismatchError, match=f"request r exists already with another {what}"):
        check_same(replace(EVENT, **changed), record)


def test_of_events_that_a_run_caused_the_first_one_wins_silently() -> None:
    """A repeated attempt may well say something else."""
    record = record_of(EVENT, ("f",), "catalog", BODY, NOW)
    check_same(replace(EVENT, parent_run_id="parent", sha256=wire.sha256_hex(b"other")), record)


def test_the_room_that_a_request_needs() -> None:
    nothing = replace(EVENT, content=Content.inline(b""), headers={})
    assert needed_bytes(nothing, 0, 1000) == RECORD_BYTES
    assert needed_bytes(nothing, 3, 1000) == RECORD_BYTES + 3 * RESULT_BYTES
    inline = replace(nothing, content=Content.inline(b"x" * 900))
    assert needed_bytes(inline, 0, 1000) == RECORD_BYTES + 1200
    assert needed_bytes(inline, 0, 899) == RECORD_BYTES, "above the threshold it goes behind a claim check"
    claim = ClaimCheck(object="o", size_bytes=10**9, sha256="0" * 64)
    assert needed_bytes(replace(nothing, content=Content.claimed(claim)), 0, 10**10) == RECORD_BYTES
    assert needed_bytes(replace(nothing, headers={"a": "b"}), 0, 0) == RECORD_BYTES + 6
