"""API keys: the file, the texts, and what a key may do at a real gateway."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from invoker.errors import InputRefusedError, SettingsError, UnauthorizedError, UnknownIdError
from invoker.gateway.access import keys
from invoker.gateway.access.scopes import Action
from invoker.gateway.access.watched_file import WatchedFile
from tests.gateway.access_world import add_key, bearer, guarded_gateway, wire_to
from tests.gateway.stack import Stack, session

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def made(*scopes: str, **more: Any) -> keys.NewKey:
    return keys.new_key("ann", tuple(map(keys.scope_of, scopes)), now=NOW, **more)


def test_a_key_is_found_by_its_text_and_nothing_else() -> None:
    key, other = made("read"), keys.new_key("bob", (keys.scope_of("publish"),), now=NOW)
    ring = keys.KeyRing([key.stored, other.stored])
    assert ring.caller(key.text, NOW).name == "ann"
    swapped = f"inv_{other.stored.id}_{key.text.rpartition('_')[2]}"
    last = "b" if key.text[-1] == "a" else "a"
    for text in (swapped, key.text[:-1] + last, key.text[:-1], key.text + "a", key.text.upper(), f" {key.text}", "",
                 key.text.replace(key.stored.id, "a" * 10), key.stored.sha256, "inv_" + "a" * 10_000):  # fmt: skip
        with pytest.raises(UnauthorizedError) as refused:
            ring.caller(text, NOW)
        assert key.text not in refused.value.message


def test_every_key_is_another_and_its_secret_is_not_stored() -> None:
    one, two = made("read"), made("read")
    assert one.text != two.text
    assert one.stored.sha256 == hashlib.sha256(one.text.rpartition("_")[2].encode()).hexdigest()
    assert one.text.rpartition("_")[2] not in one.stored.model_dump_json()


def test_a_key_ends_at_its_end() -> None:
    key = made("read", expires_at=NOW + timedelta(seconds=5))
    ring = keys.KeyRing([key.stored])
    assert ring.caller(key.text, NOW + timedelta(seconds=4.9))
    with pytest.raises(UnauthorizedError, match="expired"):
        ring.caller(key.text, NOW + timedelta(seconds=5))


def test_scopes_are_actions_times_topics_times_functions() -> None:
    caller = made("publish orders.>,invoices.* convert,pack-*", "read").stored.caller()
    assert caller.may(Action.PUBLISH, topic="orders.a.b")
    assert caller.may(Action.PUBLISH, topic="invoices.a", function="pack-small")
    assert not caller.may(Action.PUBLISH, topic="invoices.a.b")
    assert not caller.may(Action.PUBLISH, topic="orders.a", function="unpack-small")
    assert caller.may(Action.READ, topic="anything", function="any")
    assert not caller.may(Action.OPERATE, topic="orders.a")


@pytest.mark.parametrize(
    "words", ["", "red", "read,", "read orders..x", "read > UPPER", "read > * more", "read >.x", "read 'x y'"]
)
def test_a_scope_that_cannot_be_read_is_refused(words: str) -> None:
    with pytest.raises(InputRefusedError):
        keys.scope_of(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"keys": 1}', "keys"),
        (b'{"version": 2}', "version"),
        (b'{"keys": [], "password": "hunter2"}', "password"),
        (b'{"keys": [{"id": "short", "sha256": "x", "name": "n", "scopes": []}]}', "keys.0.id"),
        (b'{"keys": [{"id": "aaaaaaaaaa", "sha256": "SECRET-CANARY", "name": "n", "scopes": []}]}', "keys.0.sha256"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_field_and_repeats_no_value(content: bytes, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        keys.read_keys(content)
    assert words in refused.value.message
    assert "hunter2" not in refused.value.message
    assert "SECRET-CANARY" not in refused.value.message


def test_ids_and_names_are_there_once() -> None:
    key = made("read").stored
    with pytest.raises(InputRefusedError, match="already"):
        keys.with_key(keys.KeyFile(keys=(key,)), made("publish").stored)
    twice = {"keys": [json.loads(key.model_dump_json())] * 2}
    with pytest.raises(SettingsError, match="twice"):
        keys.read_keys(json.dumps(twice).encode())
    with pytest.raises(UnknownIdError):
        keys.without_key(keys.KeyFile(keys=(key,)), "bob")


def test_the_file_is_its_owners_only_and_never_half_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "ann", "read")
    add_key(file, "bob", "read")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [key.name for key in keys.load(file).keys] == ["ann", "bob"]
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_a_file_that_is_missing_or_broken_at_first_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(SettingsError, match=r"INVOKER_GATEWAY_KEYS.*keys\.json"):
        WatchedFile(file, "INVOKER_GATEWAY_KEYS", keys.read_ring)
    file.write_text("{")
    with pytest.raises(SettingsError, match=r"INVOKER_GATEWAY_KEYS.*keys\.json"):
        WatchedFile(file, "INVOKER_GATEWAY_KEYS", keys.read_ring)


def test_a_changed_file_holds_for_the_next_call_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ann = add_key(file, "ann", "read")
    watched = WatchedFile(file, "INVOKER_GATEWAY_KEYS", keys.read_ring)
    bob = add_key(file, "bob", "read")
    assert watched.present().caller(bob, NOW).name == "bob"
    with capture_logs() as lines:
        file.write_text('{"keys": [')
        for _ in range(3):
            assert watched.present().caller(ann, NOW).name == "ann"
        file.unlink()
        assert watched.present().caller(ann, NOW).name == "ann"
    assert [line["log_level"] for line in lines] == ["error", "error"], "each bad version is told once"
    keys.store(file, keys.KeyFile())
    with pytest.raises(UnauthorizedError):
        watched.present().caller(ann, NOW)


def test_a_file_that_could_not_be_opened_for_a_moment_is_read_again(tmp_path: Path) -> None:
    file, now = tmp_path / "keys.json", [0.0]
    ann = add_key(file, "ann", "read")
    watched = WatchedFile(file, "INVOKER_GATEWAY_KEYS", keys.read_ring, lambda: now[0])
    keys.store(file, keys.KeyFile())
    with no_more_files(), capture_logs() as lines:
        for now[0] in (0.0, 2.0, 4.0):
            assert watched.present().caller(ann, NOW).name == "ann", "nothing newer can be read"
    assert [line["log_level"] for line in lines] == ["error"]
    now[0] = 4.9
    assert watched.present().caller(ann, NOW).name == "ann", "not tried at every call"
    now[0] = 5.0
    with pytest.raises(UnauthorizedError):
        watched.present().caller(ann, NOW)


def test_a_change_that_keeps_size_and_date_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(b"one")
    facts = file.stat()
    watched = WatchedFile(file, "INVOKER_GATEWAY_KEYS", bytes)
    file.write_bytes(b"two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert watched.present() == b"two"


@contextmanager
def no_more_files() -> Iterator[None]:
    """As in a process that has as many files open as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# At a gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def texts(folder: Path) -> dict[str, str]:
    file = folder / "keys.json"
    return {
        "echoer": add_key(file, "echoer", "publish echo.>"),
        "viewer": add_key(file, "viewer", "read"),
        "nothing": add_key(file, "nothing", "read none.here nobody"),
        "over": add_key(file, "over", "admin", expires_at=datetime.now(UTC) - timedelta(seconds=1)),
        "admin": add_key(file, "admin", "admin"),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(stack: Stack, folder: Path, texts: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway with these keys on the module's installation."""
    async with (
        guarded_gateway(stack.server.url, gateway_keys=folder / "keys.json") as running,
        session(running.url) as http,
    ):
        yield http


async def test_who_is_refused_keeps_no_connection(guarded: aiohttp.ClientSession) -> None:
    async with wire_to(str(guarded._base_url).rstrip("/")) as wire:
        await wire.say(b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await wire.answer())[0] == 401
        assert await wire.rest() == b""


async def published(http: aiohttp.ClientSession, topic: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with http.post(f"/v1/topics/{topic}", data=b"x", headers=headers) as answer:
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.headers["Connection"] == "close", "it keeps no connection from those who may call"
        return answer.status, await answer.json()


async def test_a_key_does_what_its_scopes_say_by_either_header(
    guarded: aiohttp.ClientSession, texts: dict[str, str]
) -> None:
    for headers in (bearer(texts["echoer"]), {"authorization": f"bearer  {texts['echoer']}"},
                    {"X-Api-Key": texts["echoer"]}):  # fmt: skip
        assert (await published(guarded, "echo.a", headers))[0] == 202
    status, document = await published(guarded, "mirror.a", bearer(texts["echoer"]))
    assert (status, document["code"]) == (403, "forbidden")
    assert document["detail"] == "echoer may not publish on mirror.a"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nothing"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "inv_aaaaaaaaaa_" + "a" * 52},
        {"Authorization": "Bearer inv_aaaaaaaaaa_" + "a" * 52},
        {"Authorization": "Bearer " + "a" * 10_000},
        {"X-Api-Key": ""},
        {"X-Api-Key": "admin"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."},
        {"Cookie": "key={admin}"},
    ],
)
async def test_what_is_no_key_is_nobodys(
    guarded: aiohttp.ClientSession, texts: dict[str, str], headers: dict[str, str]
) -> None:
    status, document = await published(guarded, "echo.a", {k: v.format(**texts) for k, v in headers.items()})
    assert (status, document["code"]) == (401, "unauthorized"), document


async def test_a_key_that_is_over_or_shown_twice_is_refused(
    guarded: aiohttp.ClientSession, texts: dict[str, str]
) -> None:
    assert (await published(guarded, "echo.a", bearer(texts["over"])))[0] == 401
    both = bearer(texts["admin"]) | {"X-Api-Key": texts["admin"]}
    assert (await published(guarded, "echo.a", both))[0] == 401
    async with guarded.post(f"/v1/topics/echo.a?key={texts['admin']}&api_key={texts['admin']}", data=b"x") as answer:
        assert answer.status == 401, "never in an address: those are logged everywhere"


async def test_a_revoked_key_is_refused_by_the_next_call(guarded: aiohttp.ClientSession, folder: Path) -> None:
    file = folder / "keys.json"
    short = add_key(file, "short", "publish")
    assert (await published(guarded, "echo.a", bearer(short)))[0] == 202
    left, _ = keys.without_key(keys.load(file), "short")
    keys.store(file, left)
    assert (await published(guarded, "echo.a", bearer(short)))[0] == 401


async def test_a_wrong_key_is_not_taken_for_none_where_none_is_needed(stack: Stack, texts: dict[str, str]) -> None:
    async with session(stack.url) as http:
        assert (await published(http, "echo.a", {}))[0] == 202
        assert (await published(http, "echo.a", bearer(texts["over"])))[0] == 401
