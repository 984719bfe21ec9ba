"""uncompress: what comes out of good archives, and that bad ones are refused in words before anything is published.

The bad archives are made here, by hand where the standard library is too decent to make them.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_functions import SAMPLES, RecordingContext, event, fresh_context, load

uncompress = load("uncompress")
Files = dict[str, bytes]


def zip_of(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return packed.getvalue()


def tar_of(files: Files, *infos: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in infos:
            archive.addfile(info)
    return packed.getvalue()


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def zip_entry(name: str, mode: int, data: bytes = b"", flags: int = 0) -> bytes:
    """A zip of one entry with that Unix mode. Flags are put into both of its headers."""
    packed = io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(info, data)
    raw = bytearray(packed.getvalue())
    raw[6] |= flags
    raw[raw.index(b"PK\1\2") + 8] |= flags
    return bytes(raw)


def run(data: bytes, context: RecordingContext, name: str = "a.archive", **params: Any) -> dict[str, Any]:
    summary: dict[str, Any] = uncompress.handle(
        event(data, topic="collected.x", headers={"File-Name": quote(name)}, params=params), context
    )
    return summary


def refused(data: bytes, context: RecordingContext, **params: Any) -> str:
    with pytest.raises(uncompress.ArchiveError) as caught:
        run(data, context, **params)
    assert context.published == []
    assert str(caught.value).startswith("a.archive ")
    return str(caught.value)


def came_out(context: RecordingContext) -> Files:
    return {unquote(one.headers["File-Name"]): one.data for one in context.published}


# --- good archives -----------------------------------------------------------------------------------------------

FILES = {"a.csv": b"x\n1\n", "sub/b.json": b"{}", "sub/leer": b"", "Größe.bin": bytes(100), "c.gz": gzip.compress(b"c")}

PACKERS: dict[str, Callable[[Files], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: gzip.compress(tar_of(files)),
    "tar.bz2": lambda files: bz2.compress(tar_of(files, format=tarfile.GNU_FORMAT)),
    "tar.xz": lambda files: lzma.compress(tar_of(files, format=tarfile.USTAR_FORMAT)),
}


@pytest.mark.parametrize("format", PACKERS)
def test_many_files_come_out_as_they_went_in(format: str, context: RecordingContext) -> None:
    summary = run(PACKERS[format](FILES), context)
    assert came_out(context) == FILES
    topics = [f"uncompressed.{kind}" for kind in ("csv", "json", "text", "binary", "gz")]
    assert [one.topic for one in context.published] == topics
    assert (summary["format"], summary["files"], summary["skipped"]) == (format, 5, [])
    assert summary["bytes"] == sum(map(len, FILES.values()))
    assert summary["members"][0] == {"name": "a.csv", "kind": "csv", "bytes": 4}


STREAMS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("data", [b"", b"x\n1\n", b"line\n" * 100_000])
def test_one_file_comes_out_under_the_name_without_its_suffix(
    kind: str, data: bytes, context: RecordingContext
) -> None:
    assert run(STREAMS[kind](data), context, f"dir/a.csv.{kind}")["format"] == kind
    assert came_out(context) == {"dir/a.csv": data}
    assert context.published[0].topic == "uncompressed.csv"


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_put_one_after_the_other_are_one_file(kind: str, context: RecordingContext) -> None:
    run(STREAMS[kind](b"one\n") + STREAMS[kind](b"") + STREAMS[kind](b"two\n"), context, "a")
    assert came_out(context) == {"a": b"one\ntwo\n"}


@settings(deadline=None)  # the machine may be busy
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True), st.binary(max_size=2000), min_size=1
    )
)
def test_any_files_come_back_from_any_format(tmp_path_factory: pytest.TempPathFactory, files: Files) -> None:
    for pack in PACKERS.values():
        context = fresh_context(tmp_path_factory.mktemp("run"))
        run(pack(files), context, max_ratio=1_000_000)
        assert came_out(context) == files


def test_what_travels_beside_the_bytes(context: RecordingContext) -> None:
    headers = {"file-name": "t%C3%A4.zip", "file-path": "/src/t%C3%A4.zip", "Other": "x"}
    uncompress.handle(event(zip_of({"a b.csv": b"x\n"}), topic="collected.zip", headers=headers), context)
    assert context.published[0].headers == {
        "File-Name": "a%20b.csv",
        "File-Size": "2",
        "File-Sha256": hashlib.sha256(b"x\n").hexdigest(),
        "File-Archive": "t%C3%A4.zip",
        "File-Path": "/src/t%C3%A4.zip",
    }


def test_a_large_input_is_read_from_its_file_and_its_data_left_alone(tmp_path: Path, context: RecordingContext) -> None:
    (tmp_path / "input").write_bytes(gzip.compress(b"x\n"))
    uncompress.handle({"topic": "collected.gz", "headers": {}, "data-file": str(tmp_path / "input")}, context)
    assert came_out(context) == {"the archive": b"x\n"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./a", "a"),
        ("a//b/./c", "a/b/c"),
        ("a\\b", "a/b"),
        ("..a", "..a"),
        ("a..b/...", "a..b/..."),
        ("nothing/but/\N{SNOWMAN}", "nothing/but/\N{SNOWMAN}"),
    ],
)
def test_names_are_made_plain(name: str, expected: str, context: RecordingContext) -> None:
    run(tar_of({name: b"x"}), context)
    assert came_out(context) == {expected: b"x"}


def test_a_name_that_is_no_utf8_still_travels(context: RecordingContext) -> None:
    run(tar_of({"caf\udce9": b"x"}, format=tarfile.GNU_FORMAT), context)
    assert came_out(context) == {"caf\ufffd": b"x"}


def test_links_that_stay_inside_are_left_out_and_said(context: RecordingContext) -> None:
    links = [
        entry("sub/soft", tarfile.SYMTYPE, "../a"),
        entry("sub/hard", tarfile.LNKTYPE, "a"),
        entry("sub/soft2", tarfile.SYMTYPE, "deep/../b"),
        entry("folder", tarfile.DIRTYPE),
    ]
    assert run(tar_of({"a": b"x"}, *links), context)["skipped"] == ["sub/soft", "sub/hard", "sub/soft2"]
    assert came_out(context) == {"a": b"x"}


def test_a_link_in_a_zip_is_a_link_too(context: RecordingContext) -> None:
    assert run(zip_entry("sub/link", 0o120777, b"../a"), context)["skipped"] == ["sub/link"]


def test_a_folder_of_an_empty_archive_publishes_nothing(context: RecordingContext) -> None:
    assert run(zip_of({}), context)["files"] == 0
    assert run(tar_of({}, entry("only/", tarfile.DIRTYPE)), context)["files"] == 0
    assert context.published == []


# --- bad archives ------------------------------------------------------------------------------------------------

OUT = "holds a name that leads out of the archive: "
ABSOLUTE = "holds an absolute name: "
LINK = "holds a link that leads out of the archive: "
DEVICE = "which is neither file, folder nor link (a device, perhaps)"

HOSTILE: list[tuple[str, bytes, str]] = [
    *[
        (f"{format} {name}", pack({"fine": b"x", name: b"x"}), what + repr(name))
        for format, pack in (("tar", tar_of), ("zip", zip_of))
        for name, what in (
            ("../evil", OUT),
            ("a/../../evil", OUT),
            ("a/..", OUT),
            ("..\\evil", OUT),
            ("/etc/passwd", ABSOLUTE),
            ("\\\\server\\share", ABSOLUTE),
            ("C:\\evil", ABSOLUTE),
            ("c:evil", ABSOLUTE),
        )
    ],
    ("folder outside", tar_of({}, entry("../evil", tarfile.DIRTYPE)), OUT),
    ("soft link up", tar_of({}, entry("l", tarfile.SYMTYPE, "../x")), LINK + "l → ../x"),
    ("soft link up and down", tar_of({}, entry("a/l", tarfile.SYMTYPE, "../../a/x")), LINK),
    ("soft link absolute", tar_of({}, entry("l", tarfile.SYMTYPE, "/etc/passwd")), LINK),
    ("hard link absolute", tar_of({}, entry("l", tarfile.LNKTYPE, "/etc/passwd")), LINK),
    ("hard link up", tar_of({}, entry("a/l", tarfile.LNKTYPE, "../x")), LINK),
    ("link in a zip", zip_entry("l", 0o120777, b"../../x"), LINK),
    ("character device", tar_of({}, entry("null", tarfile.CHRTYPE)), "holds null, " + DEVICE),
    ("block device", tar_of({}, entry("sda", tarfile.BLKTYPE)), "holds sda, " + DEVICE),
    ("pipe", tar_of({}, entry("pipe", tarfile.FIFOTYPE)), "holds pipe, " + DEVICE),
    ("device in a zip", zip_entry("null", 0o020666), "holds null, " + DEVICE),
    ("encrypted zip", zip_entry("a", 0o100644, b"x" * 20, flags=1), "is encrypted (a)"),
    ("long name", tar_of({"n" * 2000: b""}), "has a name of more than 1024 bytes: nnn"),
    ("7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(100), "looks like binary; gz, bz2, xz, zip and tar can be unpacked"),
    ("text", b"hello", "looks like text; gz, bz2, xz, zip and tar can be unpacked"),
    ("nothing", b"", "is empty; gz, bz2, xz, zip and tar can be unpacked"),
]


@pytest.mark.parametrize(("data", "sentence"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_archives_are_refused_whole(data: bytes, sentence: str, context: RecordingContext) -> None:
    assert sentence in refused(data, context)
    assert not (context.workdir.parent / "evil").exists()


TEXT = b"".join(b"%d,%d\n" % (number, number * number) for number in range(20_000))
TRUNCATED = "is truncated: it ends in the middle"


@pytest.mark.parametrize("kind", STREAMS)
def test_every_kind_of_cut_stream_is_truncated(kind: str, context: RecordingContext) -> None:
    whole = STREAMS[kind](TEXT)
    for length in (20, len(whole) // 2, len(whole) - 1):
        assert TRUNCATED in refused(whole[:length], context)


@pytest.mark.parametrize("pack", [tar_of, PACKERS["tar.gz"], zip_of], ids=["tar", "tar.gz", "zip"])
def test_every_cut_of_an_archive_of_files_is_noticed(pack: Callable[[Files], bytes], context: RecordingContext) -> None:
    whole = pack({"a": b"x" * 700, "b": b"y" * 700})
    for length in range(520 if pack is tar_of else 30, len(whole) if pack is not tar_of else 3 * 1024, 37):
        message = refused(whole[:length], context)
        assert "truncated" in message or "corrupt" in message


def test_a_tar_without_its_end_mark_is_noticed(context: RecordingContext) -> None:
    """Cut exactly between two entries: nothing else tells."""
    whole = tar_of({"a": b"x" * 512, "b": b"y" * 512}, format=tarfile.USTAR_FORMAT)
    assert "its end mark is missing" in refused(whole[:1024], context)


@pytest.mark.parametrize("format", PACKERS)
def test_a_changed_byte_in_the_middle_is_noticed(format: str, context: RecordingContext) -> None:
    data = bytearray(PACKERS[format]({"a": random.Random(1).randbytes(3000), "b": b"x"}))
    place = data.index(b"b\0\0\0", 1024) if format == "tar" else len(data) // 3
    data[place] ^= 0xFF
    assert "corrupt" in refused(bytes(data), context)


def test_waste_after_a_stream_is_noticed(context: RecordingContext) -> None:
    assert "is corrupt" in refused(gzip.compress(TEXT) + b"waste", context)


def test_a_zip_with_a_name_that_is_not_the_utf8_it_claims_to_be_is_corrupt(context: RecordingContext) -> None:
    data = bytearray(zip_of({"a": b"x"}))
    directory = data.index(b"PK\1\2")
    data[directory + 9] |= 8  # "the name is UTF-8"
    data[directory + 46] = 0xFF
    assert "is corrupt: UnicodeDecodeError" in refused(bytes(data), context)


def test_a_zip_that_needs_a_newer_program_is_refused(context: RecordingContext) -> None:
    data = bytearray(zip_of({"a": b"x" * 100}))
    data[data.index(b"PK\1\2") + 6] = 99
    assert "needs more than can be done here: zip file version 9.9" in refused(bytes(data), context)


# --- bombs -------------------------------------------------------------------------------------------------------

ZEROS = bytes(8 * 1024 * 1024)


@pytest.mark.parametrize("format", PACKERS)
def test_a_bomb_is_stopped_by_its_ratio(format: str, context: RecordingContext) -> None:
    data = PACKERS[format]({"zeros": ZEROS})
    if format == "tar":
        assert run(data, context)["bytes"] == len(ZEROS)  # nothing is packed here
        return
    assert "unpacks to more than 200 times its size, as bombs do; see max_ratio" in refused(data, context)
    assert sum(file.stat().st_size for file in (context.workdir / "members").iterdir()) < 2 * 1024 * 1024
    assert run(data, context, max_ratio=1_000_000)["bytes"] == len(ZEROS)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_is_a_bomb_is_stopped_by_its_ratio(kind: str, context: RecordingContext) -> None:
    assert "times its size" in refused(STREAMS[kind](ZEROS), context)


@pytest.mark.parametrize("format", PACKERS)
def test_bytes_and_files_are_limited(format: str, context: RecordingContext) -> None:
    data = PACKERS[format]({"a": random.Random(1).randbytes(70_000), "b": random.Random(2).randbytes(70_000)})
    assert "unpacks to more than max_bytes allows (100,000)" in refused(data, context, max_bytes=100_000)
    assert "has more than 1 entries; see max_files" in refused(data, context, max_files=1)
    assert run(data, context, max_files=2, max_bytes=200_000)["files"] == 2


def test_folders_and_links_count_as_entries(context: RecordingContext) -> None:
    many = [entry(f"d{number}", tarfile.DIRTYPE) for number in range(50)]
    many += [entry(f"l{number}", tarfile.SYMTYPE, "x") for number in range(50)]
    assert "has more than 99 entries" in refused(tar_of({}, *many), context, max_files=99)


def test_a_declared_size_is_not_believed(context: RecordingContext) -> None:
    """The zip says its file has ten bytes."""
    data = bytearray(zip_of({"a": ZEROS}))
    directory = data.index(b"PK\1\2")
    data[directory + 24 : directory + 28] = struct.pack("<I", 10)
    message = refused(bytes(data), context)
    assert "is corrupt" in message or "times its size" in message


def test_a_sparse_file_is_counted_as_it_comes_out(context: RecordingContext) -> None:
    """GNU tar keeps a terabyte of nothing in one block."""
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"%011o\0" % (8 * 1024**3 - 1)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert "times its size" in refused(bytes(block) + bytes(10240), context)


def test_a_vast_header_is_not_read_into_memory(context: RecordingContext) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = entry("x", kind)
        info.size = 300 * 1024 * 1024
        data = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * 1024 * 1024))
        assert "a header declares a length of 314,572,800 bytes" in refused(data, context, max_ratio=1_000_000)


def test_a_vast_table_of_contents_is_not_read_into_memory(context: RecordingContext) -> None:
    data = zip_of({f"{number:06}": b"" for number in range(3000)})
    assert "too many entries for max_files" in refused(data, context, max_files=10)


def test_files_that_share_their_bytes_are_counted_each(context: RecordingContext) -> None:
    """A table of contents that names the same packed megabyte two hundred times."""
    one = zip_of({"a": random.Random(1).randbytes(100_000)}, zipfile.ZIP_STORED)
    at = one.index(b"PK\1\2")
    directory, end = one[at : one.index(b"PK\5\6")], bytearray(one[one.index(b"PK\5\6") :])
    end[8:16] = struct.pack("<HHI", 500, 500, 500 * len(directory))
    message = refused(one[:at] + directory * 500 + bytes(end), context)
    assert "times its size" in message or "Overlapped entries" in message  # newer Pythons look for that themselves


@pytest.mark.parametrize(("method", "number"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_zip_methods_that_unpack_without_bound_are_refused(method: int, number: int, context: RecordingContext) -> None:
    message = refused(zip_of({"a": b"x" * 100}, method), context)
    assert f"is packed by a method other than deflate (number {number}, a)" in message


# --- memory ------------------------------------------------------------------------------------------------------


def big_zip() -> bytes:
    return zip_of({"a": bytes(300_000_000)})


def big_tar_xz() -> bytes:
    return lzma.compress(tar_of({"a": bytes(300_000_000)}), preset=0)


def big_gz() -> bytes:
    return gzip.compress(bytes(300_000_000), compresslevel=1)


@pytest.mark.parametrize("pack", [big_zip, big_tar_xz, big_gz])
def test_300_megabytes_pass_in_less_than_100(pack: Callable[[], bytes], tmp_path: Path) -> None:
    assert peak_memory(tmp_path, pack(), max_ratio=1_000_000) < 100


def peak_memory(tmp_path: Path, data: bytes, **params: Any) -> float:
    """The most resident memory, in MB, of a process that unpacks the data."""
    (tmp_path / "input").write_bytes(data)
    (tmp_path / "work").mkdir()
    program = f"""
        import sys
        sys.path.insert(0, {str(SAMPLES / "uncompress")!r})
        import main

        class Context:
            workdir = {str(tmp_path / "work")!r}
            def publish(self, topic, data, content_type=None, headers=None):
                assert data.stat().st_size == 300_000_000
            def progress(self, percent, text): pass

        event = {{"topic": "t", "headers": {{}}, "params": {params!r}, "data-file": {str(tmp_path / "input")!r}}}
        assert main.handle(event, Context())["files"] == 1
        status = open("/proc/self/status").read()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1000)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "work" / "members" / "00001").unlink()
    return float(done.stdout)


# --- anything at all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [*PACKERS, *STREAMS])
def test_a_damaged_archive_never_gives_anything_but_a_refusal(format: str, tmp_path: Path) -> None:
    """Two hundred archives with a few bytes changed, cut or doubled: each is unpacked or refused in words."""
    dice = random.Random(format)
    whole = PACKERS[format](FILES) if format in PACKERS else STREAMS[format](TEXT[:5000])
    outcomes = set()
    for _ in range(200):
        context = fresh_context(tmp_path)
        try:
            run(damaged(whole, dice), context, max_bytes=10_000_000)
            outcomes.add("unpacked")
        except uncompress.ArchiveError as error:
            outcomes.add("refused" if str(error).startswith("a.archive ") and not context.published else repr(error))
    assert "refused" in outcomes
    assert outcomes <= {"refused", "unpacked"}


def damaged(whole: bytes, dice: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(dice.choice([1, 1, 2, 5, 20])):
        place = dice.randrange(8, len(data))
        match dice.randrange(4):
            case 0:
                del data[place : place + dice.randrange(1, 40)]
            case 1:
                data[place:place] = data[place : place + dice.randrange(1, 40)]
            case _:
                data[place] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        if len(data) < 10:
            break
    return bytes(data)


def test_the_sample_event_is_what_its_readme_says(context: RecordingContext) -> None:
    (path,) = (SAMPLES / "uncompress").glob("event.*")
    assert run(path.read_bytes(), context, path.name)["members"] == [{"name": "event.csv", "kind": "csv", "bytes": 140}]
    assert context.published[0].data == (SAMPLES / "convert" / "event.csv").read_bytes()
