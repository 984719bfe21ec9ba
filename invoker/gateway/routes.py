"""Every group of routes of the gateway, in one list."""

from __future__ import annotations

from fastapi import APIRouter

from invoker.gateway import (
    calls,
    dead_letters,
    event_stream,
    functions,
    gitfaas,
    ids,
    openapi,
    publishing,
    requests,
    run_logs,
    runs,
)
from invoker.gateway.dashboard.routes import dashboard_routers
from invoker.gateway.gateway import Gateway


def routers(gateway: Gateway) -> list[APIRouter]:
    """The routes, group by group."""
    groups = (
        publishing, calls, ids, requests, runs, run_logs, event_stream, functions, dead_letters, openapi, gitfaas,
    )  # fmt: skip
    return [*(group.router(gateway) for group in groups), *dashboard_routers(gateway)]
