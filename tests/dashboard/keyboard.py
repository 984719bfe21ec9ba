"""A reader without a mouse."""

from __future__ import annotations

import pytest

from tests.dashboard.browser import Window

_WHERE = "(document.activeElement.innerText || document.activeElement.name || '').trim()"
_OUTLINE = """(() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
})()"""


async def focused(window: Window) -> str:
    """What the keyboard is on: its words, or the name of a field."""
    return str(await window.page.evaluate(_WHERE))


async def tab_to(window: Window, words: str) -> None:
    """Go on with the Tab key until the keyboard is on what says that, and is seen to be."""
    for _ in range(150):
        await window.page.keyboard.press("Tab")
        if await focused(window) == words:
            assert await window.page.evaluate(_OUTLINE) >= 2, f"nobody sees that the keyboard is on {words!r}"
            return
    pytest.fail(f"{words!r} cannot be reached with the keyboard on {window.address}")
