"""A real redis-server for tests: its own port on loopback, nothing on disk, and dead when it is left."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ports import lasting_port
from tests.skips import without

WITHIN_SECONDS = 60.0


@dataclass
class RedisServer:
    """One redis-server that may be killed and started again at the same port, empty each time."""

    folder: Path
    port: int
    arguments: tuple[str, ...] = ()
    tls: bool = False
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"redis{'s' if self.tls else ''}://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """When this returns it takes connections."""
        ports = ("--port", "0", "--tls-port", str(self.port)) if self.tls else ("--port", str(self.port))
        self.process = await asyncio.create_subprocess_exec(
            redis_binary(), "--bind", "127.0.0.1", *ports, "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", *self.arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + WITHIN_SECONDS
        while not await self._accepts():
            if self.process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"redis-server did not start (exit code {self.process.returncode})")
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """It is dead, and all it knew is gone, when this returns. Safe to repeat."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def freeze(self) -> None:
        """It holds its connections and answers nothing, until `thaw`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def redis_binary() -> str:
    """The system's redis-server; without one the test is skipped, or fails where INVOKER_REQUIRE_REDIS is set."""
    found = shutil.which("redis-server")
    if found is None:
        words = "there is no redis-server here (apt-get install redis-server)"
        without(words, needed_if="INVOKER_REQUIRE_REDIS")
    return found


@asynccontextmanager
async def redis_server(folder: Path, *arguments: str, tls: bool = False) -> AsyncIterator[RedisServer]:
    """A running redis-server with these further arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, lasting_port(), arguments, tls)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
