"""collect → uncompress → convert as a whole, on files that nobody here wrote: every stage a process of its own, joined
by topics only, bytes handed over by the stream or by claim check.

What must come out is computed by other means in this process: gzip's reading of each changelog, the lines it has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from invoker.client import Client
from invoker.nats_server import NatsServer
from invoker.result import Result
from invoker.views import Chain, ChainNode
from tests.integration.controller import controller
from tests.integration.test_samples_real_data import DOCUMENTATION, ENOUGH_CHANGELOGS, WHEELS, lines_of, wheels

SAMPLES = Path(__file__).parents[2] / "functions" / "samples"

__all__ = ["wheels"]  # a fixture, used by name


def nodes_of(chain: Chain) -> list[ChainNode]:
    found, waiting = [], [chain.root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += node.children
    return found


def results_of(chain: Chain) -> list[Result]:
    return [run.result for node in nodes_of(chain) for run in node.view.runs if run.result is not None]


@pytest.mark.timeout(600)
async def test_two_hundred_changelogs_come_out_line_by_line(server: NatsServer, tmp_path: Path) -> None:
    found = sorted(path for path in DOCUMENTATION.rglob("changelog*.gz") if path.is_file() and not path.is_symlink())
    if len(found) < ENOUGH_CHANGELOGS:
        pytest.skip(f"{DOCUMENTATION} has {len(found)} files changelog*.gz, {ENOUGH_CHANGELOGS} are needed")
    source = tmp_path / "changelogs"
    source.mkdir()
    expected: list[int] = []
    for number, path in enumerate(sorted(found, key=lambda path: path.stat().st_size)[:ENOUGH_CHANGELOGS]):
        data = path.read_bytes()
        (source / f"{number}-{path.parent.name}.gz").write_bytes(data)
        expected.append(len(lines_of(gzip.decompress(data))))

    async with controller(server.url, SAMPLES, tmp_path / "state"), Client.connect(server.url) as client:
        asked = await client.publish("demo.collect", {"source": str(source), "pattern": "*.gz"})
        chain = await client.chain(asked.request_id, wait=500)
        results = results_of(chain)
        counted = Counter((result.function, str(result.state)) for result in results)
        assert counted == {
            ("collect", "succeeded"): 1,
            ("uncompress", "succeeded"): ENOUGH_CHANGELOGS,
            ("convert", "succeeded"): ENOUGH_CHANGELOGS,
        }
        rows = [json.loads(await client.output(result))["rows"] for result in results if result.function == "convert"]
        assert sorted(rows) == sorted(expected)


@pytest.mark.timeout(600)
async def test_a_dozen_wheels_come_out_member_by_member(wheels: list[Path], server: NatsServer, tmp_path: Path) -> None:
    """Wheels are zip archives of many members; every member becomes an event of its own, with its own sha256."""
    source = tmp_path / "wheels"
    source.mkdir()
    expected: Counter[str] = Counter()
    for wheel in wheels:
        (source / wheel.name).write_bytes(wheel.read_bytes())
        archive = zipfile.ZipFile(wheel)
        expected.update(
            hashlib.sha256(archive.read(member)).hexdigest() for member in archive.namelist() if member[-1] != "/"
        )
    async with controller(server.url, SAMPLES, tmp_path / "state"), Client.connect(server.url) as client:
        asked = await client.publish("demo.collect", {"source": str(source), "pattern": "*.whl"})
        chain = await client.chain(asked.request_id, wait=500)
        results = results_of(chain)
        assert {str(result.state) for result in results} == {"succeeded"}
        assert Counter(result.function for result in results)["uncompress"] == len(wheels) == len(WHEELS)
        records = [node.view.record for node in nodes_of(chain)]
        members = [record.sha256 for record in records if record and record.topic.startswith("uncompressed.")]
        assert Counter(members) == expected
