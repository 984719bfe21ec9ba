"""Every page of a real `invoker dev` in a real browser: whole, calm, for everybody, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.dashboard.accessibility import grave_faults
from tests.dashboard.browser import DESKTOP, PHONE, Window
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.routes import ADDRESSES
from tests.dashboard.shop import Shop, open_shop

OVERFLOW = """() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  const outside = (one) => one.getBoundingClientRect().right > wide + 1 && !one.closest(".scroll, pre");
  return [...document.querySelectorAll("body *")].filter(outside).slice(-3).map((one) => one.outerHTML.slice(0, 200));
}"""
INTRUDERS = """() => [...document.querySelectorAll("*")]
  .filter((one) => [...one.attributes].some((each) => each.name.startsWith("on")) || one.matches("img[src=x]"))
  .map((one) => one.outerHTML.slice(0, 200))"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


def addresses(shop: Shop) -> list[str]:
    """All pages at all of their addresses."""
    return [address for made in ADDRESSES.values() for address in made(shop.day)]


async def settled(window: Window) -> None:
    """When this returns the page has said that it is live, where it is one that can be."""
    if await window.page.locator("body[data-stream]").count():
        await window.page.wait_for_selector("[data-live-mark]:not([hidden])")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_for_everybody(shop: Shop, open_page: OpenWindow, scheme: str) -> None:
    """On a desk and on a phone: nothing serious for axe-core, nothing wider than the window, one heading, and no markup
    that a publisher or a function wrote."""
    window = await open_page(shop.url, color_scheme=scheme)
    faults = []
    for address in addresses(shop):
        answer = await window.open(address)
        assert answer is not None
        await settled(window)
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            await window.page.set_viewport_size(size)
            found = await grave_faults(window.page)
            found += [f"too wide: {one}" for one in await window.page.evaluate(OVERFLOW)]
            faults += [f"{address} {name} {scheme}: {one}" for one in found]
        faults += [f"{address}: markup of others: {one}" for one in await window.page.evaluate(INTRUDERS)]
        if await window.page.locator("h1").count() != 1:
            faults.append(f"{address}: not one main heading")
    assert not faults, "\n".join(faults)
