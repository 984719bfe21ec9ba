"""The stream of a watch, however the network cut it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger.kubernetes_engine.failures import ApiFailure
from trigger.kubernetes_engine.watching import Lines, event_of

RECORDED = Path(__file__).parent / "recorded"


def test_an_event() -> None:
    event = event_of(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}')
    assert (event.type, event.object) == ("BOOKMARK", {"metadata": {"resourceVersion": "7"}})


def test_a_version_that_is_too_old_is_a_failure_of_410() -> None:
    with pytest.raises(ApiFailure) as failure:
        event_of((RECORDED / "410_watch_event.json").read_bytes())
    assert (failure.value.status, failure.value.reason) == (410, "Expired")


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b'{"type":"ADDED"}', b"\xff", b'{"type":"ADDED","object":'])
def test_what_is_no_event_counts_as_cut(line: bytes) -> None:
    with pytest.raises(ApiFailure) as failure:
        event_of(line)
    assert failure.value.status == 0


@given(
    st.lists(st.binary(min_size=1, max_size=200).filter(lambda line: b"\n" not in line and line.strip()), max_size=20),
    st.lists(st.integers(1, 50), min_size=1, max_size=50),
)
def test_lines_are_the_same_however_they_were_cut(lines: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    joined, found, at = Lines(), [], 0
    for index in range(len(stream)):
        size = sizes[index % len(sizes)]
        found += joined.feed(stream[at : at + size])
        at += size
    assert found == lines
    assert not joined.unfinished


def test_a_line_that_has_not_ended_is_known() -> None:
    lines = Lines()
    assert lines.feed(b"a\nb") == [b"a"]
    assert lines.unfinished
    assert lines.feed(b"c\n\n  \n") == [b"bc"]
    assert not lines.unfinished


def test_a_line_of_many_chunks_is_not_copied_again_for_each() -> None:
    lines, chunk = Lines(), b"x" * 1000
    for _ in range(50_000):  # 50 MB; quadratic copying would take minutes
        assert lines.feed(chunk) == []
    [line] = lines.feed(b"\n")
    assert len(line) == 50_000_000


def test_json_is_read_as_the_server_wrote_it() -> None:
    text = json.dumps({"type": "ADDED", "object": {"big": 2**70, "text": "\u2028é"}}).encode()
    assert event_of(text).object == {"big": 2**70, "text": "\u2028é"}
