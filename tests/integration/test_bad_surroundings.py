"""NATS and Redis that are there and not as they must be: not ready with the reason in words, well by itself later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import nats.js.errors
import pytest
from nats.aio.client import Client as NatsClient
from structlog.testing import capture_logs

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import NatsServer, nats_server
from invoker.streams import StreamLimits, stream_configs
from tests.conftest import eventually
from tests.integration.nats_identity import Certificates, certificates, expired
from tests.integration.waiting_programs import PROGRAMS, begun
from tests.ports import lasting_port
from tests.redis_server import redis_server

pytestmark = pytest.mark.integration

NO_CONTROLLER = "controllers: no controller of the instance 'invoker' answers on this NATS"
UNTRUSTED = "its certificate is not trusted: certificate has expired"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def outdated(signed: Certificates) -> Path:
    """The server's certificate, with a validity that is over."""
    return expired(signed)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_certificate_of_nats_has_expired(
    program: str, signed: Certificates, outdated: Path, tmp_path: Path
) -> None:
    """Before the start, and met by a program that works when its server starts again."""
    port, cert = lasting_port(), tmp_path / "now.pem"
    options = ConnectionOptions(url=f"tls://127.0.0.1:{port}", ca_file=signed.ca)
    tls = f"tls {{ cert_file: {json.dumps(str(cert))}, key_file: {json.dumps(str(signed.server_key))} }}"
    well_but = NO_CONTROLLER if program == "gateway" else ""

    def renew(server: NatsServer) -> None:
        shutil.copy(signed.server_cert, cert)
        os.kill(server.pid, signal.SIGHUP)

    shutil.copy(outdated, cert)
    async with begun(program, options, tmp_path) as one:
        async with nats_server(tmp_path / "store", port=port, extra_config=tls) as server:
            await one.says(f"NATS at tls://127.0.0.1:{port} cannot be reached: {UNTRUSTED}")
            renew(server)
            await one.is_well(but_for=well_but)
        shutil.copy(outdated, cert)
        async with nats_server(tmp_path / "store", port=port, extra_config=tls) as server:
            await one.says(f"nats: not connected: {UNTRUSTED}")
            renew(server)
            await one.is_well(but_for=well_but)


class Rights:
    """The permissions of the one user of a server, which may be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "users.conf"

    @property
    def config(self) -> str:
        """What includes them; the server's own configuration is in a temporary folder of some name."""
        return f"include {json.dumps(os.path.relpath(self._file, Path(tempfile.gettempdir()) / 'any'))}"

    def allow(self, *, without_publish: str = "", without_subscribe: str = "") -> None:
        kinds = {"publish": without_publish, "subscribe": without_subscribe}
        denied = ", ".join(f'{kind}: {{ allow: ">", deny: "{one}" }}' for kind, one in kinds.items() if one)
        permissions = f", permissions: {{ {denied} }}" if denied else ""
        self._file.write_text(f"authorization {{ users: [{{ user: u, password: p{permissions} }}] }}")


@pytest.mark.parametrize(
    ("program", "kind", "subject", "words"),
    [
        (
            "controller", "publish", "$JS.API.STREAM.CREATE.INVOKER_DEAD",
            "stream INVOKER_DEAD: this NATS user may not publish to $JS.API.STREAM.CREATE.INVOKER_DEAD",
        ),
        (
            "controller", "publish", "$JS.API.CONSUMER.>",
            "this NATS user may not publish to $JS.API.CONSUMER.INFO.INVOKER_EVENTS.intake",
        ),
        ("controller", "subscribe", "invoker.ctl.>", "nats: this NATS user may not subscribe to invoker.ctl.cancel"),
        ("controller", "subscribe", "_INBOX.>", "this NATS user may not subscribe to _INBOX.>"),
        (
            "gateway", "publish", "invoker.ctl.functions",
            "controllers: asking for functions: this NATS user may not publish to invoker.ctl.functions",
        ),
        ("gateway", "subscribe", "_INBOX.>", "this NATS user may not subscribe to _INBOX.>"),
    ],
)  # fmt: skip
async def test_rights_are_missing(program: str, kind: str, subject: str, words: str, tmp_path: Path) -> None:
    """Named by their subject, and felt once they are given: the server itself tells nobody of that."""
    rights = Rights(tmp_path)
    rights.allow(**{f"without_{kind}": subject})
    async with nats_server(tmp_path / "store", extra_config=rights.config) as server:
        options = ConnectionOptions(url=server.url, user="u", password="p")
        async with begun(program, options, tmp_path) as one:
            await one.says(words)
            rights.allow()
            os.kill(server.pid, signal.SIGHUP)
            await one.is_well(but_for=NO_CONTROLLER if program == "gateway" else "")


async def test_a_reply_that_may_not_be_sent_makes_nobody_unready(tmp_path: Path) -> None:
    """Callers name reply subjects: one that the server refuses is theirs, not a fault of the installation."""
    rights = Rights(tmp_path)
    rights.allow(without_publish="replies.refused")
    async with nats_server(tmp_path / "store", extra_config=rights.config) as server:
        options = ConnectionOptions(url=server.url, user="u", password="p")
        with capture_logs() as lines:
            async with begun("controller", options, tmp_path) as one:
                await one.is_well()
                client = await connect(options)
                await client.jetstream().publish("events.none", b"", headers={wire.H_REPLY_TO: "replies.refused"})

                async def told() -> bool:
                    return any("replies.refused" in str(line.get("error_message")) for line in lines)

                await eventually(told, what="the server's refusal")
                assert await one.unready() == (200, "")
                await client.close()


def small_store(folder: Path) -> str:
    """JetStream with room for one megabyte."""
    return f"jetstream {{ store_dir: {json.dumps(str(folder))}, max_file_store: 1MB }}"


async def fill(client: NatsClient) -> None:
    """Somebody else's stream takes all the room there is."""
    js = client.jetstream()
    await js.add_stream(name="HOG", subjects=["hog"])
    for size in (50_000, 0):
        with suppress(nats.js.errors.ServiceUnavailableError):
            while True:
                await js.publish("hog", bytes(size))


async def test_the_store_has_no_room_for_the_streams(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "store", jetstream=False, extra_config=small_store(tmp_path / "store")) as server:
        client = await connect(ConnectionOptions(url=server.url))
        await client.jetstream().add_stream(name="HOG", subjects=["hog"], max_bytes=800_000)
        bounds = {"events_bytes": 400_000, "results_bytes": 400_000}
        async with begun("controller", ConnectionOptions(url=server.url), tmp_path, **bounds) as one:
            await one.says("stream INVOKER_EVENTS: insufficient storage resources available")
            await client.jetstream().delete_stream("HOG")
            await one.is_well()
        async with begun("controller", ConnectionOptions(url=server.url), tmp_path, **bounds) as again:
            await again.is_well()  # what is there already needs no room
        await client.close()


async def test_a_store_that_fills_up_refuses_in_words_and_goes_on_by_itself(tmp_path: Path) -> None:
    """Both doors: NATS and HTTP. What was refused is not there, what was taken is finished."""
    async with nats_server(tmp_path / "store", jetstream=False, extra_config=small_store(tmp_path / "store")) as server:
        client = await connect(ConnectionOptions(url=server.url))
        options = ConnectionOptions(url=server.url)
        async with begun("controller", options, tmp_path) as controller, begun("gateway", options, tmp_path) as gateway:
            await controller.is_well()
            await gateway.is_well()
            await fill(client)
            async with aiohttp.ClientSession(gateway.url) as http:
                async with http.post("/v1/topics/some.topic", data=b"x") as answer:
                    problem = await answer.json()
                    assert (answer.status, problem["code"]) == (503, "stream-full")
                    assert "its JetStream store, or the disk below it, is full" in problem["detail"]
                    assert "insufficient resources" in problem["detail"]
                    assert "make room" in problem["hint"]
                    assert int(answer.headers["Retry-After"]) > 0
                await client.jetstream().delete_stream("HOG")

                async def taken() -> str | None:
                    async with http.post("/v1/topics/some.topic", data=b"x") as answer:
                        return (await answer.json())["request_id"] if answer.status == 202 else None

                request_id = await eventually(taken, what="an event that is taken")

                async def recorded() -> bool:
                    async with http.get(f"/v1/requests/{request_id}") as answer:
                        return answer.status == 200

                await eventually(recorded, what="its record")
        await client.close()


async def test_a_stream_with_other_settings_is_mended_by_hand(
    server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    """Found at the start, and changed under a controller that works."""
    js = client.jetstream()
    events = stream_configs(wire.Names(), StreamLimits())[0]
    await js.add_stream(replace(events, max_age=3600.0))
    async with begun("controller", ConnectionOptions(url=server.url), tmp_path) as one:
        words = "stream INVOKER_EVENTS exists with other settings: max_age is 3600.0, must be 0"
        await one.says(words)
        await js.update_stream(events)
        await one.is_well()
        await js.update_stream(replace(events, max_age=3600.0))
        await one.says(words)
        await js.update_stream(events)
        await one.is_well()


@pytest.mark.parametrize("trouble", ["certificate", "password"])
async def test_a_redis_that_refuses_us_or_is_not_trusted(
    trouble: str, server: NatsServer, signed: Certificates, outdated: Path, tmp_path: Path
) -> None:
    """Redis is a copy: the gateway stays ready and answers from NATS, and its log says why in words, once."""
    cert = tmp_path / "now.pem"
    shutil.copy(outdated if trouble == "certificate" else signed.server_cert, cert)
    tls = ("--tls-cert-file", cert, "--tls-key-file", signed.server_key, "--tls-ca-cert-file", signed.ca)
    password = "right" if trouble == "password" else "wr0ng"
    arguments = (*map(str, tls), "--tls-auth-clients", "no", "--requirepass", password)
    words = UNTRUSTED if trouble == "certificate" else "the user or the password is refused"
    options = ConnectionOptions(url=server.url)
    async with redis_server(tmp_path / "redis", *arguments, tls=True) as database:
        address = database.url.replace("//", "//:wr0ng@")
        with capture_logs() as lines:
            async with (
                begun("controller", options, tmp_path) as controller,
                begun("gateway", options, tmp_path, results=address, results_ca=signed.ca) as gateway,
                aiohttp.ClientSession() as http,
            ):
                await controller.is_well()
                await gateway.is_well()

                async def up() -> str:
                    async with http.get(f"{gateway.probe_url}/metrics") as answer:
                        lines = (await answer.text()).splitlines()
                    return next(one for one in lines if one.startswith('invoker_results_store_up{source="redis"}'))[-3:]

                async def warned() -> bool:
                    return any(words in str(line.get("error_message")) for line in lines)

                async def mended() -> bool:
                    return await up() == "1.0"

                async def down() -> bool:
                    return await up() == "0.0"

                await eventually(warned, what="the reason in the log")
                await eventually(down, what="a copy that is said to be away")
                await database.kill()
                shutil.copy(signed.server_cert, cert)
                database.arguments = (*arguments[:-1], "wr0ng")
                await database.start()
                await eventually(mended, what="a copy that is filled")
    assert "wr0ng" not in str(lines)
