"""Changes of functions: pause, resume, and reading the catalog again. Each asks once."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.errors import UnknownIdError
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.dashboard.forms import read_form
from invoker.gateway.dashboard.functions import function_now, present_catalog
from invoker.gateway.dashboard.paths import FUNCTIONS, RELOAD, url_for
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.door import caller_of
from invoker.gateway.functions import check_operates
from invoker.gateway.gateway import Gateway
from invoker.gateway.sight import needs_nats
from invoker.views import FunctionInfo

_QUESTIONS = {
    "pause": ("Pause {}?", "Pause it", "What runs goes on to its end. What comes stays queued; nothing is lost."),
    "resume": ("Resume {}?", "Resume it", "What is queued starts, as many at once as its concurrency allows."),
}


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(FUNCTIONS + "/{name}/pause")
    async def ask_pause(name: str, request: Request) -> Response:
        """Ask before a function is paused."""
        return await _question(name, request, "pause")

    @routes.get(FUNCTIONS + "/{name}/resume")
    async def ask_resume(name: str, request: Request) -> Response:
        """Ask before a function goes on."""
        return await _question(name, request, "resume")

    @routes.post(FUNCTIONS + "/{name}/pause")
    async def pause(name: str, request: Request) -> Response:
        """Keep the function's runs queued until it is resumed. Safe to repeat."""
        return await _switch(name, request, paused=True)

    @routes.post(FUNCTIONS + "/{name}/resume")
    async def resume(name: str, request: Request) -> Response:
        """Let the function's runs start again. Safe to repeat."""
        return await _switch(name, request, paused=False)

    @routes.get(RELOAD)
    async def ask_reload(request: Request) -> Response:
        """Ask before the catalog is read again."""
        caller_of(request).check(Action.ADMIN)
        catalog, _ = await present_catalog(gateway)
        return pages.question(
            request, "Read the catalog again?", action=RELOAD, yes="Read it again", back=FUNCTIONS, section="functions",
            facts=[
                ("In use", catalog.catalog),
                ("Functions", f"{len(catalog.functions):,}"),
                ("What happens", "The controller that answers reads its files now, without waiting for its next look."),
            ],
        )  # fmt: skip

    @routes.post(RELOAD)
    async def reload(request: Request) -> Response:
        """Let the controller that answers read its catalog now. Safe to repeat."""
        caller_of(request).check(Action.ADMIN)
        _ = (await read_form(request)).once
        await gateway.client.reload()
        await gateway.catalog.refresh()
        return RedirectResponse(query(FUNCTIONS, done="reloaded"), 303)

    async def _question(name: str, request: Request, verb: str) -> Response:
        info = await _operable(gateway, caller_of(request), name)
        question, yes, words = _QUESTIONS[verb]
        facts = [("Running now", f"{info.running:,}"), ("Queued now", f"{info.queued:,}"), ("What happens", words)]
        here = url_for("function", name)
        return pages.question(
            request, question.format(name), action=f"{here}/{verb}", yes=yes, back=here, section="functions",
            facts=facts,
        )  # fmt: skip

    async def _switch(name: str, request: Request, *, paused: bool) -> Response:
        await _operable(gateway, caller_of(request), name)
        _ = (await read_form(request)).once
        await (gateway.client.pause(name) if paused else gateway.client.resume(name))
        await gateway.catalog.refresh()  # so that open pages are drawn again
        return RedirectResponse(query(url_for("function", name), done="paused" if paused else "resumed"), 303)

    return routes


async def _operable(gateway: Gateway, caller: Caller, name: str) -> FunctionInfo:
    """A function that can run and that the caller may operate. Raises `UnknownIdError` or `ForbiddenError`."""
    info, _, _ = await function_now(gateway, caller, name)
    check_operates(caller, info)
    if info.status == "broken":
        raise UnknownIdError(f"the function {name!r} cannot run: its file is refused", function=name)
    return info
