"""The command line in a process of its own that takes one command after the other, so that a test of forty commands
does not start Python eighty times; and a proxy that cuts connections.

`python -m tests.gateway.cli_program` is that process: command lines as JSON in, what each printed and ended with out.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.cli_desk import INVOKER, Ran

ROOT = Path(__file__).parents[2]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a command finds: nothing of the machine's own NATS, gateway or home."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INVOKER_", "NATS_", "XDG_"))}
    return kept | {"HOME": str(folder), "INVOKER_STATE": str(folder / "state")} | more


class Program:
    """A running process of the command line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def run(self, *arguments: str) -> Ran:
        """The command's outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn, asyncio.timeout(60):
            self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
            await self._process.stdin.drain()
            return Ran(*json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def program(folder: Path, **environ: str) -> AsyncIterator[Program]:
    """The command line with that environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.cli_program", cwd=ROOT, env=environment(folder, **environ),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=64 * 1024 * 1024,
    )  # fmt: skip
    try:
        yield Program(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def invoker(folder: Path, *arguments: str, **environ: str) -> Ran:
    """The installed command itself, as a user starts it."""
    process = await asyncio.create_subprocess_exec(
        INVOKER, *arguments, cwd=folder, env=environment(folder, **environ), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


@dataclass
class Proxy:
    """A way to a gateway that can be cut. `seen` are the first lines of all calls that went through."""

    url: str
    seen: list[str] = field(default_factory=list)
    cut_answer: Callable[[str], int | None] = lambda line: None
    """Told a call's first line: after how many bytes of the answer the connection is to break, None for never."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break every connection there is."""
        for writer in list(self._open):
            writer.transport.abort()

    def count(self, part: str) -> int:
        return sum(part in line for line in self.seen)


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the gateway at that address. One call per connection is understood; more go through unseen."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    tasks: set[asyncio.Task[None]] = set()

    async def through(mine: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        writers = [back]
        try:
            theirs, forth = await asyncio.open_connection(host, port)
            writers.append(forth)
            way._open |= {back, forth}
            await relay(mine, back, theirs, forth)
        except OSError:
            pass  # one side is gone, so the other one is told
        finally:
            way._open -= set(writers)
            for writer in writers:
                writer.transport.abort()

    async def relay(
        mine: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        theirs: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
    ) -> None:
        limits: list[int | None] = [None]

        async def there() -> None:
            while data := await mine.read(65536):
                line = data.split(b"\r\n", 1)[0].decode(errors="replace")
                if line.endswith("HTTP/1.1"):
                    way.seen.append(line)
                    limits[0] = way.cut_answer(line)
                forth.write(data)
                await forth.drain()

        async def here() -> None:
            while data := await theirs.read(65536):
                left = limits[0]
                back.write(data if left is None else data[:left])
                await back.drain()
                if left is not None:
                    limits[0] = left - len(data)
                    if left <= len(data):
                        return

        ways = [asyncio.create_task(there()), asyncio.create_task(here())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in ways:
                one.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(through(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    way = Proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield way
    finally:
        server.close()
        while tasks:
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # sockets are closed a turn after they were aborted


def main() -> None:
    """Take command lines until standard input ends."""
    from invoker.cli import tree

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = tree.run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            told = [code]
            for file in (out, err):
                file.seek(0)
                told.append(file.read().decode("utf-8", "replace"))
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
