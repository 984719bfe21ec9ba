"""Where polls are answered from: NATS, and a copy of it in a real Redis: one suite for both, then the copy alone."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
import redis.asyncio
from structlog.testing import capture_logs

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.errors import ExpiredError, SettingsError, UnknownIdError
from invoker.gateway.result_source import chosen_results
from invoker.gateway.settings import load_gateway_settings
from invoker.nats_server import NatsServer, nats_server
from invoker.request import RequestRecord
from invoker.result import State
from invoker.results.redis_address import parse_address
from invoker.results.store import NATS, REDIS, origin_noted
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.gateway.stack import running_stack, session
from tests.integration.stored_world import StoredWorld
from tests.redis_server import RedisServer, redis_server

NAMES = wire.Names()
SECRET = "s3cret/with:@#odd"
PREFIX = "invoker:"
KEPT_SECONDS = 25.0
"""A retention whose end a test waits for: longer than a machine that is busy with other tests stands still."""


@dataclass
class World:
    """One instance's streams, written by the test, and a gateway's client that reads them."""

    written: StoredWorld
    client: Client
    redis: redis.asyncio.Redis | None = None

    async def copied(self) -> None:
        """When this returns the copy has all that is stored."""
        if self.redis is None:
            return
        last = (await self.client.custody.reader.state(NAMES.results_stream)).state.last_seq

        async def there() -> bool:
            return await self.place() >= last

        await eventually(there, what=f"a copy up to {last}")

    async def place(self) -> int:
        assert self.redis is not None
        return int(await self.redis.hget(f"{PREFIX}place", "sequence") or -1)  # type: ignore[misc]  # typed as either

    async def keys(self) -> list[str]:
        assert self.redis is not None
        return sorted(key.decode() for key in await self.redis.keys("*"))

    async def finished(self, request_id: str, *functions: str) -> None:
        """A request of which every run has its result."""
        await self.written.accept(request_id, *functions, data=b"input")
        for function in functions:
            await self.written.finish(request_id, function, output=function.encode())

    async def source(self, request_id: str) -> str | None:
        """Which store answers for a request."""
        with origin_noted() as origin:
            await self.client.stored.request(request_id)
        return origin.name


@asynccontextmanager
async def world(
    nats_url: str, results: str = "nats", *, ca: Path | None = None, limits: StreamLimits | None = None
) -> AsyncIterator[World]:
    """A world whose client reads from that store."""
    settings = load_gateway_settings({}, results=results, results_ca=ca)
    async with AsyncExitStack() as stack:
        connection = await connect(ConnectionOptions(url=nats_url))
        stack.push_async_callback(connection.close)
        await ensure_streams(connection.jetstream(timeout=60), NAMES, limits or StreamLimits())
        client = await stack.enter_async_context(Client.connect(ConnectionOptions(url=nats_url), names=NAMES))
        await stack.enter_async_context(chosen_results(settings, client))
        made = World(StoredWorld.of(connection, NAMES), client)
        if results != "nats":
            extra: dict[str, Any] = {"ssl_ca_certs": str(ca)} if ca else {}
            made.redis = await stack.enter_async_context(redis.asyncio.Redis.from_url(results, **extra))
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def database(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path / "redis") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", params=["nats", "redis"])
async def store(request: pytest.FixtureRequest, server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """The same world before both stores."""
    async with AsyncExitStack() as stack:
        url = "nats"
        if request.param == "redis":
            url = (await stack.enter_async_context(redis_server(tmp_path / "redis"))).url
        yield await stack.enter_async_context(world(server.url, url))


def expected(store: World) -> str | None:
    return REDIS if store.redis is not None else None


# one suite for both


async def test_a_finished_request(store: World) -> None:
    await store.finished("r1", "a", "b")
    await store.finished("r10", "a")
    await store.copied()
    view = await store.client.stored.request("r1")
    assert [(run.function, run.state) for run in view.runs] == [("a", State.SUCCEEDED), ("b", State.SUCCEEDED)]
    assert [await store.client.output(result) for result in view.results] == [b"a", b"b"]
    assert await store.client.input("r1") == b"input"
    assert view == await store.client.result("r1") == (await store.client.chain("r1")).root.view
    assert view.record == await store.written.results.record("r1")
    assert await store.source("r1") == expected(store)


async def test_an_unfinished_request(store: World) -> None:
    await store.written.accept("r1", "a", "b")
    await store.written.finish("r1", "a")
    await store.written.running("r1", "b")
    await store.copied()
    states = [(run.function, run.state) for run in (await store.client.stored.request("r1")).runs]
    assert states == [("a", State.SUCCEEDED), ("b", State.RUNNING)]
    assert await store.source("r1") == (NATS if store.redis else None), "what is not final is NATS' to say"
    await store.written.finish("r1", "b")
    assert (await store.client.stored.request("r1")).complete, "as soon as it is stored, copied or not"


async def test_a_request_that_nothing_matched(store: World) -> None:
    await store.written.accept("r1")
    await store.copied()
    assert (await store.client.stored.request("r1")).state == "no-match"
    assert await store.source("r1") == expected(store)


async def test_one_run(store: World) -> None:
    await store.written.accept("r1", "a", "b")
    await store.written.finish("r1", "a")
    await store.copied()
    found = await store.client.stored.run_of_id(wire.run_id_of("r1", "a"))
    assert found is not None
    with origin_noted() as origin:
        run, topic = await store.client.stored.run(found)
    assert (run.function, run.state, topic) == ("a", State.SUCCEEDED, "orders")
    assert origin.name == expected(store)
    assert (await store.client.run("r1", function="b")).state is State.QUEUED


async def test_unknown_and_expired_are_told_apart(store: World) -> None:
    old = wire.new_request_id(datetime.now(UTC) - timedelta(days=3), bytes(10))
    with pytest.raises(ExpiredError):
        await store.client.stored.request(old)
    for id in (store.client.new_request_id(), "never", "place", "*"):
        with pytest.raises(UnknownIdError) as caught:
            await store.client.stored.request(id)
        assert not isinstance(caught.value, ExpiredError)


async def test_very_many_runs(store: World) -> None:
    """More than the server gives out at once."""
    functions = [f"f{number}" for number in range(1_050)]
    now = datetime.now(UTC)
    record = RequestRecord(
        request_id="r1", topic="orders", received_at=now, accepted_at=now, sha256="", catalog="c",
        functions=tuple(functions), root_request_id="r1",
    )  # fmt: skip
    await store.written.results.put_record(record)
    for first in range(0, len(functions), 50):
        await asyncio.gather(*(store.written.seal("r1", one) for one in functions[first : first + 50]))
    await store.copied()
    assert (await store.client.stored.request("r1")).complete
    assert await store.source("r1") == expected(store)


# the copy


async def test_every_key_expires_with_its_record(server: NatsServer, database: RedisServer) -> None:
    async with world(server.url, database.url, limits=StreamLimits(retention_seconds=KEPT_SECONDS)) as one:
        assert one.redis is not None
        await one.written.accept("r1", "a")
        await one.copied()
        first = await one.redis.pttl(f"{PREFIX}request:r1")
        await one.written.finish("r1", "a")
        await one.finished("r2", "a")
        await one.copied()
        assert await one.keys() == [f"{PREFIX}place", f"{PREFIX}request:r1", f"{PREFIX}request:r2"]
        left = [await one.redis.pttl(key) for key in await one.keys()]
        assert all(0 < milliseconds <= KEPT_SECONDS * 1000 for milliseconds in left), left
        assert await one.redis.pttl(f"{PREFIX}request:r1") <= first, "a later result does not keep an older record"

        async def gone() -> bool:
            return await one.keys() in ([], [f"{PREFIX}place"])

        await eventually(gone, what="no requests in Redis")
        with pytest.raises(UnknownIdError):
            await eventually(lambda: answered(one, "r1"), what="an end of the retention")


async def answered(one: World, request_id: str) -> None:
    await one.client.stored.request(request_id)


async def test_a_restart_goes_on_where_it_stood(server: NatsServer, database: RedisServer) -> None:
    async with world(server.url, database.url) as one:
        await one.finished("r1", "a")
        await one.copied()
        assert one.redis is not None
        await one.redis.delete(f"{PREFIX}request:r1")
        await one.finished("r2", "a")
        await one.copied()
    async with world(server.url, database.url) as one:
        await one.finished("r3", "a")
        await one.copied()
        assert await one.keys() == [f"{PREFIX}place", f"{PREFIX}request:r2", f"{PREFIX}request:r3"]
        assert [await one.source(id) for id in ("r1", "r2", "r3")] == [NATS, REDIS, REDIS]


async def test_several_gateways_fill_one_copy(server: NatsServer, database: RedisServer) -> None:
    async with world(server.url, database.url) as one:
        for number in range(60):
            await one.finished(f"before{number}", "a")
        async with world(server.url, database.url) as two, world(server.url, database.url) as three:
            for number in range(30):
                await one.finished(f"r{number}", "a", "b")
            await two.copied()
            assert one.redis is not None
            await one.redis.flushall()
            await one.finished("last", "a")
            for each in (one, two, three):
                await eventually(lambda each=each: refilled(each, 91), what="a full copy")
            assert {await each.source("r7") for each in (one, two, three)} == {REDIS}


async def refilled(one: World, requests: int) -> bool:
    await one.copied()
    return len(await one.keys()) == requests + 1


async def test_a_redis_that_comes_back_empty_is_filled_again(server: NatsServer, database: RedisServer) -> None:
    async with world(server.url, database.url) as one:
        await one.finished("r1", "a")
        await one.copied()
        await database.kill()
        assert await one.source("r1") == NATS
        await one.finished("r2", "a")
        await database.start()
        assert one.redis is not None
        await one.redis.connection_pool.disconnect()
        # Nothing new is stored meanwhile: it has to be noticed all the same.
        await eventually(lambda: refilled(one, 2), what="a full copy")
        await eventually(lambda: is_from(one, "r1", REDIS), what="answers from Redis")
        assert await one.source("r2") == REDIS


async def is_from(one: World, request_id: str, source: str) -> bool:
    return await one.source(request_id) == source


async def test_a_copy_that_was_set_back_is_filled_from_there(server: NatsServer, database: RedisServer) -> None:
    """As after the restart of a Redis that keeps snapshots."""
    async with world(server.url, database.url) as one:
        for number in range(4):
            await one.finished(f"r{number}", "a")
        await one.copied()
        assert one.redis is not None
        await one.redis.hset(f"{PREFIX}place", "sequence", "4")  # type: ignore[misc]  # typed as either
        await one.redis.delete(f"{PREFIX}request:r0", f"{PREFIX}request:r3")
        await eventually(lambda: refilled(one, 3), what="the lost part")
        assert f"{PREFIX}request:r0" not in await one.keys(), "only what may be missing is written again"


async def test_a_copy_of_another_stream_is_not_gone_on_with(
    server: NatsServer, database: RedisServer, tmp_path: Path
) -> None:
    async with world(server.url, database.url) as one:
        for number in range(5):
            await one.finished(f"old{number}", "a")
        await one.copied()
    async with nats_server(tmp_path / "other") as other:
        async with world(other.url) as writing:
            for number in range(12):
                await writing.finished(f"new{number}", "a")
        async with world(other.url, database.url) as two:
            await eventually(lambda: is_from(two, "new0", REDIS), what="the other stream's first request")


async def test_what_is_not_ours_in_redis_is_not_believed(server: NatsServer, database: RedisServer) -> None:
    async with world(server.url, database.url) as one:
        await one.finished("r1", "a")
        await one.copied()
        assert one.redis is not None
        store: Any = one.redis
        key = f"{PREFIX}request:r1"
        for field, data in (("record", b"{}"), ("record", b"\xff"), ("result.a", b'{"version": 9}'), ("result.a", b"")):
            before = await store.hget(key, field)
            await store.hset(key, field, data)
            assert await one.source("r1") == NATS, data
            await store.hset(key, field, before)
        assert await one.source("r1") == REDIS
        await store.copy(key, f"{PREFIX}request:r2")
        with pytest.raises(UnknownIdError):
            await one.client.stored.request("r2")
        await store.delete(key)
        await store.set(key, "a text")
        assert await one.source("r1") == NATS


async def test_a_redis_that_does_not_answer_delays_one_poll_and_no_other(
    server: NatsServer, database: RedisServer
) -> None:
    async with world(server.url, database.url) as one:
        await one.finished("r1", "a")
        await one.copied()
        clock = asyncio.get_running_loop().time
        database.freeze()
        try:
            began = clock()
            assert await one.source("r1") == NATS
            assert clock() - began < 50
            began = clock()
            for _ in range(200):
                assert await one.source("r1") == NATS
            # Half a second each would be a hundred.
            assert clock() - began < 50, "polls spare a Redis that is away"
        finally:
            database.thaw()
        await eventually(lambda: is_from(one, "r1", REDIS), what="answers from Redis")


# who we are there


def certificates(folder: Path) -> None:
    """`ca.crt`, and `server.crt` with `server.key` for 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    extension = folder / "names"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    for line in (
        f"req -x509 {new} -keyout ca.key -out ca.crt -subj /CN=test-ca -days 30",
        f"req {new} -keyout server.key -out server.csr -subj /CN=redis",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.crt",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)


async def test_user_password_and_tls(server: NatsServer, tmp_path: Path) -> None:
    """With the commands that docs/operations.md names for the user, and no others."""
    await asyncio.to_thread(certificates, tmp_path)
    rights = "~invoker:* -@all +hget +hgetall +hset +hmget +pexpire +pexpireat +eval +multi +exec +@connection"
    keys = ("tls-cert-file", "server.crt"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "ca.crt")
    files = [word for name, file in keys for word in (f"--{name}", str(tmp_path / file))]
    acl = tmp_path / "users.acl"
    acl.write_text(f"user default on nopass ~* +@all\nuser invoker on >{SECRET} {rights}\n")
    async with redis_server(
        tmp_path / "redis", *files, "--tls-auth-clients", "no", "--aclfile", str(acl), tls=True
    ) as database:
        quoted = SECRET.replace("/", "%2F").replace(":", "%3A").replace("@", "%40").replace("#", "%23")
        own = database.url.replace("rediss://", f"rediss://invoker:{quoted}@")
        with capture_logs() as lines:
            async with world(server.url, database.url, ca=tmp_path / "ca.crt") as watching:
                await watching.finished("r1", "a")
                await watching.redis.flushall()  # type: ignore[union-attr]  # it has one
            async with world(server.url, own, ca=tmp_path / "ca.crt") as one:
                await eventually(lambda: is_from(one, "r1", REDIS), what="answers from Redis")
            for wrong in (own.replace("s3cret", "wr0ng"), own.replace("rediss://", "redis://")):
                ca = tmp_path / "ca.crt" if wrong.startswith("rediss") else None
                async with world(server.url, wrong, ca=ca) as one:
                    assert await one.source("r1") == NATS
            async with world(server.url, own) as distrusting:  # the system knows nothing of our authority
                assert await distrusting.source("r1") == NATS
        assert len([line for line in lines if line["log_level"] == "warning"]) >= 3
        assert "s3cret" not in str(lines)
        assert "wr0ng" not in str(lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("redis://u:s3cret@host:99999", "port"),
        ("redis://u:s3cret@", "not like"),
        ("redis://u:s3cret@host/zero", "number"),
        ("redis://u:s3cret@host/0?ssl_cert_reqs=none", "behind"),
        ("redis://u:s3cret#1@host/0", ""),
        ("redis://s3cret@host", "no password"),
        ("http://u:s3cret@host", "begins with redis"),
        ("s3cret", "begins with redis"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_being_repeated(text: str, word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(load_gateway_settings({"INVOKER_RESULTS": text}).results)
    assert "INVOKER_RESULTS" in caught.value.message
    assert word in caught.value.message
    assert "s3cret" not in caught.value.message


def test_addresses(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.touch()
    found = parse_address("rediss://me:p%40ss@[::1]/3", ca)
    assert (found.host, found.port, found.database, found.user, found.password) == ("::1", 6379, 3, "me", "p@ss")
    assert (found.tls, found.ca_file, found.shown) == (True, ca, "rediss://[::1]:6379/3")
    assert "p@ss" not in repr(found)
    only = parse_address("redis://:word@host:1")
    assert (only.user, only.password, only.shown) == (None, "word", "redis://host:1/0")
    with pytest.raises(SettingsError, match="INVOKER_RESULTS_CA: the file"):
        parse_address("rediss://host", tmp_path / "none")
    with pytest.raises(SettingsError, match="INVOKER_RESULTS_CA is for TLS"):
        parse_address("redis://host", ca)


# through the gateway


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
async def test_a_gateway_says_where_its_answers_come_from(
    database: RedisServer, tmp_path: Path, trouble: Literal["killed", "frozen"]
) -> None:
    """And publishes, runs and replies go on whatever Redis does."""
    async with (
        running_stack(tmp_path, results=database.url, gateway_gitfaas=True) as stack,
        session(stack.url) as http,
    ):
        async with http.post("/v1/topics/echo.x", data=b"hello") as answer:
            request_id = (await answer.json())["request_id"]
        await stack.client.result(request_id, wait=60)

        async def source() -> str | None:
            async with http.get(f"/response/{request_id}") as answer:
                assert (await answer.json())["responses"] == ["aGVsbG8="]
                return answer.headers.get("Invoker-Results-From")

        await eventually(lambda: comes(source, REDIS), what="an answer from Redis")
        if trouble == "killed":
            await database.kill()
        else:
            database.freeze()
        try:
            assert await source() == NATS
            replies = await stack.client.request("echo.x", b"still", timeout=60)
            assert [await reply.read() for reply in replies] == [b"still"]
        finally:
            if trouble == "killed":
                await database.start()
            else:
                database.thaw()
        await eventually(lambda: comes(source, REDIS), what="an answer from Redis")
        async with http.get(f"{stack.probe_url}/metrics") as answer:
            text = await answer.text()
        assert 'invoker_results_read_total{source="redis"}' in text
        assert 'invoker_results_read_total{source="nats"}' in text


async def comes(source: Callable[[], Any], wanted: str) -> bool:
    return bool(await source() == wanted)
