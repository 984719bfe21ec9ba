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
  const found = [...document.querySelectorAll("body *")].filter(outside).slice(-3);
  return [`${document.documentElement.scrollWidth} px`, ...found.map((one) => one.outerHTML.slice(0, 200))];
}"""
CUT_TABLES = """() => [...document.querySelectorAll(".scroll")]
  .filter((one) => one.querySelector("table") && one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.getAttribute("aria-label")}: ${one.scrollWidth} px of ${one.clientWidth}`)"""
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


@pytest.mark.timeout(600)  # some sixty pages, each judged twice
@pytest.mark.parametrize("about", ["runs", "the rest"])
async def test_every_page_is_for_everybody(shop: Shop, open_page: OpenWindow, about: str) -> None:
    """On a desk by day and on a phone by night: nothing serious for axe-core, nothing wider than the window, no table
    that has to be pushed sideways on a phone, one main heading, and no markup that a publisher or a function wrote."""
    window = await open_page(shop.url)
    chosen = [one for one in addresses(shop) if one.startswith("/ui/runs") is (about == "runs")]
    faults = []
    for address in chosen:
        await window.page.set_viewport_size(DESKTOP)
        await window.page.emulate_media(color_scheme="light")
        await window.open(address)
        await settled(window)
        found = [*await grave_faults(window.page), *await too_wide(window)]
        await window.page.set_viewport_size(PHONE)
        await window.page.emulate_media(color_scheme="dark")
        found += [f"phone, dark: {one}" for one in [*await grave_faults(window.page), *await too_wide(window)]]
        found += [f"phone, cut table: {one}" for one in await window.page.evaluate(CUT_TABLES)]
        found += [f"markup of others: {one}" for one in await window.page.evaluate(INTRUDERS)]
        if await window.page.locator("h1").count() != 1:
            found.append("not one main heading")
        faults += [f"{address}: {one}" for one in found]
    assert not faults, "\n".join(faults)


async def too_wide(window: Window) -> list[str]:
    return [f"too wide: {one}" for one in await window.page.evaluate(OVERFLOW)]


async def test_faults_are_found(shop: Shop, open_page: OpenWindow) -> None:
    """What the test above looks for is seen when it is there."""
    window = await open_page(shop.url, "/ui/runs", viewport=PHONE)
    await window.page.evaluate(
        """() => {
          const main = document.querySelector("main");
          main.append(document.createElement("input"), document.createElement("p"));
          Object.assign(main.lastChild.style, { width: "800px", color: "#ccc", background: "#fff" });
          main.lastChild.textContent = "pale and wide";
        }"""
    )
    found = await grave_faults(window.page)
    assert [one for one in found if " label: " in one]
    assert [one for one in found if " color-contrast: " in one]
    assert [one for one in await too_wide(window) if "pale and wide" in one]
