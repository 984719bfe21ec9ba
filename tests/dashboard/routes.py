"""Every page and action of the dashboard, taken from its routes, and which test drives each in a real browser.

A page is opened by the tests of `test_browser_pages.py`, which need an address of it: `ADDRESSES`. What else there is,
is driven by a test that says so with `@covers("POST /ui/…")`; at its end its windows must have asked for it.
`test_routes_covered.py` finds what nobody drives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from invoker.gateway.dashboard.routes import dashboard_routers
from invoker.gateway.gateway import Gateway
from tests.dashboard.world import Day

covers = pytest.mark.covers
"""Says that a test drives these routes: `@covers("GET /ui/login", "POST /ui/login")`."""

ADDRESSES: dict[str, Callable[[Day], list[str]]] = {
    "/ui": lambda day: ["/ui"],
}
"""For each page, addresses at which it shows something of every kind."""


def routes_of(gateway: Gateway) -> set[str]:
    """`GET /ui/runs/{run_id}` for each."""
    return {
        f"{method} {getattr(route, 'path', '')}"
        for router in dashboard_routers(gateway)
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }


def is_asked(route: str, asked: Iterable[tuple[str, str]]) -> bool:
    """Whether one of these requests (method, path) went to the route."""
    method, _, template = route.partition(" ")
    parts = re.split(r"\{(\w+)(:path)?\}", template)
    pattern = re.escape(parts[0])
    for at in range(1, len(parts), 3):
        pattern += (".+" if parts[at + 1] else "[^/]+") + re.escape(parts[at + 2])
    return any(one == method and re.fullmatch(pattern, path) for one, path in asked)


def covered_by(item: Any) -> set[str]:
    """The routes that a test function says it drives."""
    marks = getattr(item, "pytestmark", [])
    return {route for mark in marks if mark.name == "covers" for route in mark.args}
