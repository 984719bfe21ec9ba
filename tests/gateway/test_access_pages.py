"""Web pages: whose may call, and that others can do nothing where no key is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from invoker.errors import SettingsError
from invoker.gateway.access.web_pages import warnings_about
from invoker.gateway.settings import load_gateway_settings
from tests.acceptance.cli_desk import Desk
from tests.gateway.access_world import add_key, bearer, guarded_gateway, wire_to
from tests.gateway.stack import Stack, running_gateway, session

CONSOLE = "https://console.example.org"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(stack: Stack) -> AsyncIterator[str]:
    """A gateway for everybody on this machine, and for the pages of one origin."""
    async with running_gateway(stack.server.url, gateway_cors_origins=(CONSOLE,)) as running:
        yield running.url


async def said(url: str, *lines: str, method: str = "POST", path: str = "/v1/topics/echo.a") -> int:
    """The status of a call with these header lines; Host is among them or missing."""
    async with wire_to(url) as wire:
        await wire.say("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Content-Length: 0", "", ""]).encode())
        return (await wire.answer())[0]


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:80", "LOCALHOST", "127.0.0.1", "127.1.2.3:7222", "[::1]", "[::1]:80", "dev.localhost",
     "localhost."],
)  # fmt: skip
async def test_this_machine_calls_itself_by_its_names(url: str, host: str) -> None:
    assert await said(url, f"Host: {host}") == 202


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7222", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1", "0.0.0.0",
     "[2001:db8::1]", "127.0.0.1@evil.example", "", "evil/..", "[::1", "2130706433"],
)  # fmt: skip
async def test_a_name_that_was_turned_to_this_machine_is_not_its_own(url: str, host: str) -> None:
    assert await said(url, f"Host: {host}") == 403
    assert await said(url, f"Host: {host}", method="GET", path="/openapi.json") == 403, "nor is anything read"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost:1", "http://localhost.evil.example", "file://", "http://[", "*",
     "https://console.example.org.evil.example", "http://console.example.org"],
)  # fmt: skip
async def test_the_pages_of_others_change_nothing(url: str, origin: str) -> None:
    assert await said(url, "Host: localhost", f"Origin: {origin}") == 403
    assert await said(url, "Host: localhost", f"Origin: {origin}", "Content-Type: text/plain") == 403


async def test_our_own_pages_and_those_that_are_set_may(url: str) -> None:
    port = url.rpartition(":")[2]
    assert await said(url, f"Host: localhost:{port}", f"Origin: http://localhost:{port}") == 202
    assert await said(url, "Host: localhost", f"Origin: {CONSOLE}") == 202
    assert await said(url, "Host: localhost", "Sec-Fetch-Site: same-origin") == 202
    assert await said(url, "Host: localhost", "Sec-Fetch-Site: cross-site") == 403


@pytest.mark.parametrize("path", ["/v1/functions/", "/v1/runs/", "/v1/topics/echo.a/"])
async def test_nobody_is_sent_to_where_the_host_header_says(url: str, path: str) -> None:
    async with session(url) as http, http.get(path, allow_redirects=False) as answer:
        assert (answer.status, answer.headers.get("Location")) == (404, None)


async def test_with_a_key_needed_a_page_has_nothing_to_gain(stack: Stack) -> None:
    async with guarded_gateway(stack.server.url) as running:
        assert await said(running.url, "Host: gateway.example.org", "Origin: https://evil.example") == 401


async def test_cors_is_off_unless_set(http: aiohttp.ClientSession) -> None:
    asked = {"Origin": CONSOLE, "Access-Control-Request-Method": "POST"}
    async with http.options("/v1/topics/echo.a", headers=asked) as answer:
        assert answer.status == 405
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_cors_for_the_origins_that_are_set_and_no_other(stack: Stack, url: str) -> None:
    async with session(url) as http:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,ce-id"}
        async with http.options("/v1/topics/echo.a", headers=asked | {"Origin": CONSOLE}) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE
            assert answer.headers["Access-Control-Allow-Headers"] == "authorization,ce-id"
            assert "Access-Control-Allow-Credentials" not in answer.headers
        async with http.options("/v1/topics/echo.a", headers=asked | {"Origin": "https://evil.example"}) as answer:
            assert answer.status == 400
            assert "Access-Control-Allow-Origin" not in answer.headers
    async with (
        guarded_gateway(stack.server.url, gateway_cors_origins=(CONSOLE,)) as running,
        session(running.url) as http,
        http.post("/v1/topics/echo.a", data=b"x", headers={"Origin": CONSOLE}) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE, "the page can read why"
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_dev_lets_no_page_of_others_in(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.run("functions", "new", "hello").code == 0
    with desk.dev() as facts:
        url = facts["http_url"]
        assert await said(url, "Host: localhost", "Origin: https://evil.example") == 403
        assert await said(url, "Host: evil.example") == 403
        assert await said(url, "Host: evil.example", method="GET", path="/v1/functions") == 403
        assert await said(url, "Host: localhost") == 202


async def test_a_dev_on_another_address_lets_nobody_in_without_a_key(tmp_path: Path) -> None:
    desk, file = Desk(tmp_path), tmp_path / "keys.json"
    assert desk.run("functions", "new", "hello").code == 0
    with desk.dev("--http-host", "0.0.0.0") as facts:
        async with session(facts["http_url"]) as http:
            for method, path in (
                ("POST", "/v1/topics/hello"), ("GET", "/v1/functions"), ("POST", "/v1/reload"), ("GET", "/refresh"),
                ("POST", "/publish/hello"), ("GET", "/openapi.json"),
            ):  # fmt: skip
                async with http.request(method, path) as answer:
                    assert answer.status == 401, path
            async with http.get("/readyz") as answer:
                assert answer.status == 200
        ran = desk.run("publish", "hello", "{}", "--wait", "30")
        assert ran.code == 0, "its functions reach the run API: " + ran.err
        assert "nobody may do anything here: set INVOKER_GATEWAY_KEYS" in desk.err()
    admin = bearer(add_key(file, "admin", "admin"))
    keyed = desk.dev("--http-host", "0.0.0.0", env={"INVOKER_GATEWAY_KEYS": str(file)})
    with keyed as facts:
        async with session(facts["http_url"], headers=admin) as http, http.get("/v1/functions") as answer:
            assert answer.status == 200


def test_an_operator_is_told_when_everybody_or_nobody_is_let_in() -> None:
    def told(**given: object) -> str:
        return " ".join(warnings_about(load_gateway_settings({}, **given)))

    assert "nobody may do anything" in told()
    assert "everybody who reaches 0.0.0.0" in told(gateway_anonymous=("publish",), gateway_host="0.0.0.0")
    assert not told(gateway_anonymous=("admin",))
    assert not told(gateway_anonymous=("read",), gateway_host="0.0.0.0")
    assert not told(gateway_keys=Path("keys.json"), gateway_host="0.0.0.0")


@pytest.mark.parametrize("origin", ["*", "console.example.org", "https://console.example.org/", "https://a b", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="INVOKER_GATEWAY_CORS_ORIGINS"):
        load_gateway_settings({"INVOKER_GATEWAY_CORS_ORIGINS": origin})
