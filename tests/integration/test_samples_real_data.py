"""uncompress and convert on files that nobody here wrote: the system's changelogs, and wheels from the package index.

Called as their contract says, in this process. What must come out is found by other means: gzip's own reading of the
changelogs, and the list of sha256 that every wheel carries.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.sample_functions import SAMPLES, Published, event, fresh_context, load

DOCUMENTATION = Path("/usr/share/doc")
ENOUGH_CHANGELOGS = 200
WHEELS = (
    "attrs",
    "certifi",
    "click",
    "colorama",
    "idna",
    "iniconfig",
    "packaging",
    "pluggy",
    "six",
    "tomli",
    "typing-extensions",
    "tzdata",
)

collect, uncompress, convert = load("collect"), load("uncompress"), load("convert")


def unpacked(found: Published, folder: Path) -> tuple[dict[str, Any], list[Published]]:
    context = fresh_context(folder)
    summary = uncompress.handle(found.as_event(), context)
    return summary, context.published


def converted(found: Published, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and the rows; large inputs come as a file, as from the runtime."""
    context = fresh_context(folder)
    summary = convert.handle(found.as_event(by_file=found.path.stat().st_size > 1024 * 1024), context)
    (sent,) = context.published
    data = sent.data
    assert summary["sha256"] == sent.headers["File-Sha256"] == hashlib.sha256(data).hexdigest()
    rows = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    assert summary["rows"] == len(rows)
    return summary, rows


def lines_of(data: bytes) -> list[str]:
    """The lines of a text by other means than `convert`'s: cut as bytes, and each decoded for itself."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [decoded(line) for line in (lines[:-1] if lines[-1] == b"" else lines)]


def decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def test_the_systems_changelogs_go_through_the_chain(tmp_path: Path) -> None:
    """Each line of each changelog comes out once, in order."""
    ask = {"source": str(DOCUMENTATION), "pattern": "changelog*.gz"}
    found = sum(1 for path in DOCUMENTATION.rglob("changelog*.gz") if path.is_file()) if DOCUMENTATION.is_dir() else 0
    if found < ENOUGH_CHANGELOGS:
        pytest.skip(f"{DOCUMENTATION} has {found} files changelog*.gz, {ENOUGH_CHANGELOGS} are needed")
    context = fresh_context(tmp_path)
    assert collect.handle(event(ask, params={"max_files": 100_000}), context)["kinds"] == {"gz": found}
    taken = context.published[:: max(1, found // 250)]
    assert len(taken) >= ENOUGH_CHANGELOGS
    for changelog in taken:
        text = gzip.decompress(changelog.data)
        summary, members = unpacked(changelog, tmp_path)
        (member,) = members
        assert (summary["format"], member.topic, member.data) == ("gz", "uncompressed.text", text)
        _, rows = converted(member, tmp_path)
        assert [row["text"] for row in rows] == lines_of(text)
        assert [row["line"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.fixture(scope="module")
def wheels(pytestconfig: pytest.Config) -> list[Path]:
    """A dozen wheels, downloaded once by name. Without a network they are a reason to skip."""
    cache = pytestconfig.rootpath / ".pytest_cache" / "wheels"
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in WHEELS if not list(cache.glob(f"{name.replace('-', '_')}-*.whl"))]
    if missing:
        options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(cache)]
        command = [sys.executable, "-m", "pip", "download", *options, *missing]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            pytest.skip(f"no wheels could be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    found = [next(cache.glob(f"{name.replace('-', '_')}-*.whl")) for name in WHEELS]
    assert len(found) == 12
    return found


def test_a_dozen_wheels_are_unpacked_to_what_their_records_say(wheels: list[Path], tmp_path: Path) -> None:
    checked = rows = 0
    for wheel in wheels:
        context = fresh_context(tmp_path)
        collect.handle(event(str(wheel)), context)
        (found,) = context.published
        assert found.topic == "collected.zip"
        _, members = unpacked(found, tmp_path)
        by_name = {unquote(member.headers["File-Name"]): member for member in members}
        checked += check_record(by_name)
        assert set(by_name) == {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
        for member in members:
            if member.topic in ("uncompressed.text", "uncompressed.csv", "uncompressed.json"):
                rows += converted(member, tmp_path)[0]["rows"]
    assert checked > 300
    assert rows > 10_000


def check_record(members: dict[str, Published]) -> int:
    """Compare every file with the sha256 in the wheel's RECORD; returns how many there were."""
    (record,) = (member for name, member in members.items() if name.endswith(".dist-info/RECORD"))
    count = 0
    for name, digest, _ in csv.reader(io.StringIO(record.data.decode())):
        if digest:
            expected = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=").hex()
            assert members[name].headers["File-Sha256"] == expected == hashlib.sha256(members[name].data).hexdigest()
            count += 1
    return count


def test_the_demos_data_goes_through_the_chain(tmp_path: Path) -> None:
    context = fresh_context(tmp_path)
    collect.handle(event(str(SAMPLES / "collect" / "data" / "tzdata")), context)
    summaries = {}
    for archive in context.published:
        for member in unpacked(archive, tmp_path)[1]:
            summary, rows = converted(member, tmp_path)
            summaries[summary["name"]] = (rows[0], [column["name"] for column in summary["columns"]])
    assert summaries["zone1970.tab"] == (
        {"codes": "AD", "coordinates": "+4230+00131", "TZ": "Europe/Andorra", "comments": None},
        ["codes", "coordinates", "TZ", "comments"],
    )
    assert summaries["zone.tab"][1] == ["code", "coordinates", "TZ", "comments"]
    assert list(summaries["iso3166.tab"][0].values()) == ["AD", "Andorra"]
    assert summaries["leapseconds"][1] == ["line", "text"]
