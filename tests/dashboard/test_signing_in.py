"""Signing in and out with a browser."""

from __future__ import annotations

from tests.dashboard.conftest import OpenWindow
from tests.gateway.stack import Stack


async def test_smoke(stack: Stack, open_page: OpenWindow) -> None:
    window = await open_page(stack.url, "/ui")
    await window.page.wait_for_selector("[data-live-mark]:not([hidden])")
    assert "Overview" in await window.text()
    assert ("GET", "/ui/live") in window.asked
