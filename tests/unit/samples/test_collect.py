"""collect: what is found, what is refused, and that a refusal publishes nothing. The web server is a real one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.sample_functions import RecordingContext, event, fresh_context, load

collect = load("collect")


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    (tmp_path / "runs").mkdir()
    return fresh_context(tmp_path / "runs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.csv").write_text("x,y\n1,2\n")
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"x\n1\n"))
    (folder / "sub" / "a.csv").write_text("z\n")
    (folder / "sub" / "Größe 100%.json").write_text("{}")
    return folder


def refused(data: Any, context: RecordingContext, **params: Any) -> str:
    with pytest.raises(collect.CollectError) as caught:
        collect.handle(event(data, params=params), context)
    assert context.published == []
    return str(caught.value)


def names(context: RecordingContext) -> list[str]:
    return [unquote(one.headers["File-Name"]) for one in context.published]


def test_a_folder_is_read_with_everything_below_it_in_order(folder: Path, context: RecordingContext) -> None:
    summary = collect.handle(event({"source": str(folder)}), context)
    assert names(context) == ["a.csv.gz", "b.csv", "sub/Größe 100%.json", "sub/a.csv"]
    topics = ["collected.gz", "collected.csv", "collected.json", "collected.csv"]
    assert [one.topic for one in context.published] == topics
    size = sum(len(one.data) for one in context.published)
    kinds = {"csv": 2, "gz": 1, "json": 1}
    assert summary == {"source": str(folder), "files": 4, "bytes": size, "kinds": kinds, "skipped": 0}
    assert context.progressed[-1][0] == 100


def test_each_event_carries_the_bytes_and_says_what_they_are(folder: Path, context: RecordingContext) -> None:
    collect.handle(event(str(folder / "b.csv")), context)
    (one,) = context.published
    assert one.data == b"x,y\n1,2\n"
    assert one.content_type == "application/octet-stream"
    assert one.headers == {
        "File-Name": "b.csv",
        "File-Path": str(folder / "b.csv"),
        "File-Size": "8",
        "File-Sha256": hashlib.sha256(b"x,y\n1,2\n").hexdigest(),
    }


def test_a_relative_source_lies_with_the_function(context: RecordingContext) -> None:
    summary = collect.handle(event("data/tzdata"), context)
    assert names(context) == ["countries.zip", "tables.tar.xz", "zone1970.tab.gz"]
    assert summary["kinds"] == {"gz": 1, "xz": 1, "zip": 1}
    collect.handle(event({"source": "data", "pattern": "*.zip"}), context)
    assert names(context)[3:] == ["tzdata/countries.zip"]


def test_the_order_is_the_same_every_time(tmp_path: Path, context: RecordingContext) -> None:
    """Whatever order the file system has: a second attempt must publish the same events at the same positions."""
    expected = ["b", "k", "a/k", "a/n", "c/d/x", "c/e/x", "m/a", "z/a"]
    for name in reversed(expected):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).touch()
    collect.handle(event(str(tmp_path / "source")), context)
    assert names(context) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["b.csv", "sub/a.csv"]),
        ("**/*.csv", ["b.csv", "sub/a.csv"]),
        ("sub/*.csv", ["sub/a.csv"]),
        ("[ab].csv", ["b.csv", "sub/a.csv"]),
        ("a.csv.*", ["a.csv.gz"]),
    ],
)
def test_patterns(folder: Path, context: RecordingContext, pattern: str, expected: list[str]) -> None:
    collect.handle(event({"source": str(folder), "pattern": pattern}), context)
    assert names(context) == expected


def test_the_pattern_of_the_event_wins_over_the_parameter(folder: Path, context: RecordingContext) -> None:
    ask = event({"source": str(folder), "pattern": "*.gz"}, params={"pattern": "*.json"})
    collect.handle(ask, context)
    assert names(context) == ["a.csv.gz"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda path: path,
        lambda path: f"  {path}\n",
        lambda path: path.encode(),
        lambda path: json.dumps({"source": path}).encode(),
        lambda path: {"source": path},
    ],
    ids=["text", "text with blanks", "bytes", "JSON as bytes", "parsed JSON"],
)
def test_every_way_to_name_a_source(folder: Path, context: RecordingContext, wrap: Any) -> None:
    collect.handle(event(wrap(str(folder / "b.csv"))), context)
    assert names(context) == ["b.csv"]


def tar_of(format: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    return packed.getvalue()


def old_tar() -> bytes:
    """A tar from before there was a magic word: only its checksum tells."""
    block = bytearray(tar_of(tarfile.USTAR_FORMAT))
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def zip_of(*files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in files:
            archive.writestr(name, b"x")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.csv", b"", "csv"),
        ("a", b"", "text"),
        ("A.CSV", b"x", "csv"),
        ("a.tab", b"x", "tsv"),
        ("a.ndjson", b"{}", "jsonl"),
        ("README.md", b"# hello", "text"),
        ("a.csv", gzip.compress(b"x", mtime=0), "gz"),
        ("a.gz", b"not compressed", "text"),
        ("a", __import__("bz2").compress(b"x"), "bz2"),
        ("a", __import__("bz2").compress(b""), "bz2"),
        ("a.txt", b"BZh is how some texts begin", "text"),
        ("a", __import__("lzma").compress(b"x"), "xz"),
        ("a.whl", zip_of("a"), "zip"),
        ("a", zip_of(), "zip"),
        ("a", tar_of(tarfile.USTAR_FORMAT), "tar"),
        ("a", tar_of(tarfile.GNU_FORMAT), "tar"),
        ("a", tar_of(tarfile.PAX_FORMAT), "tar"),
        ("a", old_tar(), "tar"),
        ("a.csv", b"\0\1\2", "binary"),
        ("a.csv", "x,y\n".encode("utf-16"), "csv"),
        ("a", bytes(1024), "binary"),
        ("a.csv", b"\xe4\xf6\xfc", "csv"),
    ],
)
def test_kinds(name: str, data: bytes, kind: str) -> None:
    assert collect.kind_of(name, data[: collect.HEAD_BYTES]) == kind


def test_links_to_files_are_followed_and_what_is_no_file_is_counted(folder: Path, context: RecordingContext) -> None:
    (folder / "link.csv").symlink_to("b.csv")
    (folder / "nowhere.csv").symlink_to("gone")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.csv")
    summary = collect.handle(event({"source": str(folder), "pattern": "*.csv"}), context)
    assert names(context) == ["b.csv", "link.csv", "sub/a.csv"]
    assert summary["skipped"] == 2


def test_a_name_that_is_no_utf8_still_travels(folder: Path, context: RecordingContext) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.csv")).write_text("x\n")
    collect.handle(event({"source": str(folder), "pattern": "caf*"}), context)
    assert names(context) == ["caf\ufffd.csv"]


def test_what_is_missing_or_unusable_is_said(folder: Path, context: RecordingContext) -> None:
    os.mkfifo(folder / "pipe")
    gone = folder / "gone"
    cases: list[tuple[Any, str]] = [
        (str(gone), f"{gone} does not exist where this function runs"),
        (str(folder / "b.csv" / "x"), f"{folder / 'b.csv' / 'x'} cannot be read: Not a directory"),
        (str(folder / "pipe"), f"{folder / 'pipe'} is neither a file nor a folder"),
        ({"source": str(folder), "pattern": "*.nix"}, f"no file below {folder} fits the pattern '*.nix'"),
        ({"source": str(folder), "pattern": "../*"}, "pattern '../*' must be a pattern below the source"),
        ({"source": str(folder), "pattern": "/etc/*"}, "pattern '/etc/*' must be a pattern below the source"),
        ({"source": str(folder), "patern": "*"}, "unknown key 'patern' in the event; known are source and pattern"),
        ({"pattern": "*"}, "the event names no source"),
        ({"source": 7}, "the event names no source"),
        ({"source": "/a\0b"}, "the event names no source"),
        (b"", "the event names no source"),
        (None, "the event must be a path, a web address, or"),
        ([1], "the event must be a path, a web address, or"),
        ("{not json", "the event looks like JSON and is none"),
        ("data/a.csv", "data/a.csv is a relative path, and nothing of that name lies with the function"),
        ("../convert/event.csv", "../convert/event.csv is a relative path"),
        ("file:///etc/passwd", "only http and https addresses are fetched; a local file is named by its path"),
        ("ftp://example.org/a", "only http and https addresses are fetched"),
        ("http://[", "http://[ is no web address"),
        ("https://me:secret@example.org/a", "the address holds a user name or password"),
        ("http:///a", "http:///a cannot be fetched: no host given"),
    ]
    for data, sentence in cases:
        message = refused(data, context)
        assert sentence in message
        assert "secret" not in message


def test_a_file_that_cannot_be_read_publishes_nothing(context: RecordingContext) -> None:
    """Reading the start of a process's memory fails for everybody, root included."""
    assert refused("/proc/self/mem", context) == "/proc/self/mem cannot be read: Input/output error"


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read everything, so it steps down for a moment."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_no_gap_in_the_answer(context: RecordingContext) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own temporary folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "sub").mkdir()
        (folder / "a.csv").write_text("x\n")
        (folder / "sub").chmod(0)
        with as_ordinary_user():
            assert refused(str(folder), context) == f"{folder / 'sub'} cannot be read: Permission denied"


def test_limits_are_kept_before_anything_is_published(folder: Path, context: RecordingContext) -> None:
    assert f"more than 3 files below {folder} fit '*'" in refused(str(folder), context, max_files=3)
    assert "are more than max_bytes allows (9)" in refused(str(folder), context, max_bytes=9)
    collect.handle(event(str(folder), params={"max_files": 4}), context)
    assert len(context.published) == 4


def test_a_name_too_long_for_a_header_is_refused(tmp_path: Path, context: RecordingContext) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("x")
    assert "names longer than 1024 bytes" in refused(str(deep), context)


# --- the web -----------------------------------------------------------------------------------------------------


class Pages(BaseHTTPRequestHandler):
    """One page for each way that a web server can behave."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"page_{page}", self.page_missing)()

    def page_data(self) -> None:
        self.answer(b"x,y\n1,2\n")

    def page_packed(self) -> None:
        self.answer(gzip.compress(b"x\n" * 1000), ("Content-Encoding", "gzip"))

    def page_moved(self) -> None:
        self.answer(b"", ("Location", "/data/final.csv"), status=302)

    def page_loop(self) -> None:
        self.answer(b"", ("Location", f"/loop/{len(self.path)}{'x' * len(self.path)}"), status=302)

    def page_tofile(self) -> None:
        self.answer(b"", ("Location", "file:///etc/passwd"), status=302)

    def page_toftp(self) -> None:
        self.answer(b"", ("Location", "ftp://127.0.0.1/x"), status=302)

    def page_broken(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x" * 40)
        self.close_connection = True

    def page_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:  # the reader has had enough, which is what the test is about
            pass

    def page_drops(self) -> None:
        """A byte now and then, each in time, for ever."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        stopping: threading.Event = self.server.stopping  # type: ignore[attr-defined]  # set by the fixture
        try:
            while not stopping.wait(0.02):
                self.wfile.write(b"x")
        except OSError:  # as above
            pass

    def page_silent(self) -> None:
        self.server.stopping.wait(30)  # type: ignore[attr-defined]  # set by the fixture
        self.close_connection = True

    def page_missing(self) -> None:
        self.answer(b"no such page", status=404)

    def answer(self, body: bytes, *headers: tuple[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.stopping = threading.Event()  # type: ignore[attr-defined]  # how the pages learn that the test is over
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stopping.set()  # type: ignore[attr-defined]  # see above
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_address_is_downloaded(web: str, context: RecordingContext) -> None:
    summary = collect.handle(event({"source": f"{web}/data/t%20a.csv?token=secret#part"}), context)
    (one,) = context.published
    assert (one.topic, one.data) == ("collected.csv", b"x,y\n1,2\n")
    assert unquote(one.headers["File-Name"]) == "t a.csv"
    assert unquote(one.headers["File-Path"]) == f"{web}/data/t%20a.csv"
    assert summary["source"] == f"{web}/data/t%20a.csv"
    assert "secret" not in json.dumps(summary) + json.dumps(one.headers)


def test_letters_of_any_script_are_encoded_as_a_browser_does(web: str, context: RecordingContext) -> None:
    collect.handle(event(f"{web}/data/größe 1.csv"), context)
    assert names(context) == ["größe 1.csv"]


def test_a_server_that_packs_on_its_own_gives_a_packed_file(web: str, context: RecordingContext) -> None:
    collect.handle(event(f"{web}/packed/a.csv"), context)
    assert context.published[0].topic == "collected.gz"


def test_a_redirect_is_followed_and_lends_its_name_when_the_address_has_none(
    web: str, context: RecordingContext
) -> None:
    collect.handle(event(f"{web}/moved"), context)
    assert names(context) == ["final.csv"]


def test_what_the_web_may_do_wrong_is_said(web: str, context: RecordingContext) -> None:
    for page, sentence in [
        ("/nothere", "/nothere answered 404: Not Found"),
        ("/loop", "/loop answered 302: The HTTP server returned a redirect error that would lead to an infinite loop"),
        ("/tofile", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("/toftp", "unknown url type: ftp"),
        ("/broken", "/broken broke off: 40 of 100 bytes came"),
    ]:
        assert sentence in refused(web + page, context)


def test_a_download_keeps_to_its_limits(web: str, context: RecordingContext) -> None:
    assert "is larger than max_bytes allows (1,000,000)" in refused(f"{web}/endless", context, max_bytes=1_000_000)
    assert "was not finished in time" in refused(f"{web}/drops", context, timeout_seconds=2)
    assert "did not answer within 0.3 s" in refused(f"{web}/silent", context, timeout_seconds=0.3)


def test_nobody_listening_is_said(context: RecordingContext) -> None:
    assert "cannot be fetched: [Errno 111] Connection refused" in refused("http://127.0.0.1:1/a", context)
