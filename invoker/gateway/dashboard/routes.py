"""Every group of pages of the dashboard, in one list."""

from __future__ import annotations

from fastapi import APIRouter

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
    drawn = [group.router(gateway, pages) for group in groups]
    return [*drawn, *(group.router(gateway) for group in (assets, live, login, run_log, payloads))]
