"""The documents of a request: what is written is read again, also by a reader of another version."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from invoker import wire
from invoker.request import ClaimCheck, Content, RequestRecord, RunTicket

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CLAIM = ClaimCheck(object="event/abc", size_bytes=7, sha256="0" * 64)

contents = st.one_of(
    st.builds(Content.inline, st.binary(), st.one_of(st.none(), st.text())),
    st.builds(Content.claimed, st.just(CLAIM), st.one_of(st.none(), st.text())),
    st.just(Content()),
)
texts = st.dictionaries(st.text(min_size=1), st.text(), max_size=4)
records = st.builds(
    RequestRecord,
    request_id=st.text(min_size=1),
    topic=st.text(min_size=1),
    received_at=st.just(NOW),
    accepted_at=st.just(NOW),
    sha256=st.just("0" * 64),
    catalog=st.text(),
    functions=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    root_request_id=st.text(min_size=1),
    headers=texts,
    params=texts,
    body=contents,
)


@given(records)
def test_a_record_is_read_as_it_was_written(record: RequestRecord) -> None:
    assert RequestRecord.model_validate_json(record.to_json()) == record


@given(records, st.dictionaries(st.text(min_size=1).map("later_".__add__), st.integers()))
def test_keys_of_a_later_version_are_passed_over(record: RequestRecord, added: dict[str, int]) -> None:
    document = json.loads(record.to_json()) | added
    document["body"] |= added
    assert RequestRecord.model_validate_json(json.dumps(document)) == record


def test_what_is_left_out_has_its_default() -> None:
    required = {"request_id": "r", "topic": "t", "received_at": NOW.isoformat(), "accepted_at": NOW.isoformat()}
    record = RequestRecord.model_validate(required | {"sha256": "", "catalog": "", "root_request_id": "r"})
    assert (record.version, record.functions, record.hops, record.body.inline_bytes()) == (1, (), 0, b"")


@given(st.binary(), st.one_of(st.none(), st.text()))
def test_inline_bytes_come_back(data: bytes, content_type: str | None) -> None:
    content = Content.inline(data, content_type)
    again = Content.model_validate_json(content.to_json())
    assert (again.inline_bytes(), again.size_bytes, again.content_type) == (data, len(data), content_type)


def test_bytes_behind_a_claim_check_are_not_inline() -> None:
    content = Content.claimed(CLAIM, "text/csv")
    assert content.inline_bytes() is None
    assert (content.size_bytes, content.content_type) == (7, "text/csv")


def test_a_size_is_called_bytes_on_the_wire() -> None:
    assert json.loads(CLAIM.to_json()) == {"object": "event/abc", "bytes": 7, "sha256": "0" * 64}
    assert json.loads(Content.inline(b"abc").to_json())["bytes"] == 3


@pytest.mark.parametrize("size", [-1, "x", None])
def test_a_claim_check_of_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValidationError):
        ClaimCheck.model_validate({"object": "a", "bytes": size, "sha256": ""})


def test_documents_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CLAIM.object = "other"  # type: ignore[misc]  # that is the point


def test_an_instant_without_a_time_zone_is_refused() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValidationError, match="timezone"):
        RequestRecord(
            request_id="r", topic="t", received_at=naive, accepted_at=NOW, sha256="", catalog="", root_request_id="r"
        )


def test_run_ids_follow_from_the_record() -> None:
    record = RequestRecord(
        request_id="r", topic="t", received_at=NOW, accepted_at=NOW, sha256="", catalog="", root_request_id="r",
        functions=("b", "a"),
    )  # fmt: skip
    assert list(record.run_ids().items()) == [("b", wire.run_id_of("r", "b")), ("a", wire.run_id_of("r", "a"))]


def test_a_ticket_holds_ids_only() -> None:
    ticket = RunTicket(run_id="x", request_id="r", function="f")
    assert json.loads(ticket.to_json()) == {"version": 1, "run_id": "x", "request_id": "r", "function": "f"}
