"""The header parser of our connections beside the library's own: the same, whatever the bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from invoker.connection import _Client

PIECES = [b"a", b"Key", b":", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\xff", "ü".encode(), b"\x1c", b"\x0b", b"x: y"]


@given(st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)))
def test_headers_are_read_as_the_library_reads_them(raw: bytes) -> None:
    assert _Client._parse_header_lines(raw) == Client._parse_header_lines(raw)
