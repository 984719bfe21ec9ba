"""One look at a catalog's folder: which files there are, told by their stat, and what they hold.

Nothing outside of the root is ever opened: links are resolved first, and one that leads out is a problem with a
sentence, not a file. Hidden names (editors' and version control's), caches and environments are not looked into.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trigger.function_code import FileContent

SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "env", "dist-packages", "site-packages"}
SKIPPED_SUFFIXES = (".pyc", ".pyo", "~", ".swp", ".swx", ".tmp")
MAX_ENTRIES = 50_000
MAX_LINKED_FOLDERS = 500
MAX_FOLDER_DEPTH = 20
MAX_SOURCE_BYTES = 1024 * 1024
"""Files above this are hashed, but never source, schema or spec."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as its stat shows it; any change of its content changes this.

    `real` is where it lies, links resolved; `linked` says that a folder on the way to it is a link to one that is seen
    at its own place too. A link to a hidden folder, as a mounted ConfigMap has them, is as good as that folder.
    """

    real: str
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    linked: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every file below the root by its relative path, and the sentence about each place that cannot be used.

    `hidden` are the places among those that are folders: what lies in them is not known.
    """

    files: Mapping[str, Seen] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()


def take_snapshot(root: Path) -> Snapshot:
    """The folder as it is now. Raises `OSError` when the root is not a folder that can be read, or far too large."""
    real = root.resolve(strict=True)
    walk = _Walk(str(real))
    walk.folder(str(real), "", (str(real),), linked=False)
    return Snapshot(walk.files, walk.problems, frozenset(walk.hidden))


class _Walk:
    def __init__(self, root: str) -> None:
        self._root = root
        self._entries = 0
        self._linked_folders = 0
        self._inside = root.rstrip("/") + "/"
        self.files: dict[str, Seen] = {}
        self.problems: dict[str, str] = {}
        self.hidden: set[str] = set()

    def folder(self, real: str, relative: str, above: tuple[str, ...], *, linked: bool) -> None:
        with os.scandir(real) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if _is_skipped(entry.name):
                continue
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise _TooManyFilesError(f"there are more than {MAX_ENTRIES} files and folders in it")
            place = f"{relative}/{entry.name}" if relative else entry.name
            if entry.name.isprintable():
                self._entry(entry, place, above, linked)
            else:
                self._refuse(ascii(place)[1:-1], entry.path, "has a name that cannot be printed, so it is left out")

    def _entry(self, entry: os.DirEntry[str], relative: str, above: tuple[str, ...], linked: bool) -> None:
        try:
            link = entry.is_symlink()
            real = os.path.realpath(entry.path, strict=True) if link else entry.path
            if link and real != self._root and not real.startswith(self._inside):
                self._refuse(relative, real, "is a link that leads out of the catalog's folder, so it is not followed")
                return
            seen = os.stat(real, follow_symlinks=False)
            if stat.S_ISDIR(seen.st_mode):
                self._folder(real, relative, above, linked or (link and not self._is_hidden(real)))
            elif stat.S_ISREG(seen.st_mode):
                times = (seen.st_mtime_ns, seen.st_ctime_ns)
                self.files[relative] = Seen(real, seen.st_ino, seen.st_size, *times, seen.st_mode, linked)
            else:
                self.problems[relative] = "is no file and no folder"
        except _TooManyFilesError:
            raise
        except FileNotFoundError:
            if entry.is_symlink():
                self.problems[relative] = "is a link to a file that does not exist"
        except OSError as error:
            self._refuse(relative, entry.path, f"cannot be read: {error.strerror or error}")

    def _is_hidden(self, real: str) -> bool:
        """Whether what lies there is seen through links only."""
        return any(_is_skipped(part) for part in real.removeprefix(self._root).split("/") if part)

    def _folder(self, real: str, relative: str, above: tuple[str, ...], linked: bool) -> None:
        if real in above:
            self._refuse(relative, real, "leads back to a folder above it")
        elif len(above) > MAX_FOLDER_DEPTH:
            self._refuse(relative, real, "is nested too deeply")
        else:
            # Counted over all ways that lead to a link: a dozen folders that link to each other make 12! of them.
            self._linked_folders += linked
            if self._linked_folders > MAX_LINKED_FOLDERS:
                raise _TooManyFilesError(f"there are more than {MAX_LINKED_FOLDERS} folders behind links in it")
            self.folder(real, relative, (*above, real), linked=linked)

    def _refuse(self, relative: str, real: str, sentence: str) -> None:
        self.problems[relative] = sentence
        if os.path.isdir(real):
            self.hidden.add(relative)


class _TooManyFilesError(OSError):
    """Not caught per entry, since it is about the whole."""


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_FOLDERS or name.endswith(SKIPPED_SUFFIXES)


class Contents:
    """What files hold, read again only when their stat has changed; forgets what a snapshot no longer shows."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Seen, FileContent]] = {}

    def read(self, relative: str, seen: Seen) -> FileContent:
        """The content. Raises `OSError` with a sentence when it cannot be read or is no ordinary file any more."""
        known = self._known.get(relative)
        if known is None or known[0] != seen:
            known = self._known[relative] = (seen, _read(seen))
        return known[1]

    def keep_only(self, relatives: Mapping[str, Seen]) -> None:
        self._known = {name: known for name, known in self._known.items() if name in relatives}


def _read(seen: Seen) -> FileContent:
    # O_NOFOLLOW and O_NONBLOCK: between the look and the opening, the file may have become a link or a pipe.
    descriptor = os.open(seen.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("no ordinary file any more")
        hasher = hashlib.sha256()
        data = file.read(MAX_SOURCE_BYTES + 1)
        hasher.update(data)
        small = len(data) <= MAX_SOURCE_BYTES
        while not small and (block := file.read(1 << 20)):
            hasher.update(block)
    return FileContent(hasher.hexdigest(), data if small else None, bool(seen.mode & 0o111))
