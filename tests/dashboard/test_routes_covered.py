"""No page and no action of the dashboard is without a test in a real browser."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.routes import ADDRESSES, covered_by, is_asked, routes_of
from tests.gateway.stack import Stack

HERE = Path(__file__).parent


def functions_here() -> dict[str, Any]:
    """Every test function of this folder: of files, not of what this session happened to collect."""
    modules = [importlib.import_module(f"tests.dashboard.{path.stem}") for path in sorted(HERE.glob("test_*.py"))]
    return {
        f"{module.__name__}.{name}": found
        for module in modules
        for name, found in vars(module).items()
        if name.startswith("test_") and callable(found)
    }


async def test_every_route_is_driven(stack: Stack, record_property: Any) -> None:
    routes = routes_of(stack.gateway)
    driven = {f"GET {template}" for template in ADDRESSES} | set().union(*map(covered_by, functions_here().values()))
    assert not routes - driven, "pages and actions without a test in a browser (tests/dashboard/routes.py)"
    assert not driven - routes, "tests of what is not there"
    methods = Counter(route.partition(" ")[0] for route in routes)
    record_property("told", f"dashboard: {len(routes)} routes driven in a browser ({dict(sorted(methods.items()))})")


def test_who_says_that_he_drives_a_route_has_a_browser() -> None:
    for name, function in functions_here().items():
        if covered_by(function):
            assert "open_page" in function.__code__.co_varnames[: function.__code__.co_argcount], name


@pytest.mark.parametrize(
    ("route", "path", "is_it"),
    [
        ("GET /ui/runs/{run_id}", "/ui/runs/abc", True),
        ("GET /ui/runs/{run_id}", "/ui/runs/abc/log", False),
        ("GET /ui/runs/{run_id}/log", "/ui/runs/abc/log", True),
        ("GET /ui/topics/{topic:path}", "/ui/topics/a/b", True),
        ("POST /ui/runs/{run_id}", "/ui/runs/abc", False),
    ],
)
def test_requests_are_told_apart(route: str, path: str, is_it: bool) -> None:
    assert is_asked(route, [("GET", path)]) is is_it
