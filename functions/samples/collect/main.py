"""Collects files: a path or a web address comes in, one event goes out for each file found.

    demo.collect  ──▶  collected.gz · collected.zip · collected.csv · collected.text · …

The last word of the topic is the file's kind, judged by its first bytes and, between kinds of text, by its name. So the
next function subscribes to what it can read and never hears of the rest.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import stat
import tarfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

CHUNK_BYTES = 64 * 1024
HEAD_BYTES = 8 * 1024
MAX_NAME_BYTES = 1024  # names travel in headers, which have little room
MAX_REDIRECTS = 5
HERE = Path(__file__).parent
DEFAULTS = {"pattern": "*", "max_files": 1000, "max_bytes": 1024**3, "timeout_seconds": 60}


class CollectError(ValueError):
    """The source cannot be collected. Nothing was published."""


@dataclass(frozen=True)
class Found:
    """One file to publish. `name` is what people call it, `location` where it came from."""

    path: Path
    name: str
    location: str
    kind: str
    size_bytes: int
    sha256: str


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Publish each file of the source and return how many there were, of which kinds.

    Everything is found, read and measured before the first event goes out, always in the same order: so a source that
    is too large publishes nothing, and a second attempt publishes the same events again, which are then known.
    """
    params = DEFAULTS | (event.get("params") or {})
    source, pattern = read_ask(event["data"], params)
    skipped: list[str] = []
    if is_web_address(source):
        files = [download(source, Path(context.workdir), params["max_bytes"], params["timeout_seconds"])]
    else:
        files = [describe(*one) for one in find(Path(source), pattern, params, skipped)]
    for number, file in enumerate(files, start=1):
        context.publish(f"collected.{file.kind}", file.path, "application/octet-stream", file_headers(file))
        context.progress(100 * number / len(files), f"{file.name} → collected.{file.kind}")
    return {
        "source": without_secrets(source) if is_web_address(source) else source,
        "files": len(files),
        "bytes": sum(file.size_bytes for file in files),
        "kinds": dict(sorted(Counter(file.kind for file in files).items())),
        "skipped": len(skipped),
    }


def file_headers(file: Found) -> dict[str, str]:
    """What travels beside the bytes. Headers are ASCII, so names are percent-encoded."""
    return {
        "File-Name": quote(file.name),
        "File-Path": quote(file.location, safe="/:"),
        "File-Size": str(file.size_bytes),
        "File-Sha256": file.sha256,
    }


# --- what is asked -----------------------------------------------------------------------------------------------


def read_ask(data: Any, params: dict[str, Any]) -> tuple[str, str]:
    """The source and the pattern. The event is {"source": …, "pattern": …}, or just the path or address as text."""
    if isinstance(data, bytes | bytearray):
        data = data.decode("utf-8", "replace")
    if isinstance(data, str):
        data = parse_object(data) if data.lstrip().startswith("{") else {"source": data.strip()}
    if not isinstance(data, dict):
        raise CollectError('the event must be a path, a web address, or {"source": …, "pattern": …}')
    if unknown := sorted(set(data) - {"source", "pattern"}):
        raise CollectError(f"unknown key {unknown[0]!r} in the event; known are source and pattern")
    source, pattern = data.get("source"), data.get("pattern") or params["pattern"]
    if not isinstance(source, str) or not source or "\0" in source:
        raise CollectError("the event names no source: give an absolute path or an http(s) address")
    if not isinstance(pattern, str) or pattern.startswith("/") or ".." in pattern.split("/"):
        raise CollectError(f"pattern {pattern!r} must be a pattern below the source, such as *.csv or data/*.gz")
    return check_scheme(source), pattern


def parse_object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CollectError(f"the event looks like JSON and is none: {error}") from error


def check_scheme(source: str) -> str:
    if is_web_address(source):
        return check_address(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source):
        raise CollectError(f"{source}: only http and https addresses are fetched; a local file is named by its path")
    path = os.path.expanduser(source)
    return path if os.path.isabs(path) else str(beside(source))


def beside(source: str) -> Path:
    """What lies with the function's code, such as the demo's data: the same wherever the function runs."""
    path = HERE / source
    if ".." in path.parts or not path.exists():
        raise CollectError(
            f"{source} is a relative path, and nothing of that name lies with the function; make it absolute"
        )
    return path


def check_address(address: str) -> str:
    """The address with spaces and other letters percent-encoded, as a browser would send it."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise CollectError(f"{address} is no web address: {error}") from error
    if "@" in parts.netloc:
        raise CollectError("the address holds a user name or password; such addresses end up in logs, use another")
    return quote(address, safe="%/:?#[]!$&'()*+,;=~")


def is_web_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


# --- files and folders -------------------------------------------------------------------------------------------


def find(source: Path, pattern: str, params: dict[str, Any], skipped: list[str]) -> list[tuple[Path, str, str]]:
    """Path, name and location of the file itself, or of every file below the folder that fits the pattern.

    Links to files are followed, links to folders are not (they may lead round in a circle). What is no file after all,
    such as a pipe or a link to nowhere, is put on `skipped`.
    """
    mode = look_at(source).st_mode
    if stat.S_ISREG(mode):
        found = [source]
    elif stat.S_ISDIR(mode):
        found = list(files_below(source, pattern, params["max_files"], skipped))
    else:
        raise CollectError(f"{source} is neither a file nor a folder")
    if not found:
        raise CollectError(f"no file below {source} fits the pattern {pattern!r}")
    total = sum(look_at(path).st_size for path in found)
    if total > params["max_bytes"]:
        raise CollectError(f"{source}: {total:,} bytes are more than max_bytes allows ({params['max_bytes']:,})")
    base = source.parent if stat.S_ISREG(mode) else source
    return [(path, readable(path.relative_to(base)), readable(path)) for path in found]


def files_below(folder: Path, pattern: str, max_files: int, skipped: list[str]) -> Iterator[Path]:
    count = 0
    for path in walk(folder):
        if not path.relative_to(folder).match(pattern.removeprefix("**/")):
            continue
        if not path.is_file():
            skipped.append(str(path))
            continue
        count += 1
        if count > max_files:
            raise CollectError(f"more than {max_files:,} files below {folder} fit {pattern!r}; see max_files")
        yield path


def walk(folder: Path) -> Iterator[Path]:
    """Every file below the folder, sorted. A folder that may not be read is an error, not a gap in the answer."""

    def refuse(error: OSError) -> None:
        raise CollectError(f"{error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def look_at(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise CollectError(f"{path} does not exist where this function runs") from error
    except OSError as error:
        raise CollectError(f"{path} cannot be read: {error.strerror}") from error


def describe(path: Path, name: str, location: str) -> Found:
    """Read the file once, in pieces, for its kind, size and sha256."""
    if max(len(name.encode()), len(location.encode())) > MAX_NAME_BYTES:
        raise CollectError(f"{location[:80]}…: names longer than {MAX_NAME_BYTES} bytes cannot travel in headers")
    hasher, size, head = hashlib.sha256(), 0, b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                head = head or chunk[:HEAD_BYTES]
                size += len(chunk)
                hasher.update(chunk)
    except OSError as error:
        raise CollectError(f"{path} cannot be read: {error.strerror}") from error
    return Found(path, name, location, kind_of(name, head), size, hasher.hexdigest())


def readable(path: Path) -> str:
    """The path as text that can be encoded, whatever bytes the name is made of."""
    return os.fsencode(path).decode("utf-8", "replace")


# --- the web -----------------------------------------------------------------------------------------------------


class LimitedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, and those to http and https only (the parent class sees to the scheme)."""

    max_redirections = MAX_REDIRECTS


def opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else: urllib's usual one would also open file: and ftp:."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        LimitedRedirects(),
    ):
        director.add_handler(handler)
    return director


def download(address: str, folder: Path, max_bytes: int, timeout_seconds: float) -> Found:
    """Fetch the address into the folder, in pieces, within both limits."""
    shown, target = without_secrets(address), folder / "download"
    ends_at = time.monotonic() + timeout_seconds
    request = urllib.request.Request(address, headers={"User-Agent": "collect", "Accept-Encoding": "identity"})
    try:
        with opener().open(request, timeout=timeout_seconds) as response, target.open("wb") as file:
            save(response, file, shown, max_bytes, ends_at)
            name = file_name(address, response.url)
    except urllib.error.HTTPError as error:
        with error:
            raise CollectError(f"{shown} answered {error.code}: {' '.join(str(error.reason).split())}") from error
    except TimeoutError as error:
        raise CollectError(f"{shown} did not answer within {timeout_seconds:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise CollectError(f"{shown} cannot be fetched: {getattr(error, 'reason', error)}") from error
    return describe(target, name, shown)


def save(response: Any, file: Any, shown: str, max_bytes: int, ends_at: float) -> None:
    """Copy the body. `read1` returns what has come, so a server that sends drop by drop meets the time limit too."""
    expected, got = response.headers.get("Content-Length"), 0
    while chunk := response.read1(CHUNK_BYTES):
        got += len(chunk)
        if got > max_bytes:
            raise CollectError(f"{shown} is larger than max_bytes allows ({max_bytes:,})")
        if time.monotonic() > ends_at:
            raise CollectError(f"{shown} was not finished in time: {got:,} bytes had come; see timeout_seconds")
        file.write(chunk)
    if expected and expected.isdigit() and got < int(expected):
        raise CollectError(f"{shown} broke off: {got:,} of {int(expected):,} bytes came")


def file_name(asked: str, answered: str) -> str:
    """The name in the address, or in the one it led to when only that one has a suffix."""
    names = [unquote(PurePosixPath(urlsplit(address).path).name, errors="replace") for address in (asked, answered)]
    return next((name for name in names if "." in name), names[0] or urlsplit(asked).hostname or "download")


def without_secrets(address: str) -> str:
    """The address without query and fragment: signed links carry their secret there."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


# --- kinds (the same few lines as in uncompress: a function's folder stands alone) --------------------------------

MAGIC = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<bz2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\0)|(?P<zip>PK(?:\x03\x04|\x05\x06))"
)
TEXT_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".geojson": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def kind_of(name: str, head: bytes) -> str:
    """What the file holds, as one word for a topic. The first bytes decide; the name only between kinds of text."""
    if match := MAGIC.match(head):
        return str(match.lastgroup)
    if is_tar(head):
        return "tar"
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 text is full of zero bytes
        return "binary"
    return TEXT_KINDS.get(PurePosixPath(name).suffix.lower(), "text")


def is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True
