"""Pictures of every page of the dashboard, for eyes: of an `invoker dev` of its own with runs of every kind on it.

    python scripts/dashboard_screenshots.py            every page in build/screenshots: desk and phone, light and dark
    python scripts/dashboard_screenshots.py runs       only pages whose file names have that word
    python scripts/dashboard_screenshots.py --docs     those of docs/dashboard.md, small, in docs/images

Needs the browser of the dashboard's tests (CONTRIBUTING.md).
"""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from invoker.gateway.dashboard.paths import url_for  # noqa: E402 - the path of the repository comes first
from tests.dashboard.browser import DESKTOP, PHONE, Window, open_window, running_chromium  # noqa: E402 - as above
from tests.dashboard.routes import ADDRESSES  # noqa: E402 - as above
from tests.dashboard.shop import Shop, open_shop  # noqa: E402 - as above

ALL, FOR_DOCS = ROOT / "build" / "screenshots", ROOT / "docs" / "images"
SIZES: dict[str, Any] = {"desktop": DESKTOP, "phone": PHONE}
MAX_BYTES = 60_000
COLOURS = 64
DARK = ("run-failed",)
# Draws the picture on a canvas and gives each pixel the nearest of the commonest colours.
PALETTE = """async ([data, colours]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height).data;
  const counts = new Map();
  for (let at = 0; at < pixels.length; at += 4) {
    const colour = (pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2];
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const palette = [];
  const far = (a, b) => [16, 8, 0].reduce((sum, by) => sum + Math.abs(((a >> by) & 255) - ((b >> by) & 255)), 0);
  const byCount = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  for (let least = 48; palette.length < colours && least > 0; least = Math.floor(least / 2)) {
    for (const colour of byCount) {
      if (palette.length < colours && palette.every((one) => far(one, colour) >= least)) palette.push(colour);
    }
  }
  const nearest = new Map();
  const indexes = new Uint8Array(pixels.length / 4);
  for (let at = 0; at < indexes.length; at++) {
    const colour = (pixels[at * 4] << 16) | (pixels[at * 4 + 1] << 8) | pixels[at * 4 + 2];
    if (!nearest.has(colour)) {
      const nearer = (best, one, index) => (far(one, colour) < far(palette[best], colour) ? index : best);
      nearest.set(colour, palette.reduce(nearer, 0));
    }
    indexes[at] = nearest.get(colour);
  }
  let text = "";
  for (let at = 0; at < indexes.length; at += 32768) text += String.fromCharCode(...indexes.subarray(at, at + 32768));
  return [image.width, image.height, palette, btoa(text)];
}"""
PICTURES = {
    "overview": lambda shop: "/ui",
    "runs": lambda shop: "/ui/runs",
    "run": lambda shop: url_for("run", shop.day.run("flaky", "reserve")),
    "run-failed": lambda shop: url_for("run", shop.day.run("crash", "add-up")),
    "request": lambda shop: url_for("request", shop.day.requests["chain"]),
    "function": lambda shop: url_for("function", "take-order"),
}
"""Those on docs/dashboard.md: name and address."""


async def _publish_wrong(window: Window, shop: Shop) -> None:
    await window.open(url_for("function", "take-order", "publish"))
    await _press(window, "Publish")


async def _replay_many(window: Window, shop: Shop) -> None:
    runs = [shop.day.run("crash", "add-up"), shop.day.run("order", "take-order"), "0" * 26]
    await window.open("/ui/selection?do=replay" + "".join(f"&run={one}" for one in runs))
    await _press(window, "Replay 2 runs")


async def _redrive_many(window: Window, shop: Shop) -> None:
    await window.open(f"/ui/dead-letters/redrive?id={shop.day.dead}&id={shop.day.hostile_dead}")
    await _press(window, "Send 2 events again")


async def _press(window: Window, button: str) -> None:
    async with window.page.expect_navigation():
        await window.page.get_by_role("button", name=button, exact=True).click()


ANSWERS: dict[str, Callable[[Window, Shop], Awaitable[None]]] = {
    "answer-publish-wrong": _publish_wrong,
    "answer-replay-many": _replay_many,
    "answer-redrive-many": _redrive_many,
}
"""Pages that only a form leads to, by what leads there. After all others: they change something."""


async def take_all(word: str) -> int:
    """Every page at every size and scheme; how many."""
    ALL.mkdir(parents=True, exist_ok=True)
    count = 0
    async with opened(calm=False) as (shop, window):
        for name, address in named(shop):
            if word not in name:
                continue
            for size, viewport in SIZES.items():
                await window.page.set_viewport_size(viewport)
                for scheme in ("light", "dark"):
                    await seen(window, address, scheme)
                    await window.page.screenshot(path=ALL / f"{name}-{size}-{scheme}.png", full_page=True)
                    count += 1
        for name, reached in ANSWERS.items():
            if word in name:
                await reached(window, shop)
                count += await taken_as_it_is(window, name)
    return count


async def taken_as_it_is(window: Window, name: str) -> int:
    """The page that the window is at, at every size and scheme; how many."""
    for size, viewport in SIZES.items():
        await window.page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            await window.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            await window.page.screenshot(path=ALL / f"{name}-{size}-{scheme}.png", full_page=True)
    return 2 * len(SIZES)


async def take_those_of_docs() -> list[str]:
    """The pictures of docs/dashboard.md; their names and sizes."""
    FOR_DOCS.mkdir(parents=True, exist_ok=True)
    told = []
    async with opened(calm=True) as (shop, window):
        for name, address in PICTURES.items():
            await window.page.set_viewport_size({"width": 1280, "height": 800})
            await seen(window, address(shop), "dark" if name in DARK else "light")
            data = await small(window, await window.page.screenshot())
            path = FOR_DOCS / f"dashboard-{name}.png"
            path.write_bytes(data)
            told.append(f"{path.relative_to(ROOT)} {len(data)} B")
            assert len(data) <= MAX_BYTES, told[-1]
    return told


@asynccontextmanager
async def opened(*, calm: bool) -> AsyncIterator[tuple[Shop, Window]]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_shop(Path(folder), calm=calm) as shop,
            running_chromium() as browser,
            open_window(browser, shop.url) as window,
        ):
            window.allow_statuses(404, 422)
            yield shop, window


async def seen(window: Window, address: str, scheme: str) -> None:
    """When this returns the page is there, and live where it is one that can be."""
    await window.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await window.open(address)
    if await window.page.locator("body[data-stream]").count():
        await window.page.wait_for_selector("[data-live-mark]:not([hidden])")
        await window.page.wait_for_timeout(300)  # the first news of the stream have the page drawn once more


def named(shop: Shop) -> list[tuple[str, str]]:
    """A file name and an address for every page."""
    found = []
    for template, made in ADDRESSES.items():
        if template == "/ui/":
            continue  # only leads to the overview
        words = re.sub(r"\W+", "-", template.removeprefix("/ui")).strip("-") or "overview"
        found += [(f"{words}-{number}", address) for number, address in enumerate(made(shop.day))]
    return [*found, ("login-0", "/ui/login"), ("not-found-0", url_for("run", "none"))]


async def small(window: Window, picture: bytes) -> bytes:
    """The picture with few colours, as PNG."""
    encoded = base64.b64encode(picture).decode()
    # In a window without a page: that of the dashboard takes pictures from nowhere.
    canvas = await window.page.context.new_page()
    try:
        width, height, palette, text = await canvas.evaluate(PALETTE, [encoded, COLOURS])
    finally:
        await canvas.close()
    indexes = base64.b64decode(text)
    lines = b"".join(b"\0" + indexes[at : at + width] for at in range(0, width * height, width))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(colour.to_bytes(3, "big") for colour in palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


if __name__ == "__main__":
    if "--docs" in sys.argv:
        print("\n".join(asyncio.run(take_those_of_docs())))
    else:
        print(asyncio.run(take_all(sys.argv[1] if len(sys.argv) > 1 else "")), f"pictures in {ALL}")
