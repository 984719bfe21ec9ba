"""Somebody who reads the dashboard's pages over plain HTTP, with a cookie or without one.

seen = await visitor.get("/ui/runs?state=failed")
done = await visitor.send(seen.page.form("Cancel"), once="…")    # follows nothing: done.status == 303
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from invoker.gateway.dashboard.forms import FORM
from invoker.gateway.dashboard.session import COOKIE
from tests.dashboard.html_page import Element, PageForm, read_page


@dataclass(frozen=True)
class Seen:
    """An answer: its status, headers (any case) and text."""

    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def page(self) -> Element:
        return read_page(self.text)

    @property
    def location(self) -> str:
        return str(self.headers["Location"])


@dataclass(frozen=True)
class Visitor:
    """A browser without anything but addresses and forms. `key` is who has signed in, as his cookie."""

    http: aiohttp.ClientSession
    key: str | None = None

    async def ask(self, method: str, address: str, body: str | bytes | None = None, **headers: str) -> Seen:
        given = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        if self.key is not None:
            given["Cookie"] = f"{COOKIE}={self.key}"
        if body is not None:
            given["Content-Type"] = FORM
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, address, data=body, headers=given, allow_redirects=False) as answer:
            return Seen(answer.status, answer.headers, await answer.read())

    async def get(self, address: str, **headers: str) -> Seen:
        """A page, whatever its status."""
        return await self.ask("GET", address, **headers)

    async def page(self, address: str) -> Element:
        """A page that must be there."""
        seen = await self.get(address)
        assert seen.status == 200, (seen.status, address, seen.location if seen.status == 303 else seen.page.text)
        return seen.page

    async def send(self, form: PageForm, **changed: str | Sequence[str] | None) -> Seen:
        """Send a form as it was drawn, with these fields changed; where it leads is not followed."""
        if form.method == "get":
            return await self.get(f"{form.action}?{form.sent(**changed)}")
        return await self.ask("POST", form.action, form.sent(**changed))


@asynccontextmanager
async def visiting(url: str, key: str | None = None) -> AsyncIterator[Visitor]:
    """A visitor of the gateway at that address."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Visitor(http, key)
