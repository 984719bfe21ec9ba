"""The roles of deploy/nats on a real server: each can do all of its work, and nothing of what is refused."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.errors import ServerUnreachableError
from invoker.nats_server import NatsServer, find_binary, nats_server
from invoker.settings import connection_options
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.gateway.roles_workload import LARGE, everything

FOLDER = Path(__file__).parents[2] / "deploy" / "nats"
ROLES = ("publisher", "viewer", "gateway", "controller")
STREAMS = (
    "INVOKER_EVENTS",
    "INVOKER_RUNS",
    "INVOKER_RESULTS",
    "INVOKER_STATUS",
    "INVOKER_DEAD",
    "OBJ_INVOKER_PAYLOADS",
)


def accounts(names: wire.Names | None = None) -> str:
    """The files as one text with a password for each role, for another instance if one is given."""
    permissions = (FOLDER / "permissions.conf").read_text()
    if names is not None:
        permissions = renamed(permissions)
    passwords = "".join(f'INVOKER_{role.upper()}_PASSWORD: "{role} secret"\n' for role in ROLES)
    return passwords + (FOLDER / "accounts.conf").read_text().replace("include permissions.conf", permissions)


def renamed(permissions: str) -> str:
    """What the `sed` command in the file's own head makes of it."""
    commands = re.findall(r"'(s/[^']+)'", permissions.split("INVOKER_PUBLISHER:")[0])
    ran = subprocess.run(
        ["sed", *(part for one in commands for part in ("-e", one))],
        input=permissions, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ran.stdout


def identity(server: NatsServer, role: str) -> ConnectionOptions:
    """The role's connection as its environment says it."""
    own = {"URL": server.url, "USER": role, "PASSWORD": f"{role} secret", "INBOX_PREFIX": f"_INBOX.{role}"}
    return connection_options(environ={f"INVOKER_NATS_{name}": value for name, value in own.items()})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nats") / "server.log"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(log: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A server with the files' account, on which every role has done its work without one violation."""
    async with nats_server(log.parent / "jetstream", extra_config=accounts(), log_file=log) as server:
        async with asyncio.timeout(250):
            await everything({role: identity(server, role) for role in ROLES}, tmp_path_factory.mktemp("world"))
        yield server


async def test_every_role_does_all_of_its_work(guarded: NatsServer, log: Path) -> None:
    assert "Violation" not in log.read_text()


def test_the_files_hold_no_password_and_the_server_wants_all_of_them() -> None:
    command = [find_binary(), "-t", "-c", str(FOLDER / "accounts.conf")]
    names = [f"INVOKER_{role.upper()}_PASSWORD" for role in ROLES]
    bare = {"PATH": os.environ["PATH"]}
    given = bare | dict.fromkeys(names, "x")
    assert subprocess.run(command, env=given, capture_output=True, check=False).returncode == 0
    for name in names:
        without = {key: value for key, value in given.items() if key != name}
        ran = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
        assert ran.returncode != 0
        assert name in ran.stderr + ran.stdout


@pytest.mark.parametrize(
    ("user", "password"),
    [(None, None), ("viewer", ""), ("viewer", "viewer"), ("admin", "admin"), ("viewer", "gateway secret")],
)
async def test_nobody_comes_in_without_being_known(guarded: NatsServer, user: str | None, password: str | None) -> None:
    with pytest.raises(ServerUnreachableError, match="refuses us"):
        await connect(replace(identity(guarded, "viewer"), user=user, password=password), timeout=20)


async def test_a_gateway_takes_back_what_it_stored_in_vain_and_stays_ready(guarded: NatsServer) -> None:
    """It may purge nothing: a purge that is refused would keep it from being ready, for what any caller can do."""

    async def breaking_off() -> AsyncIterator[bytes]:
        yield LARGE
        raise OSError("the caller has gone")

    async with Client.connect(identity(guarded, "gateway")) as client:
        claims, stored = client.custody.claims, await _payload_bytes(guarded)
        with suppress(OSError):
            await claims.put(breaking_off(), owner="event")
        too_late = await claims.put(LARGE, owner="output")
        for _ in range(2):
            await claims.withdraw(too_late, kept=None)
        assert await _payload_bytes(guarded) - stored < 5_000
        assert client.problems == []


async def _payload_bytes(server: NatsServer) -> int:
    client = await connect(identity(server, "controller"))
    try:
        return (await client.jetstream().stream_info(STREAMS[-1])).state.bytes
    finally:
        await client.close()


@pytest.mark.parametrize("more", [("DIRECT.GET", "STREAM.MSG.GET"), ("STREAM.MSG.GET",)])
async def test_a_publisher_with_ids_of_its_own_needs_what_the_file_says(tmp_path: Path, more: tuple[str, ...]) -> None:
    """And without direct reads, which are only faster, the stream's leader tells."""
    rights = ", ".join(f'"$JS.API.{one}.INVOKER_RESULTS"' for one in more)
    config = accounts().replace('"$O.INVOKER_PAYLOADS.>"', f'{rights}, "$O.INVOKER_PAYLOADS.>"', 1)
    async with nats_server(tmp_path / "jetstream", extra_config=config) as server:
        controller = await connect(identity(server, "controller"))
        await ensure_streams(controller.jetstream(timeout=60), wire.Names(), StreamLimits())
        await controller.close()
        async with Client.connect(identity(server, "publisher")) as client:
            receipt = await client.publish("orders.new", b"x", request_id="order-17")
            assert (receipt.request_id, receipt.duplicate) == ("order-17", False)


EVERYBODY = [
    *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "UPDATE", "SNAPSHOT", "RESTORE") for stream in STREAMS),
    *(f"$JS.API.STREAM.PURGE.{stream}" for stream in STREAMS[:-1]),
    *(f"$JS.API.STREAM.MSG.DELETE.{stream}" for stream in STREAMS if stream != "INVOKER_RUNS"),
    *(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}" for stream in STREAMS),
    "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.CREATE.KV_OTHER", "$JS.API.STREAM.INFO.OTHER", "$JS.API.CONSUMER.CREATE.OTHER",
    "$JS.API.CONSUMER.CREATE.OTHER.name.filter", "$JS.API.STREAM.MSG.GET.OTHER", "$JS.ACK.OTHER.c.1.1.1.1.0",
    "$JS.ACK.INVOKER_RESULTS.c.1.1.1.1.0", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$KV.other.key", "$O.OTHER.C.x", "other-events.orders.created", "event", "events", "acme.result.r.f",
    "acme.ctl.functions", "orders.created",
]  # fmt: skip
STARTS_NO_WORK = [
    "$JS.ACK.INVOKER_EVENTS.intake.1.1.1.1.0", "$JS.ACK.INVOKER_RUNS.run-echo.1.1.1.1.0",
    "$JS.API.CONSUMER.MSG.NEXT.INVOKER_EVENTS.intake", "$JS.API.CONSUMER.MSG.NEXT.INVOKER_RUNS.run-echo",
    "$JS.API.CONSUMER.DELETE.INVOKER_EVENTS.intake", "$JS.API.CONSUMER.DELETE.INVOKER_RUNS.run-echo",
    "$JS.API.CONSUMER.PAUSE.INVOKER_RUNS.run-echo", "$JS.API.CONSUMER.PAUSE.INVOKER_RESULTS.x",
    "$JS.API.CONSUMER.CREATE.INVOKER_EVENTS", "$JS.API.CONSUMER.CREATE.INVOKER_RUNS",
    "$JS.API.CONSUMER.DURABLE.CREATE.INVOKER_RUNS.run-echo", "$JS.API.CONSUMER.DURABLE.CREATE.INVOKER_RESULTS.mine",
    "$JS.API.STREAM.PURGE.OBJ_INVOKER_PAYLOADS", "$JS.API.STREAM.MSG.DELETE.INVOKER_RUNS",
    *(f"$JS.API.STREAM.CREATE.{stream}" for stream in STREAMS),
    "invoker.accepted.r", "invoker.run.echo.r", "invoker.dead.d", "_INBOX.x", "_INBOX.controller.x", "_INBOX.viewer.x",
    "_INBOX.publisher.x", "_INBOX.gateway.x", "replies.x", "$SRV.PING",
]  # fmt: skip
CHANGES_NOTHING = [
    "events.echo.x", "events.invoker.call.echo", "invoker.result.r.echo", "invoker.status.r", "invoker.ctl.cancel",
    "invoker.ctl.pause", "invoker.ctl.resume", "invoker.ctl.reload", "invoker.ctl.dead.redrive",
    "invoker.call.topic.echo", "invoker.call.function.echo", "$O.INVOKER_PAYLOADS.C.x", "$O.INVOKER_PAYLOADS.M.x",
]  # fmt: skip
READS_NOTHING = [
    "events.invoker.call.echo", "events.invoker.x", "invoker.result.r.echo", "invoker.status.r", "invoker.ctl.cancel",
    "invoker.ctl.functions", "invoker.ctl.logs.r", "invoker.call.function.echo", "$JS.API.DIRECT.GET.INVOKER_RESULTS",
    "$JS.API.DIRECT.GET.INVOKER_RESULTS.invoker.result.r.f", "$JS.API.CONSUMER.CREATE.INVOKER_RESULTS",
    "$JS.API.CONSUMER.MSG.NEXT.INVOKER_RESULTS.x", "$JS.API.CONSUMER.CREATE.OBJ_INVOKER_PAYLOADS",
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in STREAMS),
]  # fmt: skip
MAY_NOT_PUBLISH = {
    "controller": EVERYBODY,
    "gateway": EVERYBODY + STARTS_NO_WORK,
    "viewer": [*EVERYBODY, *STARTS_NO_WORK, *CHANGES_NOTHING, "invoker.ctl.source"],
    "publisher": EVERYBODY + STARTS_NO_WORK + READS_NOTHING,
}
OWN_ONLY = [">", "*", "_INBOX.>", "_INBOX.*.>", "$JS.>", "$JS.ACK.>", "$JS.EVENT.>", "$SYS.>", "events.>", "invoker.>",
            "invoker.result.>", "invoker.run.>", "invoker.dead.*", "$O.>", "$O.INVOKER_PAYLOADS.>"]  # fmt: skip
TO_CONTROLLERS = ["invoker.ctl.>", "invoker.ctl.functions", "invoker.call.>", "$SRV.PING"]
MAY_NOT_HEAR = {
    "controller": OWN_ONLY,
    "gateway": OWN_ONLY + TO_CONTROLLERS,
    "viewer": OWN_ONLY + TO_CONTROLLERS,
    "publisher": [*OWN_ONLY, *TO_CONTROLLERS, "invoker.accepted.*", "invoker.status.*", "replies.>"],
}


async def not_refused(server: NatsServer, role: str, kind: str, subjects: list[str]) -> set[str]:
    """Which of the subjects the server does not refuse the role: it names each that it does in an error of its own."""
    refused: set[str] = set()

    async def listener(event: str) -> None:
        found = re.search(rf"permissions violation for {kind} to \"([^\"]+)\"", event, re.IGNORECASE)
        if found:
            refused.add(found[1].lower())

    def left() -> set[str]:
        return {subject for subject in subjects if subject.lower() not in refused}

    client: NatsClient = await connect(identity(server, role), listener=listener)
    try:
        for subject in subjects:
            if kind == "publish":
                await client.publish(subject, b"")
            else:
                await client.subscribe(subject)
        await client.flush()

        async def none_left() -> bool:
            return not left()

        with suppress(pytest.fail.Exception):
            await eventually(none_left, within=60)
        return left()
    finally:
        await client.close()


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_may_not_publish(guarded: NatsServer, role: str) -> None:
    wanted = set(MAY_NOT_PUBLISH[role])
    assert await not_refused(guarded, role, "publish", sorted(wanted)) == set()


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_may_not_hear(guarded: NatsServer, role: str) -> None:
    others = [f"_INBOX.{other}.>" for other in ROLES if other != role]
    wanted = {*MAY_NOT_HEAR[role], *others}
    assert await not_refused(guarded, role, "subscription", sorted(wanted)) == set()


async def test_the_files_are_made_for_another_instance_by_the_command_in_their_head(tmp_path: Path) -> None:
    names = wire.Names("acme", "acme-events")
    async with nats_server(tmp_path / "jetstream", extra_config=accounts(names)) as server:
        client = await connect(identity(server, "controller"))
        await ensure_streams(client.jetstream(timeout=60), names, StreamLimits())
        await client.jetstream().publish("acme-events.orders.created", b"x")
        await client.close()
        refused = ["events.x", "invoker.result.r.f", "$JS.API.STREAM.INFO.INVOKER_EVENTS", "acme-events.acme.call.echo"]
        assert await not_refused(server, "publisher", "publish", refused) == set()
