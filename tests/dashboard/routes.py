"""Every page and action of the dashboard, taken from its routes, and which test drives each in a real browser.

A page is opened by the tests of `test_browser_pages.py`, which need an address of it: `ADDRESSES`. What else there is,
is driven by a test that says so with `@covers("POST /ui/…")`; at its end its windows must have asked for it.
`test_routes_covered.py` finds what nobody drives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import pytest

from invoker.gateway.dashboard.paths import url_for
from invoker.gateway.dashboard.routes import dashboard_routers
from invoker.gateway.gateway import Gateway
from tests.dashboard.world import HOSTILE_TOPIC, Day, attack

FUNCTIONS = ("take-order", "add-up", "import-rows", "report", "nightly", "collect", "evil")
RUNS = (
    ("order", "take-order"), ("bad", "take-order"), ("crash", "add-up"), ("flaky", "reserve"), ("picture", "paint"),
    ("talk", "import-rows"), ("chain", "collect"), ("bytes", "report"), ("evil", "evil"), ("evil-output", "evil"),
    ("running", "report"), ("cancelled", "report"), ("queued", "nightly"),
)  # fmt: skip
"""Word and function of runs that look different."""


def _with(path: str, **values: str) -> str:
    return f"{path}?{urlencode(values)}"


def runs_of(day: Day) -> list[str]:
    return [day.run(word, function) for word, function in RUNS]


covers = pytest.mark.covers
"""Says that a test drives these routes: `@covers("GET /ui/login", "POST /ui/login")`."""

ADDRESSES: dict[str, Callable[[Day], list[str]]] = {
    "/ui": lambda day: ["/ui"],
    "/ui/": lambda day: ["/ui/"],
    "/ui/runs": lambda day: [
        "/ui/runs",
        "/ui/runs?state=failed&reason=error",
        "/ui/runs?function=nobody",
        "/ui/runs?since=yesterdayish",
        _with("/ui/runs", text=attack("filter")[:60], topic=HOSTILE_TOPIC),
    ],
    "/ui/runs/{run_id}": lambda day: [url_for("run", run_id) for run_id in runs_of(day)],
    "/ui/runs/{run_id}/cancel": lambda day: [url_for("run", day.run("running", "report"), "cancel")],
    "/ui/runs/{run_id}/replay": lambda day: [
        url_for("run", run_id, "replay") for run_id in (day.run("order", "take-order"), day.run("evil", "evil"))
    ],
    "/ui/selection": lambda day: [
        "/ui/selection?do=cancel-all",
        f"/ui/selection?do=replay&run={day.run('crash', 'add-up')}",
    ],
    "/ui/functions": lambda day: ["/ui/functions", "/ui/functions?text=nothing"],
    "/ui/functions/{name}": lambda day: [url_for("function", name) for name in FUNCTIONS],
    "/ui/functions/{name}/pause": lambda day: [url_for("function", "report", "pause")],
    "/ui/functions/{name}/resume": lambda day: [url_for("function", "nightly", "resume")],
    "/ui/functions/{name}/publish": lambda day: [
        url_for("function", name, "publish") for name in ("take-order", "evil", "nightly")
    ],
    "/ui/reload": lambda day: ["/ui/reload"],
    "/ui/publish": lambda day: [
        "/ui/publish",
        "/ui/publish?topic=orders.new",
        _with("/ui/publish", topic=HOSTILE_TOPIC),
    ],
    "/ui/requests/{request_id}": lambda day: [
        url_for("request", day.requests[word])
        for word in ("order", "chain", "unmatched", "running", "queued", "evil", "evil-unmatched")
    ],
    "/ui/requests/{request_id}/cancel": lambda day: [url_for("request", day.requests["running"], "cancel")],
    "/ui/requests/{request_id}/replay": lambda day: [
        url_for("request", day.requests[word], "replay") for word in ("chain", "evil-unmatched")
    ],
    "/ui/topics": lambda day: ["/ui/topics", "/ui/topics?text=none"],
    "/ui/topics/{topic:path}": lambda day: [url_for("topic", one) for one in ("orders.new", HOSTILE_TOPIC)],
    "/ui/unmatched": lambda day: ["/ui/unmatched"],
    "/ui/explain": lambda day: [
        "/ui/explain",
        _with("/ui/explain", request=day.requests["unmatched"]),
        _with("/ui/explain", topic=HOSTILE_TOPIC, headers=f"X-A: {attack('asked')}", data=attack("asked")),
    ],
    "/ui/dead-letters": lambda day: ["/ui/dead-letters", "/ui/dead-letters?reason=no-such&topic=a..b"],
    "/ui/dead-letters/redrive": lambda day: [_with("/ui/dead-letters/redrive", id=day.hostile_dead)],
    "/ui/dead-letters/{dead_id}": lambda day: [url_for("dead-letter", one) for one in (day.dead, day.hostile_dead)],
    "/ui/dead-letters/{dead_id}/redrive": lambda day: [url_for("dead-letter", day.hostile_dead, "redrive")],
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
