"""What travels: ids, topics, patterns, reply subjects and headers, against every string there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import InputRefusedError, ReplySubjectError, TopicError
from invoker.payload import check_headers

NAMES = wire.Names()
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
RUN_ID = re.compile(r"[a-z2-7]{26}")

tokens = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters=".*>$"), min_size=1, max_size=8
)
topics = st.lists(tokens, min_size=1, max_size=6).map(".".join)
pattern_tokens = st.one_of(tokens, st.just("*"))
patterns = st.builds(
    lambda parts, rest: ".".join([*parts, *rest]),
    st.lists(pattern_tokens, min_size=1, max_size=5),
    st.sampled_from([[], [">"]]),
)
any_text = st.one_of(st.text(), st.text("ab.*> \r\n\0\t$é"))
instants = st.datetimes(datetime(2005, 1, 1), datetime(2038, 12, 31), timezones=st.just(UTC))


# topics


@given(topics)
def test_legal_topics_are_taken_and_come_back(topic: str) -> None:
    assert NAMES.topic_of(NAMES.event(wire.check_topic(topic))) == topic


@given(any_text)
@example("a.b\r\nPUB x 1")
@example("\ud800")
@example("a\u2028b")
def test_whatever_passes_as_a_topic_is_one_safe_subject(text: str) -> None:
    try:
        wire.check_topic(text)
    except TopicError as error:
        # No control character of the input is carried on.
        assert error.message.isprintable()  # noqa: PT017 - refusing is one of two right answers here
        return
    assert text.encode().decode() == text
    assert not re.search(r"[\s\0*>]", text)
    assert all(text.split("."))
    assert not text.startswith("$")
    assert len(text.encode()) <= wire.MAX_TOPIC_BYTES


@pytest.mark.parametrize(
    ("topic", "rule"),
    [
        ("", "empty"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\r\nb", "control character"),
        ("a\0b", "control character"),
        ("a..b", "empty token"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a.*", "wildcard"),
        ("a.>", "wildcard"),
        ("a*", "wildcard"),
        ("$JS.API", "begins with '$'"),
        (".".join(["a"] * 33), "33 tokens, at most 32"),
        (".".join(["a"] * 300), "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
    ],
)
def test_every_broken_rule_is_named(topic: str, rule: str) -> None:
    with pytest.raises(TopicError) as caught:
        wire.check_topic(topic)
    assert rule in caught.value.message
    assert caught.value.exit_code == 6


def test_the_limits_themselves_are_legal() -> None:
    wire.check_topic(".".join(["a"] * 32))
    wire.check_topic("a" * 255)


# patterns


@given(patterns)
def test_legal_patterns_are_taken(pattern: str) -> None:
    assert wire.check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["a.>.b", "a.b*", "a.x>", "**", "a..b", "a b", "", "$SYS.>"])
def test_illegal_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(TopicError):
        wire.check_pattern(pattern)


@given(patterns, topics)
@example("a.>", "a")
@example("*", "a.b")
@example(">", "a")
def test_matching_is_that_of_the_pattern_as_a_regular_expression(pattern: str, topic: str) -> None:
    parts = [r"[^.]+" if part == "*" else r".+" if part == ">" else re.escape(part) for part in pattern.split(".")]
    assert wire.subject_matches(pattern, topic) == bool(re.fullmatch(r"\.".join(parts), topic))


@given(topics)
def test_a_topic_matches_itself_and_what_covers_it(topic: str) -> None:
    parts = topic.split(".")
    assert wire.subject_matches(topic, topic)
    assert wire.subject_matches(">", topic)
    assert wire.subject_matches(".".join(["*"] * len(parts)), topic)
    assert not wire.subject_matches(".".join(["*"] * (len(parts) + 1)), topic)


few = st.builds(
    lambda parts, rest: ".".join([*parts, *rest]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=3),
    st.sampled_from([[], [">"]]),
).filter(bool)
SUBJECTS = [".".join(parts) for length in range(1, 6) for parts in product("abc", repeat=length)]
"""Every subject that tells two such patterns apart is among them: `c` stands in none."""


@given(few, few)
@example("a.>", "a")
@example(">", ">")
@example("*", ">")
@example("*.>", ">")
@example(">", "*.>")
def test_a_pattern_covers_another_when_it_matches_all_that_the_other_does(wide: str, narrow: str) -> None:
    matched = [one for one in SUBJECTS if wire.subject_matches(narrow, one)]
    assert wire.pattern_covers(wide, narrow) == all(wire.subject_matches(wide, one) for one in matched)


@given(patterns, topics)
def test_a_topic_is_a_pattern_that_is_covered_when_it_is_matched(pattern: str, topic: str) -> None:
    assert wire.pattern_covers(pattern, topic) == wire.subject_matches(pattern, topic)
    assert wire.pattern_covers(">", pattern)
    assert wire.pattern_covers(pattern, pattern)


# reply subjects


@pytest.mark.parametrize("subject", ["_INBOX.abc", "_INBOX.abc.def", "replies.orders.1", "_INBOX." + "a" * 200])
def test_inboxes_are_allowed(subject: str) -> None:
    assert wire.check_reply_subject(subject) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.ACK.INVOKER_RUNS.run-f.1.2.3.4.5",
        "$JS.API.STREAM.DELETE.INVOKER_EVENTS",
        "$SYS.REQ.SERVER.PING",
        "invoker.ctl.reload",
        "events.orders",
        "orders",
        "_INBOX",
        "_INBOX.*",
        "_INBOX.>",
        "_INBOX.a b",
        "_INBOX.a\r\nPUB x",
        "_INBOX..a",
        "_INBOX." + "a" * 255,
        "_INBOX.\ud800",
        "",
    ],
)
def test_every_other_reply_subject_is_refused(subject: str) -> None:
    with pytest.raises(ReplySubjectError) as caught:
        wire.check_reply_subject(subject)
    assert caught.value.message.isprintable()
    assert caught.value.message.count("reply subject") == 1


@given(any_text, st.sampled_from(["", "_INBOX.", "replies."]))
def test_whatever_passes_as_a_reply_subject_is_below_an_allowed_one(text: str, prefix: str) -> None:
    try:
        subject = wire.check_reply_subject(prefix + text)
    except ReplySubjectError:
        return
    assert subject.startswith(("_INBOX.", "replies."))
    assert not re.search(r"[\s\0*>]", subject)


def test_an_operator_may_allow_others() -> None:
    assert wire.check_reply_subject("answers.a.b", ["answers.*.b"]) == "answers.a.b"
    with pytest.raises(ReplySubjectError, match=r"not among the allowed ones \(answers\.\*\)"):
        wire.check_reply_subject("_INBOX.a", ["answers.*"])


# ids


@given(instants, st.binary(min_size=10, max_size=10))
def test_a_new_id_is_legal_and_tells_its_instant(now: datetime, random_bytes: bytes) -> None:
    request_id = wire.new_request_id(now, random_bytes)
    assert TOKEN.fullmatch(request_id)
    assert len(request_id) == 26
    told = wire.time_of_id(request_id)
    assert told is not None
    assert timedelta(0) <= now - told < timedelta(milliseconds=1)


@given(instants, instants, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_new_ids_sort_by_time(first: datetime, second: datetime, one: bytes, other: bytes) -> None:
    assume(abs(first - second) > timedelta(milliseconds=1))
    assert (wire.new_request_id(first, one) < wire.new_request_id(second, other)) == (first < second)


@given(instants, st.binary(min_size=10, max_size=10))
def test_a_new_id_is_a_uuid_of_version_7(now: datetime, random_bytes: bytes) -> None:
    number = 0
    for character in wire.new_request_id(now, random_bytes):
        number = number * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(character)
    assert (number >> 76) & 0xF == 7
    assert (number >> 62) & 0x3 == 2


def request_id(message_id: str | None, sequence: int = 1, stream: str = "S", created: str = "2026") -> str:
    stored_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return wire.request_id_of(message_id, stream=stream, created=created, sequence=sequence, stored_at=stored_at)


@given(st.text())
@example("a" * 64)
@example("a" * 65)
@example("a.b")
@example("order 4711")
@example("a\n")
def test_every_message_id_becomes_a_legal_id(message_id: str) -> None:
    found = request_id(message_id)
    assert TOKEN.fullmatch(found)
    assert found == request_id(message_id), "every delivery of an event has the same id"
    if TOKEN.fullmatch(message_id):
        assert found == message_id
    elif message_id:
        assert RUN_ID.fullmatch(found)


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_message_ids_stay_different(one: str, other: str) -> None:
    assume(one != other)
    assert request_id(one) != request_id(other)


def test_without_a_message_id_the_place_in_the_stream_decides() -> None:
    found = request_id(None, 7)
    assert found == request_id("", 7)
    assert wire.time_of_id(found) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    others = [request_id(None, 8), request_id(None, 7, stream="T"), request_id(None, 7, created="2027")]
    assert len({found, *others}) == 4


@given(st.text(min_size=1), st.text(min_size=1))
def test_hashed_ids_are_never_taken_for_timed_ones(one: str, other: str) -> None:
    for found in (wire.digest_id(one), wire.run_id_of(one, other), wire.chained_id(one, other)):
        assert RUN_ID.fullmatch(found)
        assert wire.time_of_id(found) is None


@given(st.text())
def test_no_text_makes_the_reading_of_ids_fail(text: str) -> None:
    told = wire.time_of_id(text)
    assert told is None or told.tzinfo is not None


def test_parts_of_an_id_do_not_run_together() -> None:
    assert wire.digest_id("ab", "c") != wire.digest_id("a", "bc")
    assert wire.run_id_of("r-f", "g") != wire.run_id_of("r", "f-g")
    assert wire.chained_id("r", "published", 11) != wire.chained_id("r", "published1", 1)
    assert wire.chained_id("r", "onSuccess") != wire.chained_id("r", "onFailure")


# headers


@given(
    st.dictionaries(
        st.sampled_from(["Nats-Msg-Id", "NATS-Expected-Stream", "nats-ttl", "Other", "X-Nats-A"]), st.text()
    )
)
def test_headers_of_nats_never_travel_on(headers: dict[str, str]) -> None:
    kept = wire.copied_headers(headers)
    assert kept == {name: headers[name] for name in ("Other", "X-Nats-A") if name in headers}


def test_headers_are_read_in_any_case_and_exact_spelling_wins() -> None:
    assert wire.header({"invoker-topic": "a"}, "Invoker-Topic") == "a"
    assert wire.header({"invoker-topic": "a", "Invoker-Topic": "b"}, "Invoker-Topic") == "b"
    assert wire.header({}, "Invoker-Topic") is None
    assert wire.header(None, "Invoker-Topic") is None


@given(st.text(), st.text())
@example("X", "a\r\nNats-Msg-Id: forged")
@example("X: a\r\nY", "b")
@example("", "b")
@example("X", "a\0b")
@example("X", "ü")
def test_a_header_that_passes_is_one_line(name: str, value: str) -> None:
    try:
        check_headers({name: value})
    except InputRefusedError as error:
        assert error.message.isprintable()  # noqa: PT017 - refusing is one of two right answers here
        return
    line = f"{name}: {value}".encode()
    assert not re.search(rb"[\r\n\0]", line)
    assert name.isascii()
    assert name
    assert ":" not in name


# names


@given(topics, tokens)
def test_streams_and_subjects_of_two_instances_never_meet(topic: str, request: str) -> None:
    blue, green = wire.Names("blue", "blue-events"), wire.Names("green", "green-events")
    for make in ("accepted", "status", "dead", "control", "event"):
        assert getattr(blue, make)(request) != getattr(green, make)(request)
    assert blue.events_stream != green.events_stream
    assert blue.payloads_bucket != green.payloads_bucket


def test_direct_topics_are_reserved_and_name_their_function() -> None:
    assert NAMES.function_of_direct_topic(NAMES.direct_topic("convert")) == "convert"
    assert NAMES.is_reserved(NAMES.direct_topic("convert"))
    assert NAMES.is_reserved("invoker")
    assert not NAMES.is_reserved("invoker-like.a")
    assert NAMES.function_of_direct_topic("orders.call.x") is None


@pytest.mark.parametrize("instance", ["", "Invoker", "a.b", "1a", "a" * 32, "a b", "a>"])
def test_illegal_instance_names_are_refused(instance: str) -> None:
    with pytest.raises(TopicError):
        wire.Names(instance)


@pytest.mark.parametrize("prefix", ["", "a..b", "a.*", "$JS", "invoker", "invoker.events"])
def test_illegal_topic_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(TopicError):
        wire.Names("invoker", prefix)


@pytest.mark.parametrize("name", ["a", "a1", "a-b", "a" * 63])
def test_function_names_are_dns_labels(name: str) -> None:
    assert wire.check_function_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "a" * 64, "a b", "é", "a\n"])
def test_other_function_names_are_refused(name: str) -> None:
    with pytest.raises(TopicError):
        wire.check_function_name(name)
