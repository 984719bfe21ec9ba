"""collect → uncompress → convert as a whole, on files that nobody here wrote: every run a process or a pod of its own,
joined by topics only, bytes handed over by the stream or by claim check. The same for every engine.

What must come out is computed by other means in this process: gzip's reading of each changelog, the lines it has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from invoker.client import Client
from invoker.nats_server import NatsServer
from invoker.result import Result
from invoker.views import Chain, ChainNode
from tests.acceptance.places import Place, place
from tests.integration.controller import controller
from tests.integration.test_samples_real_data import DOCUMENTATION, ENOUGH_CHANGELOGS, lines_of, wheels

SAMPLES = Path(__file__).parents[2] / "functions" / "samples"
SOURCE = "real"
WITH_VOLUME = ("uncompress", "convert")
A_FEW = 4

__all__ = ["place", "wheels"]  # fixtures, used by name


def nodes_of(chain: Chain) -> list[ChainNode]:
    found, waiting = [], [chain.root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += node.children
    return found


def results_of(chain: Chain) -> list[Result]:
    return [run.result for node in nodes_of(chain) for run in node.view.runs if run.result is not None]


def catalog_with(folder: Path, files: Mapping[str, Path]) -> Path:
    """The samples as they are, with these files beside collect's code: there every engine's runs see them."""
    catalog = folder / "samples"
    shutil.copytree(SAMPLES, catalog, ignore=shutil.ignore_patterns("__pycache__"))
    source = catalog / "collect" / SOURCE
    source.mkdir()
    for name, path in files.items():
        shutil.copyfile(path, source / name)
    return catalog


async def piped(server: NatsServer, catalog: Path, folder: Path, place: Place, client: Client) -> Chain:
    """What becomes of one event that names all of these files, to the last of its runs."""
    async with controller(server.url, catalog, folder / "state", **place.settings):
        asked = await client.publish("demo.collect", {"source": SOURCE, "pattern": "*"})
        chain = await client.chain(asked.request_id, wait=500)
        results = results_of(chain)
        assert {(str(one.state), one.engine) for one in results} == {("succeeded", place.engine)}, [
            one.message for one in results if one.message
        ]
        await place.proves_volumes(sum(one.function in WITH_VOLUME for one in results))
        return chain


@pytest.mark.timeout(600)
async def test_changelogs_come_out_line_by_line(server: NatsServer, tmp_path: Path, place: Place) -> None:
    """Two hundred of them; a few where a run is a pod."""
    count = A_FEW if place.is_slow else ENOUGH_CHANGELOGS
    found = sorted(path for path in DOCUMENTATION.rglob("changelog*.gz") if path.is_file() and not path.is_symlink())
    if len(found) < count:
        pytest.skip(f"{DOCUMENTATION} has {len(found)} files changelog*.gz, {count} are needed")
    chosen = sorted(found, key=lambda path: path.stat().st_size)[:count]
    files = {f"{number}-{path.parent.name}.gz": path for number, path in enumerate(chosen)}
    expected = [len(lines_of(gzip.decompress(path.read_bytes()))) for path in chosen]
    async with Client.connect(server.url) as client:
        chain = await piped(server, catalog_with(tmp_path, files), tmp_path, place, client)
        results = results_of(chain)
        assert Counter(one.function for one in results) == {"collect": 1, "uncompress": count, "convert": count}
        rows = [json.loads(await client.output(result))["rows"] for result in results if result.function == "convert"]
        assert sorted(rows) == sorted(expected)


@pytest.mark.timeout(600)
async def test_wheels_come_out_member_by_member(
    wheels: list[Path], server: NatsServer, tmp_path: Path, place: Place
) -> None:
    """Wheels are zip archives of many members; every member becomes an event of its own, with its own sha256. A dozen
    of them; the one of the fewest members where a run is a pod."""
    chosen = sorted(wheels, key=lambda wheel: len(zipfile.ZipFile(wheel).namelist()))[: 1 if place.is_slow else None]
    expected: Counter[str] = Counter()
    for wheel in chosen:
        archive = zipfile.ZipFile(wheel)
        expected.update(
            hashlib.sha256(archive.read(member)).hexdigest() for member in archive.namelist() if member[-1] != "/"
        )
    async with Client.connect(server.url) as client:
        catalog = catalog_with(tmp_path, {wheel.name: wheel for wheel in chosen})
        chain = await piped(server, catalog, tmp_path, place, client)
    assert Counter(result.function for result in results_of(chain))["uncompress"] == len(chosen)
    records = [node.view.record for node in nodes_of(chain)]
    members = [record.sha256 for record in records if record and record.topic.startswith("uncompressed.")]
    assert Counter(members) == expected
