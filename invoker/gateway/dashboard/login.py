"""Signing in and out: a page that takes an API key or a token, and keeps it in the browser's cookie."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.errors import UnauthorizedError
from invoker.gateway.access.login import CallerLogin
from invoker.gateway.dashboard import session
from invoker.gateway.dashboard.forms import read_form
from invoker.gateway.dashboard.paths import HOME, LOGIN, safe_return
from invoker.gateway.dashboard.rendering import bare_page
from invoker.gateway.gateway import Gateway

EXPIRED = "The key is not valid any more. Sign in with another one."


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False)
    settings = gateway.settings
    takes_any = settings.gateway_keys is not None or settings.gateway_jwks is not None
    login = CallerLogin(settings)

    @routes.get(LOGIN)
    async def login_page(request: Request) -> Response:
        """The page for signing in."""
        words = EXPIRED if request.query_params.get("refused") else None
        return _page(safe_return(request.query_params.get("next")), words)

    @routes.post(LOGIN)
    async def sign_in(request: Request) -> Response:
        """Take the key when it is one, and go on to where the reader wanted to be."""
        form = await read_form(request)
        back, credential = safe_return(form.get("next")), form.get("key", "").strip()
        try:
            if not session.is_showable(credential):
                raise UnauthorizedError("no key or token looks like that")
            await login(Headers({"authorization": f"Bearer {credential}"}))
        except UnauthorizedError as error:
            return _page(back, f"That is no valid key or token: {error.message}.", 401)
        answer = RedirectResponse(back, 303)
        session.keep(answer, request, credential)
        return answer

    @routes.post(f"{HOME}/logout")
    async def sign_out(request: Request) -> Response:
        """Forget the key."""
        answer = RedirectResponse(LOGIN, 303)
        session.forget(answer)
        return answer

    def _page(back: str, words: str | None, status: int = 200) -> Response:
        return bare_page("login.html", "Sign in", status, back=back, words=words, takes_any=takes_any)

    return routes
