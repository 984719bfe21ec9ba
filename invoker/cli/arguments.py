"""What commands make of their arguments: an event's bytes and content type, `K=V` pairs, durations.

Pure, save that `read_data` reads the file or the standard input that it is told to.
"""

from __future__ import annotations

import json
import mimetypes
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from invoker.errors import InputRefusedError

READ_WHOLE_BYTES = 8 * 1024 * 1024
"""Files above this are neither read into memory nor looked into for their content type."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

_BY_SUFFIX = {
    ".json": JSON,
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": TEXT,
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".gz": "application/gzip",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".parquet": "application/vnd.apache.parquet",
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


@dataclass(frozen=True, slots=True)
class Payload:
    """An event's bytes and what they are; `content_type` is None only when there are no bytes.

    A large file stays a path: it is read in pieces when it is sent.
    """

    data: bytes | Path
    content_type: str | None

    @property
    def size_bytes(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size


def type_of(payload: Payload, content_type: str | None, headers: Mapping[str, str]) -> str | None:
    """What the bytes are said to be, by `--content-type` or else `--header`; what they look like when nobody says."""
    told = (value for name, value in headers.items() if name.lower() == "content-type")
    return content_type or next(told, payload.content_type)


def read_data(given: str | None) -> Payload:
    """The payload that `DATA`, `@FILE` or `-` (standard input) stands for; without one, no bytes.

    Standard input is read only when asked for: inside `while read` it is somebody else's. Raises `InputRefusedError`
    when the file cannot be read.
    """
    if given is None:
        return payload_of(b"")
    if given == "-":
        return payload_of(sys.stdin.buffer.read())
    if given.startswith("@"):
        return _file(Path(given[1:]))
    return payload_of(given.encode("utf-8", "surrogateescape"))


def payload_of(data: bytes, name: str | None = None) -> Payload:
    """The bytes with the content type that the file's name or they themselves tell."""
    return Payload(data, guess_content_type(data, name))


def guess_content_type(data: bytes, name: str | None = None) -> str | None:
    """By suffix for a file, else JSON for what parses as an object or array, text for UTF-8, bytes for the rest."""
    if name is not None and (known := _of_name(name)) is not None:
        return known
    if not data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return BYTES
    if "\0" in text:
        return BYTES
    return JSON if _is_json(text) else TEXT


def _of_name(name: str) -> str | None:
    return _BY_SUFFIX.get(Path(name).suffix.lower()) or mimetypes.guess_type(name)[0]


def _is_json(text: str) -> bool:
    """Only objects and arrays: `12` and `"x"` are JSON too, but who types them means text."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _file(path: Path) -> Payload:
    try:
        if path.is_file() and path.stat().st_size > READ_WHOLE_BYTES:
            with path.open("rb"):  # now, and not in the middle of sending, it is said that it cannot be read
                return Payload(path, _of_name(path.name) or BYTES)
        return payload_of(path.read_bytes(), path.name)
    except OSError as error:
        raise InputRefusedError(f"cannot read {path}: {error.strerror or error}") from error


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """`K=V` texts as a mapping. Raises `ValueError`, naming the option, for one without `=` and for a name that
    is there twice: it travels as a header, of which there is one, whatever its case."""
    found: dict[str, str] = {}
    texts: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ValueError(f"{option} {text!r}: expected NAME=VALUE")
        if not (key + value).isprintable() or not re.fullmatch(r"[!-9;-~]+", key):
            raise ValueError(f"{option} {text!r}: a name is printable ASCII without ':', a value has no line breaks")
        if key.lower() in texts:
            raise ValueError(f"{option} {key!r} is given twice: {texts[key.lower()]!r} and {text!r}")
        found[key], texts[key.lower()] = value, text
    return found


def seconds(given: str | float) -> float:
    """A duration in seconds: a number (`30`, `0.5`), or `250ms`, `30s`, `5m`, `1h30m`, `2d`. Raises `ValueError`."""
    text = str(given).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write seconds (30) or 250ms, 30s, 5m, 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
