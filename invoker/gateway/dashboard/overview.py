"""The first page: what happens now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard import overview_view as view
from invoker.gateway.dashboard.paths import HOME, live_url
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dashboard.run_filters import UNFINISHED, RunsQuery
from invoker.gateway.dashboard.running_now import running_now
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_figures import HourFigures
from invoker.gateway.sight import Sight, needs_nats
from invoker.quantities import count as counted


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get("/")
    async def front_door() -> Response:
        """Lead a browser that was given only the gateway's address to the dashboard."""
        return RedirectResponse(HOME, 303)

    @routes.get(f"{HOME}/")
    async def same_page() -> Response:
        """Lead whoever typed one character too many to the page."""
        return RedirectResponse(HOME, 303)

    @routes.get(HOME)
    async def overview(request: Request) -> Response:
        """What runs, what waits, what fails."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        hour, going, letters = await asyncio.gather(hour_of(sight), running_now(sight), gateway.dead.present())
        catalog = gateway.catalog
        functions = [one for one in catalog.present.functions if sight.caller.may(Action.READ, function=one.name)]
        dead_count, dead_more, dead = view.seen_letters(sight, letters)
        return pages.page(
            request, "overview.html", title="Overview", section="overview", live=live_url(),
            problem=catalog.problem, figures=view.figures(functions, hour, datetime.now(UTC)), going=going,
            rate=view.rate_drawing(hour.minutes), is_whole=hour.is_whole, reasons=view.reason_shares(hour),
            slowest=view.slowest(hour), broken=[(one, view.place_of(one)) for one in view.broken(functions)],
            rate_minutes=counted(view.RATE_MINUTES, "minute"), unfinished=RunsQuery(states=UNFINISHED).address(),
            dead_count=dead_count, dead_more=dead_more, dead=dead,
        )  # fmt: skip

    return routes


async def hour_of(sight: Sight) -> HourFigures:
    """The last hour of what the caller may see."""
    figures = sight.gateway.runs.figures
    if sight.caller.sees_everything():
        return figures.whole()
    return await figures.part(lambda function, topic: sight.may(Action.READ, topic, function))
