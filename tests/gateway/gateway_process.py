"""`invoker gateway` as a child process on a port that it keeps over its deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.gateway.stack import RUN_TOKEN_KEY
from tests.ports import lasting_port

ROOT = Path(__file__).parents[2]


@dataclass
class GatewayProcess:
    """One gateway, started by `start` and again after each `kill`; the same address every time."""

    nats_url: str
    log_file: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=lasting_port)
    probe_port: int = field(default_factory=lasting_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """When this returns the gateway says that it is ready."""
        named = {
            "gateway_port": self.port, "gateway_probe_port": self.probe_port, "gateway_anonymous": "admin",
            "run_token_key": RUN_TOKEN_KEY, **self.settings,
        }  # fmt: skip
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.log_file.parent), "NATS_URL": self.nats_url}
        environ |= {f"INVOKER_{name.upper()}": str(value) for name, value in named.items()}
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "invoker", "gateway",
                cwd=ROOT, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        await eventually(self._is_ready, within=60, what="a gateway that is ready")

    async def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            pytest.fail(f"the gateway did not start:\n{self.log_file.read_text()[-3000:]}")
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.probe_port}/readyz") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """End it by SIGKILL, whatever it is doing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """End it in an orderly way; gives its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def gateway_process(nats_url: str, folder: Path, **settings: Any) -> AsyncIterator[GatewayProcess]:
    """A running gateway process; ended, however it lives by then, when this is left."""
    gateway = GatewayProcess(nats_url, folder / "gateway.log", settings)
    await gateway.start()
    try:
        yield gateway
    finally:
        if gateway.process is not None and gateway.process.returncode is None:
            await gateway.kill()
