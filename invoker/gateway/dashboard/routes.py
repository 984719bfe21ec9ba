"""Every group of pages of the dashboard, in one list."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from starlette.routing import Route

from invoker.gateway.dashboard import (
    assets,
    dead_letters,
    function_changes,
    functions,
    live,
    login,
    overview,
    payloads,
    publish,
    request_actions,
    request_page,
    run_actions,
    run_log,
    run_page,
    runs_list,
    selection,
    topics,
)
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.gateway import Gateway


def dashboard_routers(gateway: Gateway) -> list[APIRouter]:
    """The routes, group by group; none when the dashboard is switched off."""
    if not gateway.settings.gateway_dashboard:
        return []
    pages = Pages(gateway)
    groups = (
        overview,
        runs_list,
        selection,
        request_page,
        request_actions,
        run_page,
        run_actions,
        functions,
        function_changes,
        publish,
        dead_letters,
        topics,
    )
    drawn = [*(group.router(gateway, pages) for group in groups), login.router(gateway)]
    _answer_head(drawn)
    return [*drawn, *(group.router(gateway) for group in (assets, live, run_log, payloads))]


def _answer_head(routers: Iterable[APIRouter]) -> None:
    """Have every page answer HEAD as it answers GET; the server sends no body then. Streams would not end, so theirs is
    not among these routers."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, Route) and route.methods and "GET" in route.methods:
                route.methods.add("HEAD")
