"""The runtime's HTTP client against a server that answers exactly the bytes it is told, in the pieces it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker.runtime.api_client import (
    BrokenConnectionError,
    FileBody,
    RunApiClient,
    RunApiUnreachableError,
    parse_head,
    request_head,
    split_url,
)
from invoker.runtime.note import AttemptFailedError
from tests.ports import lasting_port

OUTAGE = RunApiUnreachableError


@dataclass
class Script:
    """A server that answers one request after the other from a list; None closes the connection without a word."""

    answers: list[list[bytes] | None]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    continues: bool = True

    def serve(self, listening: socket.socket) -> None:
        while self.answers:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        while self.answers:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(1)
                if not data:
                    return
                head += data
            answer = self.answers.pop(0)
            if answer is None:
                return
            refused = not self.continues and b"Expect:" in head
            if b"Expect:" in head and self.continues:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.requests.append(head if refused else head + self._body(connection, head))
            for piece in answer:
                connection.sendall(piece)
            if refused:
                while connection.recv(65536):
                    pass  # a server that was promised a body takes what comes for it
                return
            if b"onnection: close" in b"".join(answer) or b"ontent-Length" not in b"".join(answer):
                return

    def _body(self, connection: socket.socket, head: bytes) -> bytes:
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        left, body = int(lengths[0].split()[1]) if lengths else 0, b""
        while len(body) < left:
            body += connection.recv(65536)
        return body


@contextmanager
def scripted(*answers: list[bytes] | None, continues: bool = True) -> Iterator[Script]:
    script = Script(list(answers), continues=continues)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        script.port = listening.getsockname()[1]
        thread = threading.Thread(target=script.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield script
        finally:
            # A server that still waits for a connection is let go.
            while thread.is_alive():
                script.answers.clear()
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", script.port), timeout=1).close()
                thread.join(0.2)


def client(script: Script, retry_seconds: float = 120.0) -> RunApiClient:
    return RunApiClient(f"http://127.0.0.1:{script.port}/v1/run/abc", {"X-Own": "1"}, retry_seconds)


def ok(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces, cut at those places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


def chunked(pieces: list[bytes]) -> bytes:
    framed = b"".join(f"{len(piece):x};name=value\r\n".encode() + piece + b"\r\n" for piece in pieces if piece)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nTrailer: x\r\n\r\n"


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.lists(st.binary(max_size=300), max_size=4), min_size=1, max_size=3),
    framing=st.sampled_from(["length", "chunked", "close"]),
    places=st.lists(st.integers(0, 2000), max_size=6),
)
def test_an_answer_is_read_however_it_is_framed_and_cut(
    bodies: list[list[bytes]], framing: str, places: list[int]
) -> None:
    wholes = [b"".join(body) for body in bodies]
    answers = {
        "length": [ok(whole) for whole in wholes],
        "chunked": [chunked(body) + b"" for body in bodies],
        "close": [b"HTTP/1.0 200 OK\r\n\r\n" + whole for whole in wholes],
    }[framing]
    with scripted(*[cut(answer, places) for answer in answers]) as script, closing(client(script)) as one:
        assert [one.call("GET", "input").body for _ in wholes] == wholes


@settings(max_examples=60, deadline=None)
@given(
    headers=st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20).map(lambda name: f"x{name}"),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
        max_size=5,
    ),
    body=st.binary(max_size=200),
)
def test_a_request_says_what_it_was_given(headers: dict[str, str], body: bytes) -> None:
    with scripted([ok()]) as script, closing(client(script)) as one:
        one.call("POST", "events", headers, body)
    head, _, sent = script.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/run/abc/events HTTP/1.1"
    assert dict(line.split(": ", 1) for line in lines) == {
        "Host": f"127.0.0.1:{script.port}", "X-Own": "1", "Content-Length": str(len(body)), **headers,
    }  # fmt: skip
    assert sent == body


def test_one_connection_serves_many_calls() -> None:
    with scripted([ok(b"1")], [ok(b"", status="204 No Content")], [ok(b"3")]) as script, closing(client(script)) as one:
        assert [one.call("GET", "input").body for _ in range(3)] == [b"1", b"", b"3"]
        assert script.connections == 1


def test_a_kept_connection_that_was_closed_is_made_anew_at_once() -> None:
    with scripted([ok(b"1")], None, [ok(b"2")]) as script, closing(client(script, retry_seconds=0)) as one:
        assert one.call("GET", "input").body == b"1"
        assert one.call("PUT", "output", None, b"x").body == b"2"
        assert script.connections == 2


def test_503_is_tried_again_until_it_is_over() -> None:
    away = ok(b'{"detail": "away"}', status="503 Service Unavailable")
    with scripted([away], None, [away], [ok(b"there")]) as script, closing(client(script)) as one:
        assert one.call("PUT", "output", None, b"x").body == b"there"
    assert [request.endswith(b"x") for request in script.requests] == [True, True, True]


def test_patience_ends_with_the_servers_own_words() -> None:
    away = ok(b'{"detail": "custody is away"}', status="503 Service Unavailable")
    words = r"cannot be reached for 0\.2 s: custody is away"
    with scripted(*[[away]] * 5) as script, closing(client(script, 0.2)) as one, pytest.raises(OUTAGE, match=words):
        one.call("GET", "input")


def test_nobody_there_is_said_so() -> None:
    port = lasting_port()
    with pytest.raises(RunApiUnreachableError, match="refused"):
        RunApiClient(f"http://127.0.0.1:{port}", {}, 0.1).call("GET", "input")


def test_the_log_says_early_that_nobody_answers(capfd: pytest.CaptureFixture[str]) -> None:
    """A function that runs out of time before patience ends would leave no other word of it."""
    port = lasting_port()
    with pytest.raises(RunApiUnreachableError):
        RunApiClient(f"http://127.0.0.1:{port}", {}, 0.1).call("GET", "input")
    assert capfd.readouterr().err == "", "a moment is no news"
    with pytest.raises(RunApiUnreachableError):
        RunApiClient(f"http://127.0.0.1:{port}", {}, 2.5).call("GET", "input")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"invoker: the run API at 127.0.0.1:{port} does not answer (")
    assert "refused" in line


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000,
    ],
)
def test_what_is_no_answer_is_tried_again_and_then_told(answer: bytes) -> None:
    with scripted([answer]) as script, closing(client(script, 0)) as one, pytest.raises(OUTAGE):
        one.call("GET", "input")


@pytest.mark.parametrize("size", [10, 65_536, 65_537, 700_000])
def test_a_large_body_is_sent_when_it_is_asked_for(tmp_path: Path, size: int) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"f" * size)
    with scripted([ok(b"1")], [ok(b"2")]) as script, closing(client(script)) as one:
        assert one.call("PUT", "output", None, FileBody(str(file))).body == b"1"
        assert one.call("PUT", "output", None, b"b" * size).body == b"2"
    for request, letter in zip(script.requests, (b"f", b"b"), strict=True):
        head, _, body = request.partition(b"\r\n\r\n")
        assert body == letter * size
        assert (b"Expect: 100-continue" in head) == (size > 65_536)
    assert script.connections == 1


def test_a_refusal_comes_before_a_large_body_is_sent() -> None:
    with (
        scripted([ok(b"no", status="413 Too Large")], [ok(b"2")], continues=False) as script,
        closing(client(script)) as one,
    ):
        refused = one.call("PUT", "output", None, b"b" * 1_000_000)
        assert (refused.status, refused.body) == (413, b"no")
        assert one.call("GET", "input").body == b"2", "the connection was out of step"
    assert all(b"bbb" not in request for request in script.requests)


def test_a_large_answer_goes_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "input"
    with (
        scripted([ok(b"x" * 11)], [ok(b"y" * 10)], [ok(b"z" * 11, status="410 Gone")]) as script,
        closing(client(script)) as one,
    ):
        large = one.call("GET", "input", spill=(str(file), 10))
        assert (large.file, large.body, file.read_bytes()) == (str(file), b"", b"x" * 11)
        small = one.call("GET", "input", spill=(str(file), 10))
        assert (small.file, small.body) == (None, b"y" * 10)
        refused = one.call("GET", "input", spill=(str(file), 10))
        assert (refused.file, refused.body) == (None, b"z" * 11)


def test_a_broken_download_begins_again(tmp_path: Path) -> None:
    file = tmp_path / "input"
    short = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n" + b"x" * 60
    with scripted([short], [ok(b"y" * 100)]) as script, closing(client(script)) as one:
        assert one.call("GET", "input", spill=(str(file), 10)).file == str(file)
    assert file.read_bytes() == b"y" * 100


def test_news_are_sent_once_and_their_loss_is_no_error() -> None:
    with scripted(None) as script, closing(client(script)) as one:
        assert one.call_once("POST", "progress", b"{}", 0.5) is None
    with scripted([ok(b"", status="204 No Content")]) as script, closing(client(script)) as one:
        answer = one.call_once("POST", "progress", b"{}", 0.5)
        assert answer is not None
        assert answer.status == 204


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:80/a/b", (False, "127.0.0.1", 80, "/a/b")),
        ("http://host/", (False, "host", 80, "")),
        ("https://host", (True, "host", 443, "")),
        ("http://[::1]:8080/x/", (False, "::1", 8080, "/x")),
        ("http://[::1]/x", (False, "::1", 80, "/x")),
        ("HTTP://h:1", (False, "h", 1, "")),
    ],
)
def test_an_address_is_taken_apart(url: str, parts: tuple[bool, str, int, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize("url", ["", "x", "ftp://h/x", "http://", "http://h:x/", "http://:80/"])
def test_an_address_that_is_none_is_said_so(url: str) -> None:
    with pytest.raises(AttemptFailedError, match="INVOKER_RUN_URL"):
        split_url(url)


def test_a_header_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="the header X has a line break"):
        request_head("GET", "/", {"X": "a\r\nY: b"}, 0)


@given(st.binary(max_size=200))
def test_whatever_a_server_says_is_an_answer_or_no_http(head: bytes) -> None:
    try:
        answer = parse_head(head)
    except BrokenConnectionError:
        return
    assert 0 <= answer.status <= 999
