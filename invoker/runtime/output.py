"""From what a handler returns, or publishes, to bytes with a content type."""

from __future__ import annotations

import os

from . import lean_json
from .api_client import FileBody
from .note import AttemptFailedError, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
BYTES_TYPE = "application/octet-stream"

_TYPES_BY_SUFFIX = {
    ".json": JSON_TYPE,
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".txt": TEXT_TYPE,
    ".log": TEXT_TYPE,
    ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".mp4": "video/mp4",
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".parquet": "application/vnd.apache.parquet",
}
"""By a file's last suffix. A table of our own: `mimetypes` reads other files on every system, and takes 3 ms."""


class InvalidOutputError(AttemptFailedError):
    """What the handler returned has no form as an output. Another attempt may return something else."""

    def __init__(self, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__("InvalidOutput", message, reason="invalid-output", errors=errors)


def encode(value: Any, what: str) -> tuple[str | None, bytes | FileBody]:
    """Content type and body of a value; `what` names it in the sentence of `InvalidOutputError`.

    None is an empty body, str is text, bytes are themselves, a path is the file's content, everything else is JSON.
    """
    if value is None:
        return None, b""
    if isinstance(value, str):
        return TEXT_TYPE, _utf8(value, what)
    if isinstance(value, bytes | bytearray | memoryview):
        return BYTES_TYPE, bytes(value)
    if hasattr(value, "__fspath__"):
        return _file(os.fspath(value), what)
    if hasattr(value, "model_dump_json") and not isinstance(value, type):
        return JSON_TYPE, value.model_dump_json().encode()
    try:
        return JSON_TYPE, lean_json.dumps(value, _plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOutputError(f"{what} is a {_kind(value)} that cannot be JSON: {words_of(error)}") from error


def _plain(value: Any) -> Any:
    """JSON's view of what is not JSON by itself: models, dataclasses, dates."""
    if not isinstance(value, type):
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json")
        if hasattr(value, "__dataclass_fields__"):
            return {name: getattr(value, name) for name in value.__dataclass_fields__}
        if hasattr(value, "isoformat"):
            return value.isoformat()
    raise TypeError(
        f"a value of type {_kind(value)} has no form in JSON; "
        "return str, bytes, a path, None, or JSON values, dataclasses and pydantic models"
    )


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidOutputError(f"{what} is text that is no Unicode at character {error.start}") from None


def _file(path: str | bytes, what: str) -> tuple[str, FileBody]:
    name = os.fsdecode(path)
    try:
        if not os.path.isfile(name):
            raise InvalidOutputError(f"{what} is the path {name}, which is no file")
        return _TYPES_BY_SUFFIX.get(os.path.splitext(name)[1].lower(), BYTES_TYPE), FileBody(name)
    except OSError as error:
        raise InvalidOutputError(f"{what} is the path {name}, which cannot be read: {error.strerror}") from error


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
