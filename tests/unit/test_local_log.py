"""A run's log: bounded, in order, honest about what is gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker.run_log import kept_lines
from trigger.local_engine.log import MAX_LINE_BYTES, RunLog

AT = datetime(2025, 1, 1, tzinfo=UTC)
OUT, ERR = 1, 2


def log_of(*pieces: tuple[int, bytes], limit: int = 1000, dropped: int = 0) -> RunLog:
    log = RunLog(limit)
    log.add(1, list(pieces), dropped, AT)
    return log


async def lines_of(log: RunLog, *, follow: bool = False) -> list[tuple[str, str]]:
    return [(line.stream, line.text) async for line in log.lines(follow)]


async def test_lines_are_put_together_per_stream() -> None:
    log = log_of((OUT, b"one\ntw"), (ERR, b"bad\n"), (OUT, b"o\nrest"))
    assert await lines_of(log) == [("stdout", "one"), ("stderr", "bad"), ("stdout", "two"), ("stdout", "rest")]
    assert log.tail() == b"one\ntwbad\no\nrest"


async def test_line_ends_of_other_systems_and_bytes_that_are_no_text() -> None:
    assert await lines_of(log_of((OUT, b"a\r\n\xff\n\n"))) == [("stdout", "a"), ("stdout", "\ufffd"), ("stdout", "")]


async def test_what_is_dropped_first_is_the_oldest_and_it_is_told() -> None:
    log = log_of((OUT, b"0123456789\n"), (ERR, b"abcdefghij\n"), limit=15)
    assert log.tail() == b"[Invoker: 7 bytes are gone here]\n789\nabcdefghij\n"
    assert await lines_of(log) == [
        ("stderr", "[Invoker: 7 bytes are gone here]"),
        ("stdout", "789"),
        ("stderr", "abcdefghij"),
    ]


async def test_what_was_lost_on_the_way_is_told_where_it_was() -> None:
    log = log_of((OUT, b"before\n"))
    log.add(1, [(OUT, b"after\n")], 1000, AT)
    assert log.tail() == b"before\n[Invoker: 1000 bytes are gone here]\nafter\n"
    assert [text for _, text in await lines_of(log)] == ["before", "[Invoker: 1000 bytes are gone here]", "after"]


async def test_every_attempt_begins_on_a_line_of_its_own_under_its_number() -> None:
    log = log_of((OUT, b"try"))
    log.add(2, [(OUT, b"try")], 0, AT)
    log.add(3, [(OUT, b"try\n"), (ERR, b"done\n")], 7, AT)
    gone = "[Invoker: 7 bytes are gone here]"
    assert log.tail().decode().splitlines() == [
        "try", "[Invoker: attempt 2]", "try", gone, "[Invoker: attempt 3]", "try", "done",
    ]  # fmt: skip
    lines = [(line.attempt, line.text) async for line in log.lines(False)]
    assert lines == [(1, "try"), (2, "try"), (3, gone), (3, "try"), (3, "done")]
    kept = [(line.attempt, line.text) for line in kept_lines(log.tail().decode())]
    assert kept == [(None, "try"), (2, "try"), (2, gone), (3, "try"), (3, "done")]


async def test_what_is_left_of_a_later_attempt_alone_has_its_number() -> None:
    log = log_of((OUT, b"0123456789\n"), limit=5)
    log.add(2, [(OUT, b"last\n")], 0, AT)
    assert log.tail() == b"[Invoker: 11 bytes are gone here]\n[Invoker: attempt 2]\nlast\n"


def test_only_a_higher_number_begins_an_attempt() -> None:
    text = "a\n[Invoker: attempt 1]\n[Invoker: attempt 3]\nb\n[Invoker: attempt 2]\n x [Invoker: attempt 4]\n"
    assert [(line.attempt, line.text) for line in kept_lines(text)] == [
        (None, "a"), (None, "[Invoker: attempt 1]"), (3, "b"), (3, "[Invoker: attempt 2]"),
        (3, " x [Invoker: attempt 4]"),
    ]  # fmt: skip


async def test_an_endless_line_is_cut() -> None:
    log = log_of((OUT, b"x" * (MAX_LINE_BYTES + 1)), (OUT, b"y\n"), limit=10**6)
    first, second = await lines_of(log)
    assert (len(first[1]), second[1]) == (MAX_LINE_BYTES + 1, "y")


async def test_a_follower_gets_what_comes_until_the_end() -> None:
    log = log_of((OUT, b"one\n"))
    following = asyncio.create_task(lines_of(log, follow=True))
    for text in (b"two\nth", b"ree\n"):
        await asyncio.sleep(0)
        log.add(2, [(OUT, text)], 0, AT)
    log.close()
    assert await following == [("stdout", "one"), ("stdout", "two"), ("stdout", "three")]


async def test_a_follower_that_reads_slowly_misses_some_and_is_told() -> None:
    log = log_of((OUT, b"first\n"), limit=20)
    following = log.lines(True)
    assert (await anext(following)).text == "first"
    log.add(1, [(OUT, b"%02d\n" % number) for number in range(50)], 0, AT)
    log.close()
    rest = [line.text async for line in following]
    assert rest[0] == "[Invoker: 130 bytes are gone here]"
    assert rest[-1] == "49"


async def test_a_finished_log_can_be_read_again_and_followed() -> None:
    log = log_of((OUT, b"one\n"))
    log.close()
    assert await lines_of(log) == await lines_of(log, follow=True) == [("stdout", "one")]


async def test_an_empty_log() -> None:
    assert await lines_of(RunLog(10)) == []
    assert RunLog(10).tail() == b""


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([], ""),
        ([(ERR, b"one\ntwo\n\n")], "two"),
        ([(ERR, b"MemoryErr"), (OUT, b"noise\n"), (ERR, b"or\n")], "MemoryError"),
        ([(OUT, b"only stdout\n")], ""),
        ([(ERR, b"x" * 5000 + b"\nlast")], "last"),
    ],
)
def test_the_last_line_of_a_stream(pieces: list[tuple[int, bytes]], line: str) -> None:
    assert log_of(*pieces, limit=10**6).last_line(1, "stderr") == line


def test_the_last_line_is_that_attempts_own() -> None:
    log = log_of((ERR, b"first attempt\n"))
    log.add(2, [(ERR, b"second\n")], 0, AT)
    assert (log.last_line(1, "stderr"), log.last_line(2, "stderr")) == ("first attempt", "second")


@given(
    st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=300), st.integers(0, 50)), max_size=40),
    st.integers(1, 500),
)
def test_the_tail_is_the_end_of_what_was_printed(pieces: list[tuple[int, bytes, int]], limit: int) -> None:
    log = RunLog(limit)
    for stream, data, _ in pieces:
        log.add(1, [(stream, data)], 0, AT)
    printed = b"".join(data for _, data, _ in pieces)
    kept = printed[max(0, len(printed) - limit) :]
    gone = len(printed) - len(kept)
    note = b"[Invoker: %d bytes are gone here]\n" % gone if gone else b""
    assert log.tail() == note + kept
