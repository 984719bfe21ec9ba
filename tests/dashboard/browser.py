"""The system's Chromium, and windows of it that notice what a reader's browser would complain about.

A window fails its test at the end for: an error on the console, an error of a script, a violation of the content
security policy, a request to another host, a request that failed. What a test does on purpose it allows with
`allow_statuses`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    async_playwright,
    expect,
)

from invoker.gateway.dashboard.paths import HOME
from invoker.gateway.dashboard.session import COOKIE
from tests.dashboard import without_network_news
from tests.skips import without

SWITCH = "INVOKER_REQUIRE_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).parents[2] / "build" / "axe" / "axe.min.js"
"""Where `scripts/fetch-axe` puts the rules of accessibility."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 60_000
"""Until a test gives up on what must come. Long, since it costs only who fails."""
expect.set_options(timeout=PATIENCE_MS)
WATCHING = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI} (${event.sourceFile})`);
});
"""


def program() -> str:
    """The browser; without one the test is skipped, or fails where INVOKER_REQUIRE_BROWSER is set."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    return found or without(f"there is no browser here ({', '.join(PROGRAMS)})", needed_if=SWITCH)


def axe_source() -> str:
    """The text of axe-core; without it the test is skipped, or fails where INVOKER_REQUIRE_BROWSER is set."""
    if not AXE.exists():
        without("there is no axe-core here (scripts/fetch-axe)", needed_if=SWITCH)
    return AXE.read_text()


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """The system's browser without a screen, until this is left."""
    path = program()
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=without_network_news.__file__,
            env=dict(os.environ) | {without_network_news.PROGRAM_VARIABLE: path},
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=PATIENCE_MS,
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Window:
    """A page of the browser with its own cookies, at one gateway."""

    page: Page
    url: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request that it made."""
    complaints: list[str] = field(default_factory=list)
    _allowed: set[int] = field(default_factory=set)

    async def open(self, address: str) -> Response | None:
        """Go to one of the gateway's addresses."""
        return await self.page.goto(self.url + address, wait_until="domcontentloaded")

    async def text(self) -> str:
        """All that is seen on the page."""
        return await self.page.locator("body").inner_text()

    @property
    def address(self) -> str:
        """Path and query of where it is."""
        return self.page.url.removeprefix(self.url)

    def allow_statuses(self, *statuses: int) -> None:
        """Take answers with these statuses for what the test wants."""
        self._allowed |= set(statuses)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            words = message.text
            if "Failed to load resource" in words and any(f"status of {status} " in words for status in self._allowed):
                return
            self.complaints.append(f"console {message.type}: {words} ({message.location})")

    def sees(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("data", "blob"):
            return
        self.asked.append((request.method, address.path))
        if not request.url.startswith(f"{self.url}/"):
            self.complaints.append(f"asks another host: {request.url}")

    def failed(self, request: Request) -> None:
        # A page that is left ends its stream, and a download takes an address off the page.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.complaints.append(f"failed: {request.method} {request.url}: {request.failure}")

    def answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._allowed:
            self.complaints.append(f"{response.status}: {response.request.method} {response.url}")


@asynccontextmanager
async def open_window(browser: Browser, url: str, key: str | None = None, **options: Any) -> AsyncIterator[Window]:
    """A window with cookies of its own; `options` are those of a browser context (`viewport`, `color_scheme`,
    `java_script_enabled`, …). `key` is who has signed in."""
    context: BrowserContext = await browser.new_context(**({"viewport": DESKTOP} | options))
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(WATCHING)
    if key is not None:
        cookie: Any = {
            "name": COOKIE,
            "value": key,
            "domain": "127.0.0.1",
            "path": HOME,
            "httpOnly": True,
            "sameSite": "Lax",
        }
        await context.add_cookies([cookie])
    try:
        window = Window(await context.new_page(), url)
        window.page.on("console", window.heard)
        window.page.on("pageerror", lambda error: window.complaints.append(f"script: {error}"))
        context.on("request", window.sees)
        context.on("requestfailed", window.failed)
        context.on("response", window.answered)
        yield window
        assert not window.complaints, "\n".join(dict.fromkeys(window.complaints))
    finally:
        await context.close()
