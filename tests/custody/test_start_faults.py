"""What keeps a controller from starting: each with a sentence, an exit code and no traceback."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api

from invoker import wire
from invoker.errors import ServerUnreachableError
from invoker.nats_server import NatsServer, nats_server
from invoker.streams import StreamLimits, stream_configs
from tests.controllers import View, running_controller
from tests.custody.processes import ROOT
from tests.custody.workload import function, write_catalog

pytestmark = pytest.mark.integration

NAMES = wire.Names()


@dataclass(frozen=True)
class Refused:
    """A controller that ended by itself."""

    exit_code: int
    words: str


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", function("quick", "quick", "true"))


async def refused(tmp_path: Path, environment: Mapping[str, str]) -> Refused:
    """Start the program with that environment and wait for its end."""
    ready = tmp_path / "ready"
    given = {
        "PATH": os.environ["PATH"],
        "INVOKER_CATALOG": str(tmp_path / "catalog"),
        "INVOKER_STATE_DIR": str(tmp_path / "state"),
        "INVOKER_HTTP_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.custody.controller_program", str(ready),
        cwd=ROOT, env=given | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not ready.exists(), "it started"
    found = Refused(process.returncode or 0, errors.decode())
    assert "Traceback" not in found.words, found.words
    return found


async def test_nats_is_away(tmp_path: Path, catalog: Path) -> None:
    with socket.socket() as taken:  # nobody listens there, and nobody else's server will
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = await refused(tmp_path, {"NATS_URL": f"nats://127.0.0.1:{port}"})
    assert found.exit_code == 7
    assert f"NATS at nats://127.0.0.1:{port} cannot be reached" in found.words


async def test_jetstream_is_off(tmp_path: Path, catalog: Path) -> None:
    async with nats_server(tmp_path / "store", jetstream=False) as server:
        found = await refused(tmp_path, {"NATS_URL": server.url})
    assert found.exit_code == 7
    assert "stream INVOKER_EVENTS" in found.words
    assert "JetStream" in found.words or "nobody answers" in found.words


async def test_the_account_has_no_jetstream(tmp_path: Path, catalog: Path) -> None:
    accounts = "accounts { PLAIN { users = [{user: plain, password: plain}] }, SYS {} }\nsystem_account: SYS"
    async with nats_server(tmp_path / "store", extra_config=accounts) as server:
        found = await refused(tmp_path, {"NATS_URL": server.url.replace("//", "//plain:plain@")})
    assert found.exit_code in (1, 7)
    assert "JetStream" in found.words
    assert "plain:plain" not in found.words, "credentials are never shown"


async def test_the_user_may_not_use_jetstream(tmp_path: Path, catalog: Path) -> None:
    users = 'authorization { users = [{user: a, password: b, permissions: {publish: ["events.>"], subscribe: ">"}}] }'
    async with nats_server(tmp_path / "store", extra_config=users) as server:
        found = await refused(tmp_path, {"NATS_URL": server.url.replace("//", "//a:b@")})
    assert found.exit_code == 7
    words = "stream INVOKER_EVENTS: this NATS user may not publish to $JS.API.STREAM.CREATE.INVOKER_EVENTS"
    assert words in found.words


async def test_the_credentials_are_wrong(tmp_path: Path, catalog: Path) -> None:
    async with nats_server(tmp_path / "store", extra_config="authorization { user: a, password: b }") as server:
        found = await refused(tmp_path, {"NATS_URL": server.url.replace("//", "//a:secret-word@")})
    assert found.exit_code == 7
    assert "refuses us" in found.words
    assert "secret-word" not in found.words


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"INVOKER_RETENTION_SECONDS": "abc"}, "INVOKER_RETENTION_SECONDS"),
        ({"INVOKER_CATALOG": "/nowhere/at/all"}, "INVOKER_CATALOG: the catalog folder /nowhere/at/all cannot be read"),
        ({"INVOKER_ACK_WAIT_SECONDS": "2"}, "INVOKER_HEARTBEAT_SECONDS (3)"),
        ({"INVOKER_RUN_TOKEN_KEY_FILE": "/nowhere"}, "INVOKER_RUN_TOKEN_KEY_FILE: /nowhere cannot be read"),
        ({"INVOKER_TEST_CRASH_AT": "nowhere"}, "INVOKER_TEST_CRASH_AT"),
    ],
)
async def test_a_setting_is_unusable(
    tmp_path: Path, catalog: Path, server: NatsServer, environment: dict[str, str], words: str
) -> None:
    found = await refused(tmp_path, {"NATS_URL": server.url} | environment)
    assert found.exit_code == 2
    assert words in found.words


async def test_the_http_port_is_taken(tmp_path: Path, catalog: Path, server: NatsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = await refused(tmp_path, {"NATS_URL": server.url, "INVOKER_HTTP_PORT": str(port)})
    assert found.exit_code == 2
    assert "INVOKER_HTTP_PORT" in found.words
    assert str(port) in found.words


async def test_the_state_folder_cannot_be_written(tmp_path: Path, catalog: Path, server: NatsServer) -> None:
    """A file in its place is refused to root as well."""
    (tmp_path / "state").write_text("no folder")
    found = await refused(tmp_path, {"NATS_URL": server.url})
    assert found.exit_code != 0
    assert str(tmp_path / "state") in found.words


async def test_a_stream_with_other_settings_is_named_and_left_alone(
    tmp_path: Path, catalog: Path, server: NatsServer, client: NatsClient
) -> None:
    events = stream_configs(NAMES, StreamLimits())[0]
    wrong = replace(events, retention=api.RetentionPolicy.LIMITS, max_age=3600.0)
    await client.jetstream().add_stream(wrong)
    found = await refused(tmp_path, {"NATS_URL": server.url})
    assert found.exit_code == 1
    assert "stream INVOKER_EVENTS exists with other settings: retention is limits, must be workqueue; " in found.words
    assert "max_age is 3600" in found.words
    info = await client.jetstream().stream_info(NAMES.events_stream)
    assert info.config.retention == api.RetentionPolicy.LIMITS


async def test_a_stream_of_somebody_else_is_on_our_subjects(
    tmp_path: Path, catalog: Path, server: NatsServer, client: NatsClient
) -> None:
    await client.jetstream().add_stream(api.StreamConfig(name="MINE", subjects=["events.orders.>"]))
    found = await refused(tmp_path, {"NATS_URL": server.url})
    assert found.exit_code == 1
    assert "INVOKER_EVENTS" in found.words
    assert "overlap" in found.words


async def test_another_retention_is_a_mismatch_and_not_a_silent_change(
    tmp_path: Path, catalog: Path, server: NatsServer
) -> None:
    async with running_controller(server.url, catalog, tmp_path / "one"):
        pass
    found = await refused(tmp_path, {"NATS_URL": server.url, "INVOKER_RETENTION_SECONDS": "3600"})
    assert found.exit_code == 1
    assert "stream INVOKER_RESULTS" in found.words
    assert "must be 3600" in found.words


async def test_two_instances_share_a_server(
    server: NatsServer, client: NatsClient, catalog: Path, tmp_path: Path
) -> None:
    """Their own streams, topics and services; neither sees the other's work."""
    other_names = wire.Names("other", "others")
    async with (
        running_controller(server.url, catalog, tmp_path / "one"),
        running_controller(server.url, catalog, tmp_path / "two", instance="other", topic_prefix="others"),
    ):
        one, other = View(client), View(client, other_names)
        await one.publish("quick", request_id="r")
        assert (await one.result("r", "quick")).succeeded
        assert await other.results.record("r") is None
        await client.jetstream().publish("others.quick", b"", headers={wire.H_MESSAGE_ID: "r"})
        assert (await other.result("r", "quick")).succeeded


async def test_the_server_is_away_in_words_for_callers_too(tmp_path: Path, catalog: Path) -> None:
    with pytest.raises(ServerUnreachableError, match="cannot be reached"):
        async with running_controller("nats://127.0.0.1:9", catalog, tmp_path / "state"):
            pass
