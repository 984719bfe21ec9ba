"""A file whose content is used as it stands, and read again when it changes; the last good version outlives a bad one.

Looking costs one `stat` per use, so a change holds for the very next call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from invoker.errors import SettingsError

T = TypeVar("T")
MAX_FILE_BYTES = 8 * 1024 * 1024
RETRY_SECONDS = 1.0

_Look = tuple[int, int, int, int] | None
_NEVER = (-1, -1, -1, -1)

_log = structlog.get_logger(component="access")


class WatchedFile(Generic[T]):
    """What `read` makes of a file's bytes, always of the newest version that `read` takes.

    `setting` stands in front of what is said about the file. Raises `SettingsError` when the file cannot be used at
    first; later on a version that cannot be used is told in the log, once, and the one before stays in use until a read
    succeeds, which is tried again every second: what kept the file from being read may end without changing it.
    """

    def __init__(
        self, path: Path, setting: str, read: Callable[[bytes], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._setting = setting
        self._read = read
        self._clock = clock
        self._failed: _Look = _NEVER
        self._failed_at = 0.0
        self._seen = self._look()  # before the content, so that a change in between is seen at the next call
        self._content = self._load()

    def present(self) -> T:
        """The content now."""
        look = self._look()
        if look != self._seen and (look != self._failed or self._clock() - self._failed_at >= RETRY_SECONDS):
            self._read_again(look)
        return self._content

    def _read_again(self, look: _Look) -> None:
        try:
            self._content = self._load()
        except SettingsError as error:
            if look != self._failed:
                _log.error("file cannot be used, the last good version stays", error_message=error.message)
            self._failed, self._failed_at = look, self._clock()
        else:
            self._seen, self._failed = look, _NEVER
            _log.info("file read again", setting=self._setting, file=str(self._path))

    def _look(self) -> _Look:
        """What changes when the file does; None while it cannot be seen."""
        try:
            facts = os.stat(self._path)
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino

    def _load(self) -> T:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise SettingsError(f"{self._setting}: {self._path} cannot be read: {error.strerror}") from error
        if len(data) > MAX_FILE_BYTES:
            raise SettingsError(f"{self._setting}: {self._path} is larger than {MAX_FILE_BYTES} bytes")
        try:
            return self._read(data)
        except SettingsError as error:
            raise SettingsError(f"{self._setting}: {self._path}: {error.message}", hint=error.hint) from error
