"""The client of the run API: HTTP/1.1 over one kept connection, with patience.

Why not `http.client`: it costs 25 ms of a function's start, and `socket` alone 6; the C module below it costs 0.3.
Every call of the run API may be repeated without harm, so a connection that broke, or an answer of 5xx, is tried again
with growing pauses for as long as the caller has patience.
"""

from __future__ import annotations

import _thread
import os
import time

from .note import AttemptFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE_BYTES = 256 * 1024
ASK_FIRST_BYTES = 64 * 1024
"""Bodies above this wait for `100 Continue`, so that a refusal arrives before they are sent in vain."""
ANSWER_SECONDS = 30.0
CONTINUE_SECONDS = 10.0
MAX_HEAD_BYTES = 256 * 1024
CONNECT_SECONDS = 10.0
NOTICE_SECONDS = 0.5
"""After so long in vain the log says so: whoever waits for the function would see nothing else of it."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0


class BrokenConnectionError(OSError):
    """The other side ended the connection early, or says what is no HTTP."""


class RunApiUnreachableError(AttemptFailedError):
    """The run API did not answer for as long as there was patience."""

    def __init__(self, words: str) -> None:
        super().__init__("RunApiUnreachable", words)


class Answer:
    """An answer: `headers` by lower-case name, `body` whole, or in `file` when it was to be spilled."""

    __slots__ = ("body", "file", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.body = b""
        self.file: str | None = None

    def problem(self) -> dict[str, Any]:
        """The problem document of a refusal; one made from the status when the body is none."""
        from . import lean_json

        try:
            document = lean_json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("detail"), str):
            return {"detail": f"the run API answered {self.status}"}
        return document


class FileBody:
    """A file as a request's body; its size is fixed when this is made."""

    __slots__ = ("path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.stat(path).st_size


class RunApiClient:
    """Calls the run API of one run. Threads may share it; calls go one after the other."""

    def __init__(self, url: str, headers: dict[str, str], retry_seconds: float) -> None:
        self._secure, self._host, self._port, self._path = split_url(url)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._own_headers = {"Host": f"{shown}:{self._port}", **headers}
        self._retry_seconds = retry_seconds
        self._socket: Any = None
        self._buffer = b""
        self._lock = _thread.RLock()

    def call(
        self,
        method: str,
        name: str,
        headers: dict[str, str] | None = None,
        body: bytes | FileBody = b"",
        *,
        spill: tuple[str, int] | None = None,
    ) -> Answer:
        """The answer, whatever it is below 500. Raises `RunApiUnreachableError` when patience has ended.

        `spill` is (file, bytes): a larger answer of status 200 goes into that file.
        """
        began = time.monotonic()
        pause, give_up, is_told = FIRST_PAUSE_SECONDS, began + self._retry_seconds, False
        while True:
            try:
                with self._lock:
                    answer = self._exchange(method, name, headers, body, spill, ANSWER_SECONDS)
                if answer.status < 500:
                    return answer
                words = str(answer.problem()["detail"])
            except OSError as error:
                words = str(error) or type(error).__name__
            if time.monotonic() + pause > give_up:
                raise RunApiUnreachableError(f"the run API cannot be reached for {self._retry_seconds:g} s: {words}")
            if not is_told and time.monotonic() - began > NOTICE_SECONDS:
                is_told = True
                self._tell(f"invoker: the run API at {self._host}:{self._port} does not answer ({words}); trying on")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    @staticmethod
    def _tell(line: str) -> None:
        try:  # noqa: SIM105 -- contextlib is an import more
            os.write(2, f"{line}\n".encode("utf-8", "replace"))
        except OSError:
            pass  # nobody has to listen

    def call_once(self, method: str, name: str, body: bytes, seconds: float) -> Answer | None:
        """The answer if there is one within that time, else None: for news that may be lost."""
        if not self._lock.acquire(timeout=seconds):
            return None
        try:
            return self._exchange(method, name, {"Content-Type": "application/json"}, body, None, seconds)
        except OSError:
            return None
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _exchange(
        self,
        method: str,
        name: str,
        headers: dict[str, str] | None,
        body: bytes | FileBody,
        spill: tuple[str, int] | None,
        seconds: float,
    ) -> Answer:
        kept = self._socket is not None
        try:
            return self._once(method, name, headers, body, spill, seconds)
        except (BrokenConnectionError, ConnectionError):
            self.close()
            if not kept:
                raise
            # A kept connection that the server has closed meanwhile says nothing about the server.
            return self._fresh(method, name, headers, body, spill, seconds)
        except BaseException:  # whatever interrupted us (SIGTERM, a timeout): half an answer is not taken for the next
            self.close()
            raise

    def _fresh(self, *arguments: Any) -> Answer:
        try:
            return self._once(*arguments)
        except BaseException:  # interrupted, too: half an answer is not taken for the next
            self.close()
            raise

    def _once(
        self,
        method: str,
        name: str,
        headers: dict[str, str] | None,
        body: bytes | FileBody,
        spill: tuple[str, int] | None,
        seconds: float,
    ) -> Answer:
        if self._socket is None:
            self._socket = connect(self._host, self._port, self._secure, min(seconds, CONNECT_SECONDS))
        self._socket.settimeout(seconds)
        size = body.size if isinstance(body, FileBody) else len(body)
        head = request_head(method, f"{self._path}/{name}", {**self._own_headers, **(headers or {})}, size)
        answer = self._send(head, body, size)
        if answer is None:
            answer = self._read_head()
        while answer.status < 200:
            answer = self._read_head()
        self._read_body(answer, method, spill)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    def _send(self, head: bytes, body: bytes | FileBody, size: int) -> Answer | None:
        """Send the request; gives the final answer when that came before the body was asked for."""
        if size <= ASK_FIRST_BYTES and isinstance(body, bytes):
            self._socket.sendall(head + body)
            return None
        self._socket.sendall(head)
        if size > ASK_FIRST_BYTES:
            answer = self._await_continue()
            if answer is not None and answer.status >= 200:
                answer.headers["connection"] = "close"  # our body is not sent, so the connection is out of step
                return answer
        try:
            for piece in _pieces(body, size):
                self._socket.sendall(piece)
        except ConnectionError:
            # Refused in the middle: the reason may have arrived before the connection broke.
            answer = self._read_head()
            answer.headers["connection"] = "close"
            return answer
        return None

    def _await_continue(self) -> Answer | None:
        seconds = self._socket.gettimeout()
        self._socket.settimeout(min(CONTINUE_SECONDS, seconds))
        try:
            return self._read_head()
        except TimeoutError:
            return None  # a server that does not know the word: send the body without it
        finally:
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def _read_head(self) -> Answer:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BrokenConnectionError("the answer's headers have no end")
            self._fill()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return parse_head(head)

    def _read_body(self, answer: Answer, method: str, spill: tuple[str, int] | None) -> None:
        if method == "HEAD" or answer.status in (204, 304):
            return
        if "chunked" in answer.headers.get("transfer-encoding", "").lower():
            length, pieces = None, self._chunked()
        else:
            length = _length(answer)
            pieces = self._until_close(answer) if length is None else self._exactly(length)
        if spill and answer.status == 200 and (length is None or length > spill[1]):
            answer.file = spill[0]
            _write_file(spill[0], pieces)
        else:
            answer.body = b"".join(pieces)

    def _exactly(self, left: int) -> Any:
        while left > 0:
            if not self._buffer:
                self._fill()
            piece, self._buffer = self._buffer[:left], self._buffer[left:]
            left -= len(piece)
            yield piece

    def _chunked(self) -> Any:
        while True:
            size = _chunk_size(self._line())
            yield from self._exactly(size)
            if size == 0:
                while self._line():
                    pass  # trailers
                return
            self._line()

    def _until_close(self, answer: Answer) -> Any:
        answer.headers["connection"] = "close"
        try:
            while True:
                if self._buffer:
                    yield self._buffer
                    self._buffer = b""
                self._fill()
        except BrokenConnectionError:
            return

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BrokenConnectionError("a line of the answer has no end")
            self._fill()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _fill(self) -> None:
        data = self._socket.recv(PIECE_BYTES)
        if not data:
            raise BrokenConnectionError("the run API closed the connection")
        self._buffer += data


def split_url(url: str) -> tuple[bool, str, int, str]:
    """(secure, host, port, path) of an http or https URL. Raises `AttemptFailedError` for anything else."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        raise AttemptFailedError("SettingsError", f"INVOKER_RUN_URL is no http or https address: {url[:200]!r}")
    secure = scheme.lower() == "https"
    place, _, path = rest.partition("/")
    host, colon, port = place.rpartition(":")
    if not colon or "]" in port:
        host, port = place, "443" if secure else "80"
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise AttemptFailedError("SettingsError", f"INVOKER_RUN_URL has no usable host and port: {url[:200]!r}")
    return secure, host, int(port), f"/{path}".rstrip("/")


def request_head(method: str, path: str, headers: dict[str, str], size: int) -> bytes:
    """The request line and headers. Raises `ValueError` for a header that would break out of its line."""
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in headers.items():
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the header {name} has a line break")
        lines.append(f"{name}: {value}")
    if size or method != "GET":
        lines.append(f"Content-Length: {size}")
    if size > ASK_FIRST_BYTES:
        lines.append("Expect: 100-continue")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse_head(head: bytes) -> Answer:
    """Status and headers of an answer. Raises `BrokenConnectionError` when it is no HTTP/1.1."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise BrokenConnectionError("the run API's address answers something else than HTTP")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return Answer(int(rest[:3]), headers)


def connect(host: str, port: int, secure: bool, seconds: float) -> Any:
    """A connected socket with that timeout. Raises `OSError` with the last address's failure."""
    if secure:
        import socket
        import ssl

        plain = socket.create_connection((host, port), timeout=seconds)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    import _socket

    failure: OSError = OSError(f"{host} has no address")
    # The name as bytes: text would go through the IDNA codec, which costs 6 ms to import.
    for family, kind, protocol, _, address in _socket.getaddrinfo(host.encode(), port, 0, _socket.SOCK_STREAM):
        connection = _socket.socket(family, kind, protocol)
        try:
            connection.settimeout(seconds)
            connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _length(answer: Answer) -> int | None:
    text = answer.headers.get("content-length")
    if text is not None and not text.isdigit():
        raise BrokenConnectionError("the answer's Content-Length is no number")
    return None if text is None else int(text)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise BrokenConnectionError("the answer's chunks have no size") from None


def _write_file(path: str, pieces: Any) -> None:
    """The pieces in that file. A file that cannot be written is no trouble of the run API's, which asking again heals:
    it is raised as `AttemptFailedError`."""
    try:
        file = open(path, "wb", buffering=0)  # noqa: SIM115 -- closed below; what the pieces raise is not ours to name
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        for piece in pieces:
            left = memoryview(piece)
            try:
                while left:
                    left = left[file.write(left) :]  # a full disk takes a part before it refuses
            except OSError as error:
                raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> AttemptFailedError:
    return AttemptFailedError("InputUnavailable", f"the input cannot be written to {path}: {error.strerror or error}")


def _pieces(body: bytes | FileBody, size: int) -> Any:
    if isinstance(body, bytes):
        view = memoryview(body)
        for start in range(0, size, PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]
        return
    with open(body.path, "rb", buffering=0) as file:
        left = size
        while left > 0:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise AttemptFailedError("OutputError", f"{body.path} became shorter while it was sent")
            left -= len(piece)
            yield piece
