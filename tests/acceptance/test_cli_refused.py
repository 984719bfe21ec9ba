"""Programs that work, and a NATS that does not want them for a while: they come back without a new start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from invoker import Client
from invoker.connection import ConnectionOptions
from invoker.nats_server import NatsServer, nats_server
from tests.acceptance.cli_desk import Desk, until
from tests.acceptance.test_cli_patience import PROGRAMS, Starting, put, said_again, starting

pytestmark = pytest.mark.acceptance

OF_THE_TEST = "tester"
SLOW = """\
import pathlib, time

def handle(event, context):
    text = event["data"] if isinstance(event["data"], str) else event["data"].decode()
    with open({ran!r}, "a") as file:
        file.write(text + "\\n")
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    return text
"""


class Doorkeeper:
    """A server whose programs' password can be changed while it runs; who tests has a user of his own."""

    def __init__(self, folder: Path) -> None:
        self._users = folder / "users.conf"
        self._log = folder / "server.log"
        self._server: NatsServer | None = None
        self.password_file = folder / "password"
        self.password_file.write_text("first")
        self._write("first")

    @asynccontextmanager
    async def serving(self, store: Path) -> AsyncIterator[NatsServer]:
        beside = Path(tempfile.gettempdir()) / "folder of the server's configuration"  # paths are relative to that
        included = f"include {json.dumps(os.path.relpath(self._users, beside))}"
        async with nats_server(store, extra_config=included, log_file=self._log) as up:
            self._server = up
            yield up

    def wants(self, password: str) -> None:
        assert self._server is not None
        self._write(password)
        os.kill(self._server.pid, signal.SIGHUP)

    def refusals(self) -> int:
        return self._log.read_text().count("authentication error")

    def _write(self, password: str) -> None:
        users = [("invoker", password), (OF_THE_TEST, OF_THE_TEST)]
        lines = ", ".join(f"{{ user: {user}, password: {word} }}" for user, word in users)
        self._users.write_text(f"authorization {{ users: [{lines}] }}\n")


async def soon(ask: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(until, ask, what=what)


def published(gateway: Starting, topic: str, data: bytes) -> str:
    """An event through the gateway: its request id."""
    ready = next(line for line in map(json.loads, gateway.desk.err().splitlines()) if line["event"] == "gateway ready")
    call = urllib.request.Request(f"{ready['url']}/v1/topics/{topic}", data=data, method="POST")
    with urllib.request.urlopen(call, timeout=60) as answer:
        return str(json.load(answer)["request_id"])


async def output_of(client: Client, request_id: str) -> bytes:
    (result,) = [result async for result in client.results(request_id, wait=90)]
    assert result.succeeded, result
    return result.output.inline_bytes() or b""


@pytest.mark.parametrize("is_changed", [False, True], ids=["the password that they have", "a new password"])
async def test_refused_while_they_work_they_come_back(tmp_path: Path, is_changed: bool) -> None:
    """Nothing is lost and nothing doubled: what runs goes on meanwhile, and what waits is done once."""
    go, ran, door = tmp_path / "go", tmp_path / "ran", Doorkeeper(tmp_path)
    more = {"INVOKER_NATS_USER": "invoker", "INVOKER_NATS_PASSWORD_FILE": str(door.password_file)}
    more |= {"INVOKER_GATEWAY_ANONYMOUS": "publish,read", "INVOKER_RUN_TOKEN_KEY": "x" * 40}
    for program in PROGRAMS:
        (tmp_path / program).mkdir()
        Desk(tmp_path / program).function("slow", SLOW.format(go=str(go), ran=str(ran)))
    async with door.serving(tmp_path / "jetstream") as server:
        mine = ConnectionOptions(url=server.url, user=OF_THE_TEST, password=OF_THE_TEST)
        with ExitStack() as stack:
            both = [stack.enter_context(starting(tmp_path / one, one, server.url, **more)) for one in PROGRAMS]
            for one in both:
                await soon(one.works, "readiness")
            async with Client.connect(mine) as client:
                texts = ["before", "during-1", "during-2", "after"]
                requests = [(await client.publish("slow", texts[0])).request_id]
                await soon(lambda: ran.exists() and ran.read_text() == "before\n", "the first run")

                door.wants("second")
                for one in both:
                    await soon(lambda one=one: one.is_unready("nats: not connected"), f"a refused {one.program}")
                await soon(lambda: door.refusals() >= 6, "refused attempts to come back")
                requests += [(await client.publish("slow", text)).request_id for text in texts[1:3]]
                go.touch()
                if is_changed:
                    put(door.password_file, "second")
                else:
                    door.wants("first")
                for one in both:
                    await soon(lambda one=one: one.asked()[0] == 0, f"a ready {one.program}")
                requests.append(await asyncio.to_thread(published, both[1], "slow", texts[3].encode()))

                assert [await output_of(client, one) for one in requests] == [text.encode() for text in texts]
                assert Counter(ran.read_text().split()) == Counter(texts), "each once"
            assert [one.process.poll() for one in both] == [None, None]
        for one in both:
            lines = [line for line in map(json.loads, one.desk.err().splitlines()) if line["event"] == "nats"]
            assert [line["state"] for line in lines if "error_message" not in line] == ["disconnected", "connected"]
            reasons = [line for line in lines if "error_message" in line]
            assert any("authorization violation" in line["error_message"].lower() for line in reasons), reasons
            assert said_again(reasons, "error_message") == [], "a reason is said once, not at every attempt"
