"""Unpacks one archive: gz, bz2, xz, zip, tar and compressed tar; one event goes out for each file in it.

    collected.gz · .bz2 · .xz · .zip · .tar  ──▶  uncompressed.csv · uncompressed.json · uncompressed.text · …

An archive comes from somebody else, so nothing in it is believed. What it is, its first bytes say. Its files are
stored under numbers, never under their own names, and are counted while they are unpacked. All of it is unpacked before
the first event goes out: a broken or hostile archive publishes nothing.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, unquote

CHUNK_BYTES = 64 * 1024
HEAD_BYTES = 8 * 1024
MAX_NAME_BYTES = 1024  # names travel in headers, which have little room
MAX_TAR_HEADER_BYTES = 1024 * 1024
FREE_BYTES = 1024 * 1024  # the ratio is not looked at before: a few kilobytes of zeros harm nobody
DEFAULTS = {"max_bytes": 1024**3, "max_files": 10_000, "max_ratio": 200}

STREAMS: dict[str, Callable[[Path], IO[bytes]]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}  # type: ignore[dict-item]  # their overloads
SUFFIXES = {"gz": (".gz", ".gzip"), "bz2": (".bz2",), "xz": (".xz",)}


class ArchiveError(ValueError):
    """The archive cannot or must not be unpacked. Nothing was published."""


@dataclass
class Archive:
    """The archive, its limits, and the entries that were left out (links to other entries)."""

    path: Path
    name: str
    limits: dict[str, Any]
    format: str = ""
    entries: int = 0
    skipped: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self.name} {why}")

    def count_entry(self) -> None:
        self.entries += 1
        if self.entries > self.limits["max_files"]:
            raise self.refuse(f"has more than {self.limits['max_files']:,} entries; see max_files")


@dataclass(frozen=True)
class Entry:
    """A file inside an archive, opened."""

    name: str
    file: IO[bytes]


@dataclass(frozen=True)
class Member:
    """A file that has been unpacked."""

    path: Path
    name: str
    kind: str
    size_bytes: int
    sha256: str


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Unpack the archive, publish its files in their order and return what was in it."""
    workdir = Path(context.workdir)
    name = plain_name(unquote(header(event, "File-Name") or "")) or "the archive"
    archive = Archive(input_file(event, workdir), name, DEFAULTS | (event.get("params") or {}))
    members = unpack(archive, workdir / "members")
    for number, member in enumerate(members, start=1):
        topic, headers = f"uncompressed.{member.kind}", member_headers(event, archive, member)
        context.publish(topic, member.path, "application/octet-stream", headers)
        context.progress(100 * number / len(members), f"{member.name} → {topic}")
    return {
        "name": archive.name,
        "format": archive.format,
        "files": len(members),
        "bytes": sum(member.size_bytes for member in members),
        "skipped": archive.skipped,
        "members": [{"name": one.name, "kind": one.kind, "bytes": one.size_bytes} for one in members],
    }


def member_headers(event: dict[str, Any], archive: Archive, member: Member) -> dict[str, str]:
    """What travels beside the bytes; where the archive was found is handed on."""
    headers = {
        "File-Name": quote(member.name),
        "File-Size": str(member.size_bytes),
        "File-Sha256": member.sha256,
        "File-Archive": quote(archive.name),
    }
    path = header(event, "File-Path")
    return headers | ({"File-Path": path} if path else {})


# --- unpacking ---------------------------------------------------------------------------------------------------


def unpack(archive: Archive, folder: Path) -> list[Member]:
    """Store every file of the archive in the folder, as 00001, 00002 and so on."""
    folder.mkdir(exist_ok=True)
    budget = Budget(archive)
    with clear_errors(archive), closing(entries(archive)) as found:
        return [store(entry, folder / f"{number:05}", archive, budget) for number, entry in enumerate(found, start=1)]


def store(entry: Entry, path: Path, archive: Archive, budget: Budget) -> Member:
    """Copy one file in pieces, counting as it comes: a size that an archive declares proves nothing."""
    if len(entry.name.encode()) > MAX_NAME_BYTES:
        raise archive.refuse(f"has a name of more than {MAX_NAME_BYTES} bytes: {entry.name[:60]}…")
    hasher, size, head = hashlib.sha256(), 0, b""
    with path.open("wb") as target:
        while chunk := entry.file.read(CHUNK_BYTES):
            budget.take(len(chunk))
            head = (head + chunk)[:HEAD_BYTES] if len(head) < HEAD_BYTES else head
            size += len(chunk)
            hasher.update(chunk)
            target.write(chunk)
    return Member(path, entry.name, kind_of(entry.name, head), size, hasher.hexdigest())


class Budget:
    """Counts what has come out of an archive and stops it before it fills the disk."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.taken = 0
        self.most = archive.limits["max_bytes"]
        self.most_by_ratio = max(archive.limits["max_ratio"] * archive.path.stat().st_size, FREE_BYTES)

    def take(self, count: int) -> None:
        self.taken += count
        if self.taken > self.most:
            raise self.archive.refuse(f"unpacks to more than max_bytes allows ({self.most:,})")
        if self.taken > self.most_by_ratio:
            ratio = self.archive.limits["max_ratio"]
            raise self.archive.refuse(f"unpacks to more than {ratio:g} times its size, as bombs do; see max_ratio")


@contextmanager
def clear_errors(archive: Archive) -> Iterator[None]:
    """What the standard library says about broken archives, in one kind of sentence that names the file."""
    try:
        yield
    except EOFError as error:
        raise archive.refuse("is truncated: it ends in the middle") from error
    except NotImplementedError as error:
        raise archive.refuse(f"needs more than can be done here: {error}") from error
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise archive.refuse(f"is corrupt: {error}") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the disk's error, not the archive's (EINVAL: a seek led astray)
            raise
        raise archive.refuse(f"is corrupt: {error}") from error
    except ArchiveError:
        raise
    except (ValueError, KeyError, IndexError, OverflowError) as error:  # of parsers led astray
        raise archive.refuse(f"is corrupt: {error!r}") from error


def entries(archive: Archive) -> Iterator[Entry]:
    """The files of the archive, one after the other, each to be read before the next is asked for."""
    with archive.path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    archive.format = kind_of(archive.name, head)
    if archive.format == "zip":
        yield from zip_entries(archive)
    elif archive.format == "tar":
        with archive.path.open("rb") as file:
            yield from tar_entries(archive, Forward(file, Budget(archive)))
    elif archive.format in STREAMS:
        yield from stream_entries(archive, archive.format)
    else:
        what = f"looks like {archive.format}" if head else "is empty"
        raise archive.refuse(f"{what}; gz, bz2, xz, zip and tar can be unpacked")


# --- gz, bz2, xz -------------------------------------------------------------------------------------------------


def stream_entries(archive: Archive, kind: str) -> Iterator[Entry]:
    """The one file of a compressed stream, or the many of the tar that is in it."""
    with STREAMS[kind](archive.path) as file:
        holds_tar = is_tar(file.read(512))
    with STREAMS[kind](archive.path) as file:
        if holds_tar:
            archive.format = f"tar.{kind}"
            yield from tar_entries(archive, Forward(file, Budget(archive)))
        else:
            archive.count_entry()
            yield Entry(without_suffix(archive.name, kind), file)


def without_suffix(name: str, kind: str) -> str:
    """`a.csv` for `a.csv.gz`. What a gz stream itself says about its name is not believed."""
    suffix = next((suffix for suffix in SUFFIXES[kind] if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] or name


# --- tar ---------------------------------------------------------------------------------------------------------


class Forward:
    """A stream that `tarfile` may read as if it were a file, but only forwards, and counted.

    A header of a tar may declare any length, and `tarfile` reads it in one go: a great one is refused here, where it is
    asked for. `latest` is what the last read returned.
    """

    def __init__(self, file: IO[bytes], budget: Budget) -> None:
        self.file = file
        self.budget = budget
        self.position = 0
        self.latest = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_HEADER_BYTES:
            raise tarfile.ReadError(f"a header declares a length of {size:,} bytes")
        self.latest = self.file.read(size)
        self.position += len(self.latest)
        self.budget.take(len(self.latest))
        return self.latest

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.ReadError("an entry begins before the end of the one before")
        while self.position < position and self.read(min(CHUNK_BYTES, position - self.position)):
            pass


def tar_entries(archive: Archive, stream: Forward) -> Iterator[Entry]:
    with tarfile.TarFile(fileobj=stream, mode="r") as tar:  # type: ignore[arg-type]  # read, seek and tell are all it uses
        while (info := tar.next()) is not None:
            archive.count_entry()
            name = safe_name(archive, info.name)
            if info.issym() or info.islnk():
                # A symbolic link starts from its own folder, a hard link from the top of the archive.
                skip_link(archive, name, info.linkname, PurePosixPath(name).parent if info.issym() else None)
            elif info.isreg() and info.size >= 0 and (file := tar.extractfile(info)):
                yield Entry(name, file)
            elif not info.isdir():
                raise archive.refuse(f"holds {name}, which is neither file, folder nor link (a device, perhaps)")
        # tarfile takes a damaged header for the end. The true end is a block of zeros.
        if len(stream.latest) < 512 or stream.latest.strip(b"\0"):
            raise archive.refuse("is truncated or corrupt: its end mark is missing")
        while stream.read(CHUNK_BYTES):  # to the end, where the compression keeps its checksum
            pass


# --- zip ---------------------------------------------------------------------------------------------------------


def zip_entries(archive: Archive) -> Iterator[Entry]:
    refuse_vast_directory(archive)
    with zipfile.ZipFile(archive.path) as zipped:
        for info in zipped.infolist():
            archive.count_entry()
            name = safe_name(archive, info.filename)
            if info.is_dir():
                continue
            if info.flag_bits & 0x1:
                raise archive.refuse(f"is encrypted ({name}); unpack it where the password is known")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # With the other methods of zipfile a small read can unpack hundreds of megabytes at once.
                raise archive.refuse(f"is packed by a method other than deflate (number {info.compress_type}, {name})")
            with zipped.open(info) as file:
                mode = info.external_attr >> 16
                if stat.S_ISLNK(mode):
                    skip_link(archive, name, file.read(4096).decode("utf-8", "replace"), PurePosixPath(name).parent)
                elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                    yield Entry(name, file)
                else:
                    raise archive.refuse(f"holds {name}, which is neither file, folder nor link (a device, perhaps)")


def refuse_vast_directory(archive: Archive) -> None:
    """`zipfile` reads the whole table of contents into memory, so its declared size is looked at first."""
    most = 64 * 1024 + 512 * archive.limits["max_files"]
    with archive.path.open("rb") as file:
        file.seek(max(0, archive.path.stat().st_size - 66 * 1024))
        tail = file.read()
    # The sizes stand in the end record and, in archives with 64-bit sizes, in a second one that wins.
    places = ((tail.rfind(b"PK\5\6"), 12, 4), (tail.rfind(b"PK\6\6"), 40, 8))
    sizes = [int.from_bytes(tail[at + skip : at + skip + width], "little") for at, skip, width in places if at >= 0]
    if any(most < size != 0xFFFFFFFF for size in sizes):
        raise archive.refuse(f"has a table of contents of {max(sizes):,} bytes, too many entries for max_files")


# --- names -------------------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """The name as encodable text with plain slashes, without dots and empty parts; both kinds of slash count."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "/".join(part for part in re.split(r"[/\\]", name) if part not in ("", ".", ".."))


def safe_name(archive: Archive, name: str) -> str:
    """The plain name of an entry, or `ArchiveError` when it would lead out of the folder it is unpacked in."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        raise archive.refuse(f"holds an absolute name: {name!r}")
    if ".." in re.split(r"[/\\]", name):
        raise archive.refuse(f"holds a name that leads out of the archive: {name!r}")
    return plain_name(name) or "unnamed"


def skip_link(archive: Archive, name: str, target: str, start: PurePosixPath | None) -> None:
    """Leave out a link to something inside (that is published anyway); refuse one that leads out."""
    depth = len(start.parts) if start else 0
    for part in re.split(r"[/\\]", target):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0 or target.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", target):
            raise archive.refuse(f"holds a link that leads out of the archive: {name} → {target}")
    archive.skipped.append(name)


# --- the event ---------------------------------------------------------------------------------------------------


def input_file(event: dict[str, Any], workdir: Path) -> Path:
    """The input as a file: the runtime's own when the input was large, else one written here."""
    if path := event.get("data-file"):
        return Path(path)
    data = event["data"]
    if isinstance(data, dict | list):
        data = json.dumps(data)
    path = workdir / "input"
    path.write_bytes(data.encode() if isinstance(data, str) else data or b"")
    return path


def header(event: dict[str, Any], name: str) -> str | None:
    """A header of the event, whatever case it was written in."""
    headers = event.get("headers") or {}
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


# --- kinds (the same few lines as in collect: a function's folder stands alone) -----------------------------------
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
