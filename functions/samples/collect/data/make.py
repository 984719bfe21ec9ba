"""Makes the demo's data: the tables of the time-zone database, packed in three ways.

    python make.py [--from /usr/share/zoneinfo] [--to tzdata]

The same tables always give the same archives: no times, no owners, entries in order. (Another version of a compression
library may pack the same content into other bytes.)
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def gz(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return packed.getvalue()


def tar_xz(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=9) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)  # owner 0, time 0, mode 0644
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def make(source: Path) -> dict[str, bytes]:
    """The archives by name, made of the tables in the folder. Raises `OSError` when one of them is missing."""
    tables = {name: (source / name).read_bytes() for name in ("zone1970.tab", "iso3166.tab", "zone.tab", "leapseconds")}
    return {
        "zone1970.tab.gz": gz(tables["zone1970.tab"]),
        "countries.zip": zipped({"iso3166.tab": tables["iso3166.tab"]}),
        "tables.tar.xz": tar_xz({name: tables[name] for name in ("zone.tab", "leapseconds")}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Packs tables of the time-zone database for the demo.")
    parser.add_argument("--from", dest="source", type=Path, default=Path("/usr/share/zoneinfo"))
    parser.add_argument("--to", dest="target", type=Path, default=HERE / "tzdata")
    options = parser.parse_args()
    try:
        archives = make(options.source)
        options.target.mkdir(parents=True, exist_ok=True)
        for name, data in archives.items():
            (options.target / name).write_bytes(data)
            print(f"{options.target / name}: {len(data):,} bytes")
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
