"""Signing in and out with a browser, and what its cookie is good for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from invoker.gateway.access import keys
from invoker.gateway.dashboard.session import COOKIE, COOKIE_SECONDS
from tests.conftest import eventually
from tests.dashboard.accessibility import grave_faults
from tests.dashboard.browser import PHONE, Window
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.html_page import read_page
from tests.dashboard.keyboard import focused, tab_to
from tests.dashboard.routes import covers
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key, guarded_gateway
from tests.gateway.stack import Stack


@dataclass(frozen=True)
class Guarded:
    """A gateway that takes keys only, and keys."""

    url: str
    visitor: Visitor
    keys: Path
    admin: str
    viewer: str
    over: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    over = datetime.now(UTC) - timedelta(seconds=1)
    shown = {
        "admin": add_key(file, "ada", "admin"),
        "viewer": add_key(file, "vera", "read"),
        "over": add_key(file, "old", "admin", expires_at=over),
    }
    async with guarded_gateway(stack.server.url, gateway_keys=file) as up, visiting(up.url) as visitor:
        yield Guarded(up.url, visitor, file, **shown)


@covers("GET /", "GET /ui/login", "POST /ui/login", "POST /ui/logout", "GET /ui/assets/{name}", "GET /ui/live")
async def test_in_and_out_with_the_keyboard_alone(guarded: Guarded, open_page: OpenWindow) -> None:
    window = await open_page(guarded.url, "/")
    page = window.page
    assert window.address == "/ui/login?next=%2Fui", "who is not known is led to signing in"
    await eventually(lambda: is_focused(window, "key"), what="the keyboard in the field")
    await page.keyboard.type(guarded.admin)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{guarded.url}/ui")
    await page.wait_for_selector("[data-live-mark]:not([hidden])")
    assert "ada" in await page.locator("header").inner_text()
    assert await page.evaluate("document.cookie") == "", "no script can read the key"
    await page.keyboard.press("Tab")
    assert await focused(window) == "Skip to the content"
    await page.keyboard.press("Enter")
    await page.wait_for_function("document.activeElement.id === 'content'")
    await window.open("/ui")
    await tab_to(window, "Sign out")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{guarded.url}/ui/login")
    await window.open("/ui")
    assert "/ui/login" in window.address, "signed out"


async def is_focused(window: Window, words: str) -> bool:
    return await focused(window) == words


async def test_without_scripts(guarded: Guarded, open_page: OpenWindow) -> None:
    window = await open_page(guarded.url, "/ui", java_script_enabled=False, viewport=PHONE)
    await window.page.get_by_label("API key or token").fill(guarded.viewer)
    await window.page.get_by_role("button", name="Sign in").click()
    await window.page.wait_for_url(f"{guarded.url}/ui")
    assert "vera" in await window.page.locator("header").inner_text()
    await window.page.get_by_role("button", name="Sign out").click()
    await window.page.wait_for_url(f"{guarded.url}/ui/login")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_before_one_is_known_are_for_everybody(
    guarded: Guarded, open_page: OpenWindow, scheme: str
) -> None:
    for address, status, key in (
        ("/ui/login", 200, None), ("/ui/login?refused=1", 200, None), ("/ui/assets/none", 404, guarded.admin),
    ):  # fmt: skip
        window = await open_page(guarded.url, key=key, color_scheme=scheme, viewport=PHONE)
        window.allow_statuses(status)
        answer = await window.open(address)
        assert answer is not None
        assert answer.status == status
        assert not await grave_faults(window.page)
        assert await window.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


async def test_a_wrong_key(guarded: Guarded, open_page: OpenWindow) -> None:
    window = await open_page(guarded.url, "/ui/login")
    window.allow_statuses(401)
    for wrong in ("inv_aaaaaaaaaa_" + "a" * 52, "nothing", "<script>broken(1)</script>", guarded.over):
        await window.page.get_by_label("API key or token").fill(wrong)
        await window.page.get_by_role("button", name="Sign in").click()
        await window.page.wait_for_selector("[role=alert]")
        assert "no valid key" in await window.page.locator("[role=alert]").inner_text()
        assert wrong not in await window.page.content()
        assert not await window.page.context.cookies()
        await window.open("/ui/login")


async def test_a_key_that_has_ended_leads_to_signing_in(guarded: Guarded, open_page: OpenWindow) -> None:
    """Also from a page that is open: it asks again, and goes there."""
    window = await open_page(guarded.url, "/ui", key=guarded.over)
    assert window.address == "/ui/login?next=%2Fui&refused=1"
    assert "not valid any more" in await window.text()
    assert not await window.page.context.cookies(), "the browser has forgotten it"


async def test_an_open_page_whose_key_ends_goes_to_signing_in(guarded: Guarded, open_page: OpenWindow) -> None:
    ending = add_key(guarded.keys, "ending", "read")

    async def is_taken() -> bool:
        return (await replace(guarded.visitor, key=ending).get("/ui")).status == 200

    await eventually(is_taken, within=60, what="the new key in the gateway")
    window = await open_page(guarded.url, "/ui", key=ending)
    await window.page.wait_for_selector("[data-live-mark]:not([hidden])")
    window.allow_statuses(401)
    keys.store(guarded.keys, keys.without_key(keys.load(guarded.keys), "ending")[0])
    await window.page.wait_for_url(f"{guarded.url}/ui/login?**")
    assert "not valid any more" in await window.text()


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/ui", "//evil.example/ui", "/\\evil.example", "/ui\\..\\..", "/uix", "javascript:alert(1)",
     "/ui/login", "/ui\n//evil.example", "ui", "", "/v1/functions", "/ui/assets/x", "/ui " + "a" * 3000],
)  # fmt: skip
async def test_nobody_is_led_elsewhere_after_signing_in(guarded: Guarded, address: str) -> None:
    form = (await guarded.visitor.page("/ui/login")).form("Sign in")
    answer = await guarded.visitor.send(form, key=guarded.admin, next=address)
    assert (answer.status, answer.location) == (303, "/ui")


async def test_one_is_led_back_to_where_one_wanted_to_be(guarded: Guarded) -> None:
    wanted = "/ui/runs?state=failed&function=a%20b"
    asked = await guarded.visitor.get(wanted)
    assert asked.status == 303
    form = (await guarded.visitor.page(asked.location)).form("Sign in")
    assert (await guarded.visitor.send(form, key=guarded.admin)).location == wanted


async def test_the_cookie(guarded: Guarded) -> None:
    form = (await guarded.visitor.page("/ui/login")).form("Sign in")
    for proto, secure in (("http", False), ("https", True)):
        answer = await guarded.visitor.ask(
            "POST", form.action, form.sent(key=guarded.admin), **{"X-Forwarded-Proto": proto}
        )
        words = [one.strip().lower() for one in answer.headers["Set-Cookie"].split(";")]
        assert words[0] == f"{COOKIE}={guarded.admin}"
        assert {"httponly", "samesite=lax", "path=/ui", f"max-age={COOKIE_SECONDS}"} <= set(words)
        assert ("secure" in words) is secure
        assert not [word for word in words if word.startswith("domain")]


async def test_only_pages_take_the_cookie(guarded: Guarded) -> None:
    known = replace(guarded.visitor, key=guarded.admin)
    for path in ("/v1/functions", "/v1/runs", "/v1/ids", "/openapi.json", "/ui/../v1/functions"):
        assert (await known.get(path)).status == 401, path
    assert (await known.ask("POST", "/v1/topics/echo.x", "x")).status == 401
    assert (await known.get("/ui")).status == 200
    assert (await known.ask("GET", "/ui", Authorization="Bearer nothing")).status == 303, "what is shown counts first"


@pytest.mark.parametrize(
    "line", ['g_state={"i_l":0}; {}', "{}; a b=c", "odd; =x; {}; ü=1", 'x="open; {}', "[]={}; a=%; {}"]
)
async def test_cookies_of_others_do_not_hide_ours(guarded: Guarded, line: str) -> None:
    shown = line.replace("{}", f"{COOKIE}={guarded.admin}")
    assert (await guarded.visitor.ask("GET", "/ui", Cookie=shown)).status == 200
    assert (await guarded.visitor.ask("GET", "/ui", Cookie=shown.replace(COOKIE, "other"))).status == 303


async def test_pages_answer_head_as_get_without_a_body(guarded: Guarded) -> None:
    known = replace(guarded.visitor, key=guarded.admin)
    for path in ("/ui", "/ui/", "/ui/runs", "/ui/functions/nobody", "/ui/login", "/"):
        read, asked = await known.get(path), await known.ask("HEAD", path)
        assert (asked.status, asked.body) == (read.status, b""), path
        for name in ("Content-Type", "Content-Security-Policy", "Cache-Control", "Location"):
            assert asked.headers.get(name) == read.headers.get(name), (path, name)
    assert (await guarded.visitor.ask("HEAD", "/ui/runs")).location == "/ui/login?next=%2Fui%2Fruns"
    for path in ("/ui/logout", "/ui/live"):
        assert (await known.ask("HEAD", path)).status == 405, "a change, and a stream that would not end"


async def test_one_character_too_many_leads_to_the_page(guarded: Guarded) -> None:
    answer = await replace(guarded.visitor, key=guarded.admin).get("/ui/")
    assert (answer.status, answer.location) == (303, "/ui")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_another_site_changes_nothing_with_the_cookie(guarded: Guarded, headers: dict[str, str]) -> None:
    known = replace(guarded.visitor, key=guarded.admin)
    given = headers if headers["Sec-Fetch-Site"] else {"Sec-Fetch-Site": "cross-site"} | headers
    for path in ("/ui/logout", "/ui/login"):
        answer = await known.ask("POST", path, "next=/ui&key=x", **given)
        assert answer.status == 403, path
        assert "Set-Cookie" not in answer.headers
        assert "own pages" in read_page(answer.text).text
