"""Connections against servers that are really configured for each kind of identity, and what refusals read like."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import nats.errors
import pytest

from invoker import Client
from invoker.connection import ConnectionOptions, connect, too_old, words_about_server
from invoker.errors import InvokerError, ServerUnreachableError, SettingsError
from invoker.nats_server import NatsServer, nats_server
from invoker.settings import connection_options
from tests.conftest import eventually
from tests.integration.nats_identity import Certificates, certificates, decentralised, user_key
from tests.ports import lasting_port

pytestmark = pytest.mark.integration

StartServer = Callable[[str], AbstractAsyncContextManager[NatsServer]]
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.fixture
def start(tmp_path: Path) -> StartServer:
    return lambda config: nats_server(tmp_path / "store", extra_config=config, jetstream=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"))


async def echoes(options: ConnectionOptions, timeout: float = 20) -> bool:
    """Whether a message makes the way out and back over this connection."""
    client = await connect(options, timeout=timeout)
    try:
        subscription = await client.subscribe("echo")
        await client.publish("echo", b"hello")
        return (await subscription.next_msg(timeout=60)).data == b"hello"
    finally:
        await client.close()


def settings(server: NatsServer, **given: str | Path | None) -> ConnectionOptions:
    return connection_options(server=server.url, environ={}, **given)


async def refused(options: ConnectionOptions) -> ServerUnreachableError:
    with pytest.raises(ServerUnreachableError) as caught:
        await echoes(options, timeout=2)
    return caught.value


async def test_user_and_password(start: StartServer) -> None:
    async with start("authorization { user: ann, password: 'open sesame' }") as server:
        assert await echoes(settings(server, user="ann", password="open sesame"))
        error = await refused(settings(server, user="ann", password="wrong"))
        assert "authorization" in error.message.lower()
        assert error.hint == "check the credentials"
        assert "wrong" not in str(error)


async def test_token(start: StartServer) -> None:
    async with start("authorization { token: s3cret }") as server:
        assert await echoes(settings(server, token="s3cret"))
        assert await echoes(settings(server, user="s3cret")), "a user without a password is a token, as `nats` has it"
        assert "authorization" in (await refused(settings(server))).message.lower()


async def test_nkey(start: StartServer, tmp_path: Path) -> None:
    seed, public = user_key()
    file = tmp_path / "user.nk"
    file.write_bytes(seed)
    async with start(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        assert await echoes(settings(server, nkey=file))
        other = tmp_path / "other.nk"
        other.write_bytes(user_key()[0])
        assert "authorization" in (await refused(settings(server, nkey=other))).message.lower()


async def test_credentials_file(start: StartServer, tmp_path: Path) -> None:
    identity = decentralised()
    file = tmp_path / "user.creds"
    file.write_text(identity.creds)
    async with start(identity.config) as server:
        assert await echoes(settings(server, creds=file))
        assert "authorization" in (await refused(settings(server))).message.lower()


@pytest.mark.parametrize("kind", ["nkey", "creds"])
async def test_a_file_that_holds_no_key_is_named(start: StartServer, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "not-a-key"
    file.write_text("hello\n")
    async with start("") as server:
        with pytest.raises(SettingsError, match="not-a-key"):
            await echoes(settings(server, **{kind: file}))


@needs_openssl
async def test_tls_with_a_private_authority(start: StartServer, authority: Certificates) -> None:
    config = f"tls {{ cert_file: '{authority.server_cert}', key_file: '{authority.server_key}' }}"
    async with start(config) as server:
        assert await echoes(settings(server, ca=authority.ca))
        assert "certificate" in (await refused(settings(server, ca=None))).message.lower()


@needs_openssl
async def test_tls_with_a_client_certificate(start: StartServer, authority: Certificates) -> None:
    files = f"cert_file: '{authority.server_cert}', key_file: '{authority.server_key}', ca_file: '{authority.ca}'"
    async with start(f"tls {{ {files}, verify: true }}") as server:
        own = {"cert": authority.client_cert, "key": authority.client_key}
        assert await echoes(settings(server, ca=authority.ca, **own))
        await refused(settings(server, ca=authority.ca))


@needs_openssl
async def test_a_key_that_does_not_fit_its_certificate_is_a_setting(
    start: StartServer, authority: Certificates
) -> None:
    async with start("") as server:
        with pytest.raises(SettingsError, match="TLS"):
            await echoes(settings(server, cert=authority.client_cert, key=authority.server_key))


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"nats://ann:hidden@127.0.0.1:{taken.getsockname()[1]}"
        error = await refused(ConnectionOptions(url=url))
    assert "cannot be reached" in error.message
    assert "hidden" not in str(error)
    assert "invoker dev" in (error.hint or "")


async def test_a_server_that_is_no_nats_server() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        await refused(ConnectionOptions(url=f"nats://127.0.0.1:{port}"))


async def test_a_connection_outlives_a_server_that_is_away_for_many_attempts(tmp_path: Path) -> None:
    heard: list[str] = []

    async def listener(event: str) -> None:
        heard.append(event)

    async def many_attempts() -> bool:
        return sum(event.startswith("error: ") for event in heard) >= 5

    async def back() -> bool:
        return "reconnected" in heard

    async with nats_server(tmp_path / "store", port=lasting_port()) as server:
        client = await connect(ConnectionOptions(url=server.url), listener=listener)
    try:
        await eventually(many_attempts, what="the fifth failed attempt")
        async with nats_server(tmp_path / "store", port=server.port):
            await eventually(back, what="the connection's return")
            assert "closed" not in heard
            await client.flush(timeout=60)
    finally:
        await client.close()


async def test_a_refused_connection_comes_back_as_whoever_it_is_then(tmp_path: Path) -> None:
    """From a password to an nkey; while the file for that is none, this is said, and tried again."""
    users, key, heard = tmp_path / "users.conf", tmp_path / "user.nk", list[str]()
    seed, public = user_key()
    users.write_text("authorization { user: ann, password: first }")
    key.write_text("no seed")
    beside = Path(tempfile.gettempdir()) / "folder of the server's configuration"  # paths are relative to that
    given = {"user": "ann", "password": "first"}

    async def listener(event: str) -> None:
        heard.append(event)

    async def heard_of(words: str) -> bool:
        return any(words in event for event in heard)

    async with nats_server(
        tmp_path / "store", extra_config=f"include {json.dumps(os.path.relpath(users, beside))}", jetstream=False
    ) as server:

        def now() -> ConnectionOptions:
            return settings(server, **given)

        client = await connect(replace(now(), read_again=now), listener=listener)
        try:
            subscription = await client.subscribe("echo")
            given = {"nkey": str(key)}
            users.write_text(f"authorization {{ users: [{{ nkey: {public} }}] }}")
            os.kill(server.pid, signal.SIGHUP)
            await eventually(lambda: heard_of(f"nkey file {key}"), what="words about the file")
            assert not client.is_closed
            key.write_bytes(seed)
            await eventually(lambda: heard_of("reconnected"), what="the connection's return")
            await client.publish("echo", b"again")
            assert (await subscription.next_msg(timeout=60)).data == b"again", "subscriptions are there again"
        finally:
            await client.close()
        assert client.is_closed


async def test_a_refused_subject_ends_no_connection(start: StartServer) -> None:
    heard: list[str] = []

    async def listener(event: str) -> None:
        heard.append(event)

    async def told() -> bool:
        return any("permissions violation" in event.lower() for event in heard)

    rights = "permissions: { publish: allowed, subscribe: allowed }"
    async with start(f"authorization {{ users: [{{ user: ann, password: first, {rights} }}] }}") as server:
        client = await connect(settings(server, user="ann", password="first"), listener=listener)
        try:
            await client.publish("forbidden", b"")
            await eventually(told, what="the refusal")
            await client.flush(timeout=60)
            assert [event for event in heard if not event.startswith("error: ")] == []
        finally:
            await client.close()


async def test_closing_over_a_connection_that_was_lost_a_moment_ago_closes_it(tmp_path: Path) -> None:
    """The server is gone, and the client is to hear of that while it sends what it still has."""
    for _ in range(5):
        async with nats_server(tmp_path / "store") as server:
            client = await connect(ConnectionOptions(url=server.url))
            subscription = await client.subscribe("news")
            waiting = asyncio.create_task(subscription.next_msg(timeout=None))
            await client.flush()
            for _ in range(3):  # more than the kernel takes at once, so that something is left to be flushed
                await client.publish("bulk", bytes(1_000_000))
            os.kill(server.pid, signal.SIGKILL)
            await client.close()
        assert client.is_closed
        with pytest.raises((asyncio.CancelledError, nats.errors.Error)):
            await waiting


async def test_a_first_connect_may_wait_for_its_server(tmp_path: Path) -> None:
    port, heard = lasting_port(), list[str]()

    async def listener(event: str) -> None:
        heard.append(event)

    async def told() -> bool:
        return any("cannot be reached" in event for event in heard)

    options = ConnectionOptions(url=f"nats://127.0.0.1:{port}")
    waiting = asyncio.create_task(connect(options, keep_trying=True, listener=listener))
    await eventually(told, what="a failed attempt")
    async with nats_server(tmp_path / "store", port=port):
        client = await asyncio.wait_for(waiting, 60)
        assert client.is_connected
        await client.close()


async def test_jetstream_off_is_said_in_words(start: StartServer) -> None:
    async with start("") as server, Client.connect(server.url) as client:
        with pytest.raises(ServerUnreachableError, match=r"JetStream|stream") as caught:
            await client.publish("orders", b"1")
        assert caught.value.hint
        with pytest.raises(InvokerError) as asked:
            await client.result("@latest")
        assert asked.value.exit_code == 7


async def test_missing_permissions_are_said_in_words(tmp_path: Path) -> None:
    allowed = 'publish: ["_INBOX.>", "$JS.API.STREAM.INFO.>"]'
    config = f"authorization {{ users: [ {{ user: u, password: p, permissions: {{ {allowed} }} }} ] }}"
    async with nats_server(tmp_path / "store", extra_config=config) as server:
        async with Client.connect(ConnectionOptions(url=server.url, user="u", password="p")) as client:
            with pytest.raises(ServerUnreachableError) as caught:
                await client.publish("orders", b"1")
        assert "this NATS user may not publish to " in caught.value.message
        assert "permissions.conf" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("version", "known_holes"),
    [((2, 12, 6), True), ((2, 11, 99), True), ((1, 99, 99), True), ((2, 12, 7), False), ((2, 15, 1), False)],
)
async def test_a_server_below_the_floor_is_named(
    nats_url: str, version: tuple[int, int, int], known_holes: bool
) -> None:
    words = too_old(version)
    assert (words is not None) is known_holes
    assert words is None or f"{version[0]}.{version[1]}.{version[2]}" in words
    client = await connect(ConnectionOptions(url=nats_url))
    assert words_about_server(client) is None, "the bundled server is newer"
    await client.close()
