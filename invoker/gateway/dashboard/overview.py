"""The first page: what happens now."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.paths import HOME, live_url
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.sight import needs_nats


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get("/")
    async def front_door() -> Response:
        """Lead a browser that was given only the gateway's address to the dashboard."""
        return RedirectResponse(HOME, 303)

    @routes.get(HOME)
    async def overview(request: Request) -> Response:
        """What runs, what waits, what fails."""
        caller_of(request).check(Action.READ)
        return pages.page(request, "overview.html", title="Overview", section="overview", live=live_url())

    return routes
