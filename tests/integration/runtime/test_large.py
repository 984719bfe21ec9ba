"""100 MB in and 100 MB out: streamed, so neither the run API nor the runtime holds them."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from invoker.nats_server import NatsServer
from invoker.request import Content
from tests.integration.run_world import RunWorld
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
SIZE = 100 * MIB

COPY = """
import atexit
from pathlib import Path

@atexit.register
def tell():
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def handle(event, context):
    target = Path(context.workdir) / "copy"
    with open(event["data-file"], "rb") as source, open(target, "wb") as copy:
        while piece := source.read(1 << 20):
            copy.write(piece[::-1])
    context.publish("copied", target)
    return target
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")
async def test_a_hundred_megabytes_either_way_take_little_memory(
    world: RunWorld, server: NatsServer, tmp_path: Path
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(SIZE // MIB):
            yield bytes([number]) * MIB

    claim = await world.claims.put(pieces(), owner="event")
    run = await world.accept(Content.claimed(claim))
    program = [sys.executable, "-m", "tests.integration.run_api_process", server.url]
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        world.base_url = (await process.stdout.readline()).decode().strip()
        assert (await run.call("HEAD", "input")).status == 200
        before = resident_kib(process.pid)
        place = Place(tmp_path / "function")
        place.folder.mkdir()
        ended = await place.run(run, COPY)
        assert ended.code == 0, ended.stderr
        grown = resident_kib(process.pid) - before
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    result = await run.result()
    assert result is not None
    assert result.output.size_bytes == SIZE
    assert result.output.claim is not None
    hasher = hashlib.sha256()
    for number in range(SIZE // MIB):
        hasher.update(bytes([number]) * MIB)
    assert result.output.claim.sha256 == hasher.hexdigest()
    runtime_kib = int(ended.stdout)
    print(f"runtime {runtime_kib} KiB at most, the run API {grown} KiB more than before")
    assert runtime_kib < 32 * 1024
    assert grown < 48 * 1024


def resident_kib(pid: int) -> int:
    """The most memory the process ever had resident."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
