"""The program of the init container of `input.as: file`, as a real process against a real run API."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import NatsServer
from invoker.request import Content
from invoker.runtime import FETCH_ENTRY
from tests.conftest import eventually
from tests.integration.run_world import Run, RunWorld, run_world, served
from tests.integration.runtime.function_place import Ended
from tests.ports import lasting_port

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


@dataclass(frozen=True)
class Mount:
    """The folder that the init container and the function share."""

    folder: Path

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def termination(self) -> Path:
        return self.folder.parent / "termination"

    def left(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir())

    async def start(self, run: Run, **more: str) -> asyncio.subprocess.Process:
        environment = {
            "INVOKER_RUN_URL": run.url,
            "INVOKER_RUN_TOKEN": run.token,
            "INVOKER_POD_UID": "pod-1",
            "INVOKER_INPUT_FILE": str(self.input),
            "INVOKER_TERMINATION_FILE": str(self.termination),
        } | more
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-I", "-u", FETCH_ENTRY, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ended(self, process: asyncio.subprocess.Process) -> Ended:
        stdout, stderr = await process.communicate()
        note = self.termination.read_bytes() if self.termination.exists() else b""
        return Ended(process.returncode or 0, stdout, stderr.decode(), note)

    async def fetch(self, run: Run, **more: str) -> Ended:
        return await self.ended(await self.start(run, **more))


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    folder = tmp_path / "invoker"
    folder.mkdir()
    return Mount(folder)


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 1600], ids=["empty", "one byte", "400 KiB"])
async def test_the_input_lies_in_the_file(world: RunWorld, mount: Mount, body: bytes) -> None:
    run = await world.accept(body)
    ended = await mount.fetch(run)
    assert (ended.code, ended.stdout, ended.stderr, ended.termination) == (0, b"", "", b"")
    assert mount.input.read_bytes() == body
    assert mount.left() == ["input"]
    assert mount.input.stat().st_mode & 0o444 == 0o444, "the function may run as another user"


async def test_an_input_behind_a_claim_check_is_streamed(client: NatsClient, world: RunWorld, mount: Mount) -> None:
    body = b"0123456789abcdef" * (20 * MIB // 16)
    run = await world.accept(Content.claimed(await world.claims.put(body, owner="event")))
    assert (await mount.fetch(run)).code == 0
    assert mount.input.read_bytes() == body


async def test_it_may_be_fetched_again(world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"the same")
    mount.input.write_bytes(b"what an earlier one left behind, and longer")
    for _ in range(2):
        assert (await mount.fetch(run)).code == 0
        assert mount.input.read_bytes() == b"the same"


async def test_a_finished_run_gets_nothing_and_no_other_attempt(world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"x")
    assert (await run.call("PUT", "output", b"first")).status == 201
    ended = await mount.fetch(run)
    assert (ended.code, ended.termination, mount.left()) == (64, b"", [])
    assert ended.stderr.startswith("invoker: this attempt is too late: ")
    assert ended.stderr.count("\n") == 1


async def test_a_foreign_token_is_refused_for_good(world: RunWorld, mount: Mount) -> None:
    run, other = await world.accept(b"x"), await world.accept(b"y")
    ended = await mount.fetch(run, INVOKER_RUN_TOKEN=other.token)
    assert (ended.code, mount.left()) == (64, [])
    assert ended.note == {"type": "InputUnavailable", "message": "the token is not the one of this run"}
    assert ended.stderr == "invoker: InputUnavailable: the token is not the one of this run\n"


async def test_an_input_that_is_gone_is_refused_for_good(world: RunWorld, mount: Mount) -> None:
    claim = await world.claims.put(b"x" * 100, owner="event")
    run = await world.accept(Content.claimed(claim))
    await world.client.jetstream().delete_object_store(world.names.payloads_bucket)
    ended = await mount.fetch(run)
    assert (ended.code, mount.left()) == (64, [])
    assert ended.note["type"] == "InputUnavailable"


async def test_what_is_not_what_was_sent_never_becomes_the_input(world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"x", sha256="0" * 64)
    ended = await mount.fetch(run)
    assert (ended.code, mount.left()) == (1, [])
    assert ended.note["type"] == "InputDamaged"
    assert f"instead of {'0' * 64}" in ended.note["message"]
    status = await eventually(lambda: world.results.status(run.run_id), what="the news of the failure")
    assert status.text is not None
    assert status.text.startswith("attempt 1 failed: InputDamaged")


async def test_a_run_api_that_comes_later_is_waited_for(server: NatsServer, world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"patience")
    port = lasting_port()
    process = await mount.start(run, INVOKER_RUN_URL=run.url.replace(world.base_url, f"http://127.0.0.1:{port}"))
    # There it is when the process has asked in vain: a listener that only closes what comes tells that it has.
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.setblocking(False)
        connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        connection.close()
    other = await connect(ConnectionOptions(url=server.url))
    async with run_world(other) as later, served(later.api, port):
        ended = await mount.ended(process)
    await other.close()
    assert (ended.code, ended.stderr) == (0, "")
    assert mount.input.read_bytes() == b"patience"


async def test_a_run_api_that_stays_away_is_an_error_in_words(world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"x")
    address = run.url.replace(world.base_url, "http://127.0.0.1:9")
    ended = await mount.fetch(run, INVOKER_RUN_URL=address, INVOKER_RETRY_SECONDS="0.2")
    assert (ended.code, mount.left()) == (1, [])
    assert ended.note["type"] == "RunApiUnreachable"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("where", "words"), [("/proc/input", "cannot be written"), ("/nowhere/input", "No such file or directory")]
)
async def test_a_file_that_cannot_be_written_is_no_trouble_of_the_run_api(
    world: RunWorld, mount: Mount, where: str, words: str
) -> None:
    run = await world.accept(b"x")
    ended = await mount.fetch(run, INVOKER_INPUT_FILE=where)
    assert ended.code == 1
    assert ended.note["type"] == "InputUnavailable", "asking the run API again heals nothing"
    assert words in ended.note["message"]


async def test_a_full_disk_says_so(world: RunWorld, mount: Mount) -> None:
    """A limit on the size of files stands in for the disk: the write is refused halfway through."""
    run = await world.accept(b"x" * 100_000)
    program = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)); import signal; \
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); runpy.run_path({FETCH_ENTRY!r}, run_name='__main__')"
    environment = {
        "INVOKER_RUN_URL": run.url,
        "INVOKER_RUN_TOKEN": run.token,
        "INVOKER_INPUT_FILE": str(mount.input),
        "INVOKER_TERMINATION_FILE": str(mount.termination),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    ended = await mount.ended(process)
    assert (ended.code, mount.left()) == (1, [])
    assert ended.note["type"] == "InputUnavailable"
    assert "File too large" in ended.note["message"]


async def test_a_signal_ends_it_and_leaves_no_half_input(world: RunWorld, mount: Mount) -> None:
    run = await world.accept(b"x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        address = run.url.replace(world.base_url, f"http://127.0.0.1:{silent.getsockname()[1]}")
        process = await mount.start(run, INVOKER_RUN_URL=address)
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            process.send_signal(signal.SIGTERM)
            ended = await mount.ended(process)
    assert (ended.code, mount.left()) == (143, [])
    assert ended.stderr == "invoker: ended by a signal while the input was fetched\n"


@pytest.mark.parametrize("missing", ["INVOKER_RUN_URL", "INVOKER_RUN_TOKEN", "INVOKER_INPUT_FILE"])
async def test_without_its_environment_it_says_what_is_missing(world: RunWorld, mount: Mount, missing: str) -> None:
    run = await world.accept(b"x")
    changed: dict[str, Any] = {missing: ""}
    ended = await mount.fetch(run, **changed)
    assert ended.code == 1
    assert json.loads(ended.termination)["message"] == (
        f"{missing} is not set: this program is started by an engine of Invoker"
    )
