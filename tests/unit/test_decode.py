"""Every rule about what comes from outside, as a table; and that the same message always gives the same answer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import wire
from invoker.request import ClaimCheck, Event
from trigger.decode import Incoming, Undecodable, decode, direct_function

NAMES = wire.Names()
STORED_AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
CLAIM = ClaimCheck(object="event/1", size_bytes=5, sha256=wire.sha256_hex(b"bytes"))


def incoming(subject: str = "events.orders.created", data: bytes = b"data", **headers: str) -> Incoming:
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Incoming(subject, data, given_headers, "INVOKER_EVENTS", "2026-01-01T00:00:00Z", 7, STORED_AT)


def event(subject: str = "events.orders.created", data: bytes = b"data", **headers: str) -> Event:
    found = decode(incoming(subject, data, **headers), NAMES, wire.DEFAULT_REPLY_SUBJECTS)
    assert isinstance(found, Event), found
    return found


def refused(subject: str = "events.orders.created", data: bytes = b"data", **headers: str) -> Undecodable:
    found = decode(incoming(subject, data, **headers), NAMES, wire.DEFAULT_REPLY_SUBJECTS)
    assert isinstance(found, Undecodable), found
    return found


def test_a_plain_message_is_an_event() -> None:
    found = event(Content_Type="text/plain", X_Own="kept", Nats_Expected_Stream="never copied")
    assert (found.topic, found.content.inline_bytes(), found.sha256) == (
        "orders.created",
        b"data",
        wire.sha256_hex(b"data"),
    )
    assert found.headers == {"Content-Type": "text/plain", "X-Own": "kept"}
    assert found.content.content_type == "text/plain"
    assert (found.received_at, found.hops, found.root_request_id, found.reply_to) == (STORED_AT, 0, None, None)
    assert wire.time_of_id(found.request_id) == STORED_AT


def test_our_own_headers_become_fields_and_do_not_travel_as_headers() -> None:
    found = event(
        Nats_Msg_Id="r1",
        Invoker_Reply_To="replies.r1",
        Invoker_Root_Request_Id="root",
        Invoker_Parent_Run_Id="parent",
        Invoker_Hops="3",
        Invoker_Replay_Of="older",
        Invoker_Param_level="9",
        invoker_param_other="x",
    )
    assert found.headers == {}
    assert (found.request_id, found.message_id, found.reply_to) == ("r1", None, "replies.r1")
    assert (found.root_request_id, found.parent_run_id, found.hops, found.replay_of) == ("root", "parent", 3, "older")
    assert found.params == {"level": "9", "other": "x"}


@pytest.mark.parametrize("message_id", ["a.b", "with space", "*", "x" * 65, "ä", "$JS.API.>"])
def test_an_unusable_message_id_is_hashed_and_kept(message_id: str) -> None:
    found = event(Nats_Msg_Id=message_id)
    assert found.message_id == message_id
    assert found.request_id == wire.digest_id("message-id", message_id)
    assert wire.is_plain_id(found.request_id)


@pytest.mark.parametrize("header", ["nats-msg-id", "NATS-MSG-ID", "Nats-Msg-Id"])
def test_headers_are_read_in_any_case(header: str) -> None:
    assert event(**{header.replace("-", "_"): "r1"}).request_id == "r1"


def test_a_claim_check_is_taken_as_it_stands() -> None:
    found = event(data=CLAIM.to_json(), Invoker_Claim=CLAIM.to_json().decode())
    assert (found.content.claim, found.content.size_bytes, found.sha256) == (CLAIM, 5, CLAIM.sha256)


REFUSALS: list[tuple[str, dict[str, str], str, str]] = [
    ("events.$JS.x", {}, "invalid-topic", "begins with '$'"),
    ("events.a b", {}, "invalid-topic", "white space"),
    ("events.", {}, "invalid-topic", "empty"),
    ("events.a..b", {}, "invalid-topic", "empty token"),
    ("events.a.*", {}, "invalid-topic", "wildcard"),
    ("events." + ".".join("t" * 33), {}, "invalid-topic", "33 tokens"),
    ("events." + "t" * 256, {}, "invalid-topic", "longer than 255"),
    ("events.invoker", {}, "invalid-topic", "reserved"),
    ("events.invoker.x", {}, "invalid-topic", "reserved"),
    ("events.invoker.call.No_Name", {}, "invalid-topic", "function name"),
    ("events.invoker.call.f", {wire.H_TOPIC: "a b"}, "invalid-topic", "white space"),
    ("events.x", {wire.H_HOPS: "33"}, "hop-limit", "at most 32"),
    ("events.x", {wire.H_HOPS: "9" * 7}, "invalid-request-id", "not a number"),
    ("events.x", {wire.H_HOPS: "٣"}, "invalid-request-id", "not a number"),
    ("events.x", {wire.H_HOPS: "-1"}, "invalid-request-id", "not a number"),
    ("events.x", {wire.H_ROOT_REQUEST_ID: "a.b"}, "invalid-request-id", wire.H_ROOT_REQUEST_ID),
    ("events.x", {wire.H_PARENT_RUN_ID: "x" * 65}, "invalid-request-id", wire.H_PARENT_RUN_ID),
    ("events.x", {wire.H_REPLAY_OF: ""}, "invalid-request-id", wire.H_REPLAY_OF),
    ("events.x", {wire.H_CLAIM: "[]"}, "claim-check", "not a claim check"),
    ("events.x", {wire.H_CLAIM: '{"object":"o","bytes":1,"sha256":"x"}'}, "claim-check", "not a claim check"),
    ("events.x", {"X-Much": "y" * 16_400}, "payload-too-large", "at most 16384"),
]


@pytest.mark.parametrize(("subject", "headers", "code", "words"), REFUSALS)
def test_what_is_refused_and_why(subject: str, headers: dict[str, str], code: str, words: str) -> None:
    message = incoming(subject)
    message = Incoming(
        subject, b"data", headers | {wire.H_REPLY_TO: "replies.me"}, message.stream, message.created, 7, STORED_AT
    )
    found = decode(message, NAMES, wire.DEFAULT_REPLY_SUBJECTS)
    assert isinstance(found, Undecodable)
    assert found.error.code == code
    assert words in found.error.message
    assert found.reply_to == "replies.me", "the caller hears of it"


@pytest.mark.parametrize("subject", ["$JS.ACK.x", "events.x", "invoker.run.f.x", "_INBOX.*", "elsewhere", "replies"])
def test_a_forbidden_reply_subject_is_not_answered(subject: str) -> None:
    found = refused(Invoker_Reply_To=subject)
    assert found.error.code == "invalid-reply-subject"
    assert found.reply_to is None


def test_hops_up_to_the_limit_pass() -> None:
    assert event(Invoker_Hops=str(wire.MAX_HOPS)).hops == wire.MAX_HOPS


def test_the_direct_topic_shows_its_function_the_original_topic() -> None:
    found = event("events.invoker.call.convert", Invoker_Topic="orders.created")
    assert found.topic == "orders.created"
    assert direct_function("events.invoker.call.convert", NAMES) == "convert"
    assert direct_function("events.orders.created", NAMES) is None
    assert event("events.invoker.call.convert").topic == "invoker.call.convert"
    assert event("events.orders", Invoker_Topic="ignored.here").topic == "orders"


HEADERS = st.dictionaries(
    st.sampled_from([wire.H_HOPS, wire.H_CLAIM, wire.H_REPLY_TO, wire.H_ROOT_REQUEST_ID, wire.H_MESSAGE_ID, "X-Own"]),
    st.text(max_size=80),
)


@given(st.text(max_size=80), st.binary(max_size=40), HEADERS, st.integers(1, 2**40))
def test_anything_at_all_gets_an_answer_and_always_the_same(
    topic: str, data: bytes, headers: dict[str, str], sequence: int
) -> None:
    message = Incoming(f"events.{topic}", data, headers, "S", "2026-01-01T00:00:00Z", sequence, STORED_AT)
    first = decode(message, NAMES, wire.DEFAULT_REPLY_SUBJECTS)
    second = decode(message, NAMES, wire.DEFAULT_REPLY_SUBJECTS)
    assert wire.is_plain_id(first.request_id), "whatever comes in, its id is legal as a subject token"
    assert first.request_id == second.request_id
    if isinstance(first, Event):
        assert first == second
    else:
        assert isinstance(second, Undecodable)
        assert first.error.message == second.error.message


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_two_messages_without_an_id_are_two_requests(one: int, other: int) -> None:
    first = Incoming("events.x", b"", {}, "S", "2026-01-01T00:00:00Z", one, STORED_AT)
    second = Incoming("events.x", b"", {}, "S", "2026-01-01T00:00:00Z", other, STORED_AT)
    again = Incoming("events.x", b"", {}, "S", "2026-02-02T00:00:00Z", one, STORED_AT)
    ids = [decode(message, NAMES, ()).request_id for message in (first, second, again)]
    assert (ids[0] == ids[1]) == (one == other)
    assert ids[0] != ids[2], "a stream that was made anew begins at sequence 1 again"
