"""What axe-core finds on a page: rules about names, roles, contrast, headings, the keyboard."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

from tests.dashboard.browser import axe_source

GRAVE = {"serious", "critical"}
_RUN = """async (chosen) => {
  const found = await axe.run(document, { resultTypes: ["violations"], ...chosen });
  return found.violations.map((one) => ({
    rule: one.id, impact: one.impact, help: one.help,
    at: one.nodes.slice(0, 3).map((node) => node.target.join(" ") + ": " + (node.failureSummary ?? "").slice(0, 300)),
  }));
}"""


async def grave_faults(page: Page, *, only: tuple[str, ...] = ()) -> list[str]:
    """Serious and critical violations on the page as it is, in words; `only` these rules when some are named."""
    await page.evaluate("typeof axe === 'undefined'") and await page.evaluate(axe_source())
    chosen: dict[str, Any] = {"runOnly": list(only)} if only else {}
    found = await page.evaluate(_RUN, chosen)
    return [
        f"{one['impact']} {one['rule']}: {one['help']}: {'; '.join(one['at'])}"
        for one in found if one["impact"] in GRAVE
    ]  # fmt: skip
