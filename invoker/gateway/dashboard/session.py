"""Signing in with a browser: a key or token in a cookie that no script and no other site can use.

Browsers cannot add a header to the pages they open, so who has signed in shows his key as a cookie, and only below the
dashboard's own addresses: the HTTP API never takes it. Whoever changes something with it must do so from one of our own
pages. There is no session to keep: every gateway takes the cookie, as long as the key is good.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invoker import wire
from invoker.errors import ForbiddenError, InvokerError
from invoker.gateway.access.web_pages import is_same_origin
from invoker.gateway.answers import problem
from invoker.gateway.dashboard.paths import HOME, LOGIN, is_open, is_ours

COOKIE = "invoker_session"
COOKIE_SECONDS = 12 * 3600
_SHOWABLE = re.compile(r"[A-Za-z0-9_.~+/=-]{1,3900}")
"""Keys and tokens that fit into a cookie as they are; browsers keep 4096 bytes."""
_SESSION = "invoker.session"

Refusal = Callable[[int, bytes, str | None, bool], Response]
"""From a status, a problem document, the address that was asked for (None of a change), and whether a cookie was shown,
to a page."""


class BrowserSession:
    """Wraps the gateway's application, outside of its door: a cookie becomes a header, a refusal a page."""

    def __init__(self, app: ASGIApp, refusal: Refusal) -> None:
        self._app = app
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_ours(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        shown = cookie_of(headers)
        if shown is not None and "authorization" not in headers and "x-api-key" not in headers:
            if not is_open(scope["path"]):
                scope = {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer " + shown.encode())]}
            scope[_SESSION] = True
        page = _Page(scope, headers, send, self._refusal)
        foreign = _foreign(scope, headers)
        if foreign is not None:
            await problem(foreign)(scope, receive, page.send)
        else:
            await self._app(scope, receive, page.send)


def has_session(request: Request) -> bool:
    """Whether the caller is known by the cookie, and so can sign out."""
    return bool(request.scope.get(_SESSION))


def cookie_of(headers: Headers) -> str | None:
    """The key or token in the call's cookie, None without one, or with what cannot be one."""
    for line in headers.getlist("cookie"):
        # As browsers write them: others' cookies on this host, however odd, do not hide ours.
        found = cookie_parser(line).get(COOKIE)
        if found is not None and _SHOWABLE.fullmatch(found):
            return found
    return None


def is_showable(credential: str) -> bool:
    """Whether a cookie can carry it."""
    return _SHOWABLE.fullmatch(credential) is not None


def keep(answer: Response, request: Request, credential: str) -> None:
    """Have the browser show this key from now on, until it is closed or half a day is over."""
    secure = _is_encrypted(request)
    answer.set_cookie(
        COOKIE, credential, max_age=COOKIE_SECONDS, path=HOME, secure=secure, httponly=True, samesite="lax"
    )


def forget(answer: Response) -> None:
    """Have the browser show nothing from now on."""
    answer.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="lax")


def _is_encrypted(request: Request) -> bool:
    """Whether the browser came by https. Who lies about it only keeps his own browser from sending the cookie."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").strip() == "https"


def _foreign(scope: Scope, headers: Headers) -> InvokerError | None:
    """The refusal of a change that another site's page asks for with the reader's cookie."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS") or not (scope.get(_SESSION) or is_open(scope["path"])):
        return None
    if headers.get("sec-fetch-site") == "same-origin":
        return None  # a browser's word, which no page can choose; right behind every proxy
    origin = headers.get("origin")
    if "sec-fetch-site" not in headers and origin is not None and is_same_origin(origin, headers.get("host", "")):
        return None
    return ForbiddenError(
        "only the dashboard's own pages may change something here", hint="open the page, and try again"
    )


class _Page:
    """The answer of a call from a browser: a problem document becomes a page, or leads to the page for signing in."""

    def __init__(self, scope: Scope, headers: Headers, send: Send, refusal: Refusal) -> None:
        self._scope = scope
        self._send = send
        self._refusal = refusal
        self._reads_pages = "text/html" in headers.get("accept", "")
        self._begun: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            if self._reads_pages and kind.startswith(wire.CONTENT_TYPE_PROBLEM):
                self._begun = message
                return
        elif self._begun is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._answer(self._begun)
            return
        await self._send(message)

    async def _answer(self, begun: Message) -> None:
        had_session = bool(self._scope.get(_SESSION))
        answer = self._refusal(begun["status"], self._body, _asked_for(self._scope), had_session)
        if begun["status"] == 401 and had_session:
            forget(answer)
        kept = [
            (name, value)
            for name, value in begun["headers"]
            if name.lower() in (b"x-request-id", b"retry-after", b"ratelimit", b"ratelimit-policy", b"connection")
        ]
        await self._send({**begun, "status": answer.status_code, "headers": [*answer.raw_headers, *kept]})
        await self._send({"type": "http.response.body", "body": bytes(answer.body)})


def _asked_for(scope: Scope) -> str | None:
    """The page that was asked for, to come back to; None of a change."""
    if scope["method"] not in ("GET", "HEAD"):
        return None
    path = quote(scope["path"])
    return f"{path}?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else path


def login_address(back: str, *, refused: bool = False) -> str:
    """The page for signing in, which leads back to `back`."""
    words = "&refused=1" if refused else ""
    return f"{LOGIN}?next={quote(back, safe='')}{words}"
