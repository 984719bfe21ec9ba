"""A gateway in a process of its own, as `invoker gateway` runs it, for the benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """Where it listens, and which process it is."""

    url: str
    probe_url: str
    pid: int


@asynccontextmanager
async def gateway_process(nats_url: str, **settings: str) -> AsyncIterator[GatewayProcess]:
    """A gateway that takes calls without login, ended when this is left."""
    given = {
        "INVOKER_GATEWAY_PORT": "0", "INVOKER_GATEWAY_PROBE_PORT": "0", "INVOKER_GATEWAY_ANONYMOUS": "admin",
        "INVOKER_STATE": "/nonexistent",
    }  # fmt: skip
    environ = {key: value for key, value in os.environ.items() if not key.startswith("INVOKER_")} | given | settings
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "invoker"), "gateway", "--server", nats_url,
        env=environ, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while line := await asyncio.wait_for(process.stderr.readline(), 30):
        found = json.loads(line) if line.startswith(b"{") else {}
        if found.get("event") == "gateway ready":
            break
    else:
        raise SystemExit("the gateway did not start")
    draining = asyncio.create_task(_drained(process.stderr))
    try:
        yield GatewayProcess(found["url"], found["probe_url"], process.pid)
    finally:
        process.terminate()
        await process.wait()
        draining.cancel()


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        continue
