"""The door: what every call passes before it reaches a route, and every answer after it. Plain ASGI, so bodies stream.

In this order: a name for the call (`X-Request-Id`) and its trace; who is calling; how often he may; then the route. On
the way out: headers that hold for every answer, the count, and the audit line of calls that change something.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invoker.errors import ContentRefusedError, InvokerError, UnauthorizedError
from invoker.gateway.access.scopes import Caller
from invoker.gateway.answers import problem, unexpected

CALLER, CALL_ID, TRACEPARENT = "invoker.caller", "invoker.call_id", "invoker.traceparent"
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_CALL_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = structlog.get_logger(component="gateway")


class Login(Protocol):
    """Finds who is calling."""

    async def __call__(self, headers: Headers) -> Caller | None:
        """The caller, None when nothing was shown. Raises `UnauthorizedError` when what was shown is not valid."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """What is left of a caller's rate: headers for the answer."""

    headers: Mapping[str, str]


class Limiter(Protocol):
    """Counts the calls of keys and addresses."""

    def admit(self, caller: Caller | None, address: str) -> Rates:
        """Count one call. Raises `RateLimitedError` when it is one too many."""
        ...


class Witness(Protocol):
    """Is told of every finished call: counts it, and writes the audit line of one that changes something."""

    def finished(self, call: Call) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call, as counted and audited. `route` is the path's template, so its values are bounded."""

    id: str
    method: str
    route: str
    path: str
    status: int
    seconds: float
    caller: str
    address: str


class Door:
    """Wraps the gateway's application. `is_open` says which paths need no login here (they have their own, or none)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        login: Login,
        limiter: Limiter,
        witness: Witness,
        is_open: Callable[[str], bool],
        address_of: Callable[[Scope], str],
        body_seconds: float,
    ) -> None:
        self._app = app
        self._login = login
        self._limiter = limiter
        self._witness = witness
        self._is_open = is_open
        self._address_of = address_of
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        passage = _Passage(scope, headers, send)
        address = self._address_of(scope)
        try:
            await self._enter(scope, headers, address, passage)
            await self._app(scope, self._patient(receive), passage.send)
        except InvokerError as error:
            await passage.refuse(error)
        except ClientDisconnect:
            passage.status = passage.status or 499  # nobody is there to read it
        except Exception:  # whatever it is, no caller sees our traceback
            _log.exception("call failed", call_id=passage.call_id, path=scope["path"])
            await passage.refuse(unexpected())
        finally:
            self._witness.finished(passage.call(address, time.perf_counter() - began))

    async def _enter(self, scope: Scope, headers: Headers, address: str, passage: _Passage) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise ContentRefusedError(
                f"a body with Content-Encoding {encoding[:40]!a} is not taken: events are bytes as they are",
                hint="send it without the header, or as what it is (Content-Type: application/gzip)",
            )
        caller = None
        if not self._is_open(scope["path"]) and scope["method"] != "OPTIONS":
            caller = await self._login(headers)
            if caller is None:
                raise UnauthorizedError(
                    "this call needs an API key or a token", hint="Authorization: Bearer KEY, or X-Api-Key: KEY"
                )
        scope[CALLER] = caller
        passage.caller = caller
        passage.extra = self._limiter.admit(caller, address).headers

    def _patient(self, receive: Receive) -> Receive:
        """The body, whose next part must come in time: a caller that stops in the middle holds nothing for ever."""
        done = False

        async def next_part() -> Message:
            nonlocal done
            if done:
                return await receive()  # only waits for the caller to go
            try:
                async with asyncio.timeout(self._body_seconds):
                    message = await receive()
            except TimeoutError:
                raise ClientDisconnect from None
            done = not message.get("more_body", False)
            return message

        return next_part


class _Passage:
    """One call on its way through: its names, and what has been answered."""

    def __init__(self, scope: Scope, headers: Headers, send: Send) -> None:
        self._scope = scope
        self._send = send
        given = headers.get("x-request-id", "")
        self.call_id = given if _CALL_ID.fullmatch(given) else secrets.token_hex(13)
        self.caller: Caller | None = None
        self.extra: Mapping[str, str] = {}
        self.status = 0
        trace = headers.get("traceparent", "")
        self.traceparent = trace if _TRACEPARENT.fullmatch(trace) else None
        scope[CALL_ID], scope[TRACEPARENT] = self.call_id, self.traceparent

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.call_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
            for name, value in self.extra.items():
                headers[name] = value
        await self._send(message)

    async def refuse(self, error: InvokerError) -> None:
        """Answer with the error, unless an answer has begun: then all that is left is to break off."""
        if self.status:
            _log.warning("answer broken off", call_id=self.call_id, error=error.message, code=error.code)
            raise error
        answer = problem(error, instance=self._scope["path"])
        await answer(self._scope, _nothing, self.send)

    def call(self, address: str, seconds: float) -> Call:
        route = getattr(self._scope.get("route"), "path", None)
        return Call(
            self.call_id, self._scope["method"], route or "(none)", self._scope["path"], self.status, seconds,
            self.caller.name if self.caller else "-", address,
        )  # fmt: skip


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def caller_of(request: Request) -> Caller:
    """Who is calling. Raises `UnauthorizedError` where the door let somebody in without asking."""
    caller: Any = request.scope.get(CALLER)
    if not isinstance(caller, Caller):
        raise UnauthorizedError("this call needs an API key or a token")
    return caller


def passed_on(request: Request) -> dict[str, str]:
    """The headers that a call's event carries on through run, chain and result: its name and its trace."""
    given = {"X-Request-Id": request.scope[CALL_ID], "traceparent": request.scope[TRACEPARENT]}
    if request.scope[TRACEPARENT] and (state := request.headers.get("tracestate")):
        given["tracestate"] = state[:512]
    return {name: value for name, value in given.items() if value}
