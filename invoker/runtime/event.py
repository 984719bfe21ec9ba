"""What a handler is given about its event: Kubeless' keys and ours; the data is loaded when it is asked for."""

from __future__ import annotations

import os

from . import lean_json
from .exits import NO_RETRY
from .note import AttemptFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LARGE_BYTES = 1024 * 1024
"""Inputs above this are streamed into a file of the work folder and never held unless `event["data"]` is read."""
INPUT_FILE_NAME = ".invoker-input"

_LATER = object()


class InvalidInputError(AttemptFailedError):
    """The input is not what it is declared to be; another attempt would find the same."""

    def __init__(self, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__("InvalidInput", message, reason="invalid-input", errors=errors, exit_code=NO_RETRY)


class Input:
    """The input's bytes, in memory or in a file, and what they are declared to be."""

    def __init__(self, content_type: str, workdir: str, *, data: bytes | None = None, file: str | None = None) -> None:
        self.content_type = content_type
        self.size = os.stat(file).st_size if file is not None else len(data or b"")
        self.path = file
        self._workdir = workdir
        self._data = data

    @property
    def is_json(self) -> bool:
        kind = self._kind()
        return kind == "application/json" or kind.endswith("+json")

    def raw(self) -> bytes:
        """All the bytes; read anew from the file each time, so that they are not kept twice."""
        if self._data is not None:
            return self._data
        with open(self.path or "", "rb") as file:
            return file.read()

    def file(self) -> str:
        """The path of a file with the bytes; made in the work folder when they are in memory."""
        if self.path is None:
            path = os.path.join(self._workdir, INPUT_FILE_NAME)
            with open(path, "wb") as file:
                file.write(self._data or b"")
            self.path = path
        return self.path

    def value(self) -> Any:
        """The data as it is declared: parsed JSON, text, or bytes. Raises `InvalidInputError`."""
        if self.is_json:
            return self.parsed()
        if self._kind().startswith("text/"):
            return self._text()
        return self.raw()

    def parsed(self) -> Any:
        """The data as JSON, whatever it is declared to be. Raises `InvalidInputError`."""
        try:
            return lean_json.loads(self.raw())
        except ValueError as error:
            raise _invalid(str(error)) from None

    def _text(self) -> str:
        charset = _parameter(self.content_type, "charset") or "utf-8"
        try:
            return self.raw().decode(charset)
        except UnicodeDecodeError as error:
            raise _invalid(f"is not {charset}, as its content type says, at byte {error.start}") from None
        except LookupError:
            raise _invalid(f"has the unknown character set {charset[:40]!r}") from None

    def _kind(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()


class Event(dict):  # type: ignore[type-arg]  # a subscript would need typing at run time; handlers see a plain dict
    """The event as a dictionary. `event["data"]` is made on first use, `event["data-file"]` too."""

    def __init__(self, given: Input, facts: dict[str, Any]) -> None:
        super().__init__(facts, data=_LATER)
        self._input = given
        if given.path is not None:
            self["data-file"] = given.path

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if value is _LATER:
            value = self._input.value()
            self[key] = value
        return value

    def __missing__(self, key: str) -> Any:
        if key != "data-file":
            raise KeyError(key)
        self[key] = path = self._input.file()
        return path

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def pop(self, key: str, *default: Any) -> Any:
        return super(Event, self._settled()).pop(key, *default)

    def __iter__(self) -> Iterator[str]:
        # Only its being here matters: dict(event) copies the raw values of a dictionary that iterates as a plain one.
        return super().__iter__()

    # Everything that looks at all values at once.

    def items(self) -> Any:
        return super(Event, self._settled()).items()

    def values(self) -> Any:
        return super(Event, self._settled()).values()

    def copy(self) -> dict[str, Any]:
        return super(Event, self._settled()).copy()

    def __eq__(self, other: object) -> bool:
        return bool(dict.__eq__(self._settled(), other))

    def __repr__(self) -> str:
        return dict.__repr__(self._settled())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)

    __hash__ = None

    def _settled(self) -> Event:
        if "data" in self:
            self["data"]
        return self


def _invalid(words: str) -> InvalidInputError:
    return InvalidInputError(f"the input {words}", [{"pointer": "", "detail": words}])


def _parameter(content_type: str, name: str) -> str | None:
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"') or None
    return None
