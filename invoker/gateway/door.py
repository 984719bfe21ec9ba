"""The door: what every call passes before it reaches a route, and every answer after it. Plain ASGI, so bodies stream.

In this order: a name for the call (`X-Request-Id`) and its trace; whether a web page is behind it; how often its
address may call; who is calling, and how often he may; then the route. On the way out: headers that hold for every
answer, the count, and the audit line of calls that change something.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invoker import spans, tracing, wire
from invoker.errors import (
    ContentRefusedError,
    InvokerError,
    RateLimitedError,
    UnauthorizedError,
)
from invoker.gateway.access.scopes import Caller
from invoker.gateway.answers import problem, unexpected
from invoker.gateway.bodies import Bodies

CALLER, CALL_ID, TRACEPARENT, IDS = "invoker.caller", "invoker.call_id", "invoker.traceparent", "invoker.ids"
CLOSING, STILL, OWE = "invoker.closing", "invoker.still", "invoker.owe"
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CHANGING_PATHS = frozenset({"/refresh"})
"""Paths of gitfaas that change something, although they are read."""
_LOCATION = re.compile(r"/v1/(request|run)s/([A-Za-z0-9_-]{1,64})")
AUDITED = frozenset({"topic", "function", "request_id", "run_id", "dead_id", "id", "name"})
"""Parameters of paths that stand in audit lines. Others do not: a path may hold the token of a run."""

_log = structlog.get_logger(component="gateway")


class Login(Protocol):
    """Finds who is calling."""

    async def __call__(self, headers: Headers) -> Caller | None:
        """The caller, None when nothing was shown. Raises `UnauthorizedError` when what was shown is not valid."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """What is left of a rate: headers for the answer, and the refusal when the call is one too many."""

    headers: Mapping[str, str]
    refusal: RateLimitedError | None = None


class Limiter(Protocol):
    """Counts the calls of keys and addresses."""

    def admit_address(self, address: str, owed: int = 0) -> Rates:
        """Count one call from there, or as many as are owed for one that was admitted."""
        ...

    def admit_caller(self, caller: Caller | None, owed: int = 0) -> Rates:
        """The same of a key or token."""
        ...


class Guard(Protocol):
    """Tells calls apart that a web page of somebody else's makes."""

    def check(self, headers: Headers, *, changing: bool) -> None:
        """Raise `ForbiddenError` for such a call."""
        ...


class Witness(Protocol):
    """Is told of every finished call: counts it, and writes the audit line of one that changes something."""

    def finished(self, call: Call) -> None: ...

    def refused(self, error: InvokerError) -> None:
        """Is told of every call that ends with an error of ours before a route has answered it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call, as counted and audited. `route` is the path's template, so its values are bounded; `ids` are
    what it was about. The path itself is not there: it may hold the token of a run."""

    id: str
    method: str
    route: str
    status: int
    seconds: float
    caller: str
    address: str
    ids: Mapping[str, str]
    trace: Mapping[str, str] = field(default_factory=dict)


class Door:
    """Wraps the gateway's application. `is_open` says which paths need no login here (they look at a token of their
    own), `has_own_door` which are none of its business (the run API, probes)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        login: Login,
        limiter: Limiter,
        witness: Witness,
        guard: Guard | None,
        is_open: Callable[[str], bool],
        has_own_door: Callable[[str], bool],
        address_of: Callable[[Scope], str],
        bodies: Bodies,
        closing: asyncio.Future[None],
    ) -> None:
        self._app = app
        self._login = login
        self._limiter = limiter
        self._witness = witness
        self._guard = guard
        self._is_open = is_open
        self._has_own_door = has_own_door
        self._address_of = address_of
        self._bodies = bodies
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        passage = _Passage(scope, headers, send, traced=not self._has_own_door(scope["path"]))
        address = self._address_of(scope)
        body = self._bodies.of(scope, receive, trusted=self._has_own_door(scope["path"]))
        try:
            await self._enter(scope, headers, address, passage)
            await self._app(scope, body, passage.send)
        except InvokerError as error:
            self._witness.refused(error)
            await passage.refuse(error)
        except ClientDisconnect:
            passage.status = passage.status or 499  # nobody is there to read it
        except Exception:  # whatever it is, no caller sees our traceback
            _log.exception("call failed", call_id=passage.call_id, route=passage.route(), **passage.facts())
            await passage.refuse(unexpected())
        finally:
            body.release()
            call = passage.call(address, time.perf_counter() - began)
            self._witness.finished(call)
            passage.tell(call)

    async def _enter(self, scope: Scope, headers: Headers, address: str, passage: _Passage) -> None:
        _refuse_encoded(headers)
        scope[CALLER], scope[CLOSING] = None, self._closing
        path = scope["path"]
        if self._has_own_door(path):
            return
        if self._guard is not None:
            self._guard.check(headers, changing=changes(scope["method"], path))
        passage.count("address", self._limiter.admit_address(address))
        if not self._is_open(path) and scope["method"] != "OPTIONS":
            caller = await self._login(headers)
            if caller is None:
                raise UnauthorizedError(
                    "this call needs an API key or a token",
                    fault="missing",
                    hint="Authorization: Bearer KEY, or X-Api-Key: KEY",
                )
            scope[CALLER] = passage.caller = caller
            scope[STILL] = lambda: self._still(headers, caller)
            passage.count("caller", self._limiter.admit_caller(caller))

            def owe(calls: int) -> None:
                passage.count("address", self._limiter.admit_address(address, calls))
                passage.count("caller", self._limiter.admit_caller(caller, calls))

            scope[OWE] = owe

    async def _still(self, headers: Headers, caller: Caller) -> bool:
        try:
            return await self._login(headers) == caller
        except UnauthorizedError:
            return False


class _Passage:
    """One call on its way through: its names, and what has been answered."""

    def __init__(self, scope: Scope, headers: Headers, send: Send, *, traced: bool) -> None:
        self._scope = scope
        self._send = send
        self.call_id = wire.usable_call_id(headers.get(wire.H_CALL_ID)) or secrets.token_hex(13)
        self.caller: Caller | None = None
        self._rates: dict[str, Mapping[str, str]] = {}
        self.status = 0
        self._ids: dict[str, str] = {}
        self.traceparent = wire.usable_traceparent(headers.get(wire.H_TRACEPARENT))
        self._spans: spans.Contexts | None = None
        self._began = datetime.now(UTC)
        if traced and tracing.exporter() is not None:
            self._spans = spans.call_context(headers, scope["method"])
            self.traceparent = self._spans[0].traceparent
        scope[CALL_ID], scope[TRACEPARENT], scope[IDS] = self.call_id, self.traceparent, self._ids

    def count(self, whose: str, rates: Rates) -> None:
        """Keep what is left of a rate for the answer. Raises `RateLimitedError` when nothing is."""
        self._rates[whose] = rates.headers
        if rates.refusal is not None:
            raise rates.refusal

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.call_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
            for rates in self._rates.values():
                for name, value in rates.items():
                    headers.append(name, value)
            self._note_answer(headers.get("location", ""))
        await self._send(message)

    async def refuse(self, error: InvokerError) -> None:
        """Answer with the error, unless an answer has begun: then all that is left is to break off."""
        if self.status:
            _log.warning("answer broken off", call_id=self.call_id, error_message=error.message, code=error.code)
            raise error
        answer = problem(error, instance=shown_path(self._scope))
        await answer(self._scope, _nothing, self.send)

    def route(self) -> str:
        """The template of the path, of which there are only so many."""
        return path_template(self._scope) or "(none)"

    def call(self, address: str, seconds: float) -> Call:
        for name, value in self._scope.get("path_params", {}).items():
            if name in AUDITED:
                self._ids.setdefault(name, str(value)[:255])
        return Call(
            self.call_id, self._scope["method"], self.route(), self.status, seconds,
            self.caller.label if self.caller else "-", address, self._ids, self.facts(),
        )  # fmt: skip

    def facts(self) -> dict[str, str]:
        """For log lines: the call's trace, and its span where it has one."""
        if self._spans is not None:
            return {"trace_id": self._spans[0].trace_id, "span_id": self._spans[0].span_id}
        return {"trace_id": self.traceparent.split("-")[1]} if self.traceparent else {}

    def tell(self, call: Call) -> None:
        """Tell of the answered call, where it has a span."""
        if (contexts := self._spans) is None:
            return
        end = self._began + timedelta(seconds=call.seconds)
        tracing.tell(
            lambda: [
                spans.call_span(
                    contexts, method=call.method, route=call.route, status=call.status, call_id=call.id, ids=call.ids,
                    start=self._began, end=end,
                )
            ]
        )  # fmt: skip

    def _note_answer(self, location: str) -> None:
        """The request or run that the call made: its address is in the answer."""
        made = _LOCATION.match(location)
        if made is not None:
            self._ids.setdefault(f"{made[1]}_id", made[2])


def changes(method: str, path: str) -> bool:
    """Whether such a call changes something: web pages of others may not make it, and it leaves an audit line."""
    return method in CHANGING or path in CHANGING_PATHS


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _refuse_encoded(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ContentRefusedError(
            f"a body with Content-Encoding {encoding[:40]!a} is not taken: events are bytes as they are",
            hint="send it without the header, or as what it is (Content-Type: application/gzip)",
        )


def shown_path(scope: Scope) -> str:
    """The path of a call as its own answer may repeat it: without what is no id in it, such as the token of a run."""
    template = path_template(scope)
    if template is None or set(scope.get("path_params", {})) <= AUDITED:
        # No id of ours is longer; what is may be the token of a run, in a path that was refused unread.
        return "/".join(part if len(part) <= 64 else "…" for part in str(scope["path"]).split("/")[:16])
    return template


def path_template(scope: Scope) -> str | None:
    """The path of the route that a call went to, with names for its parts; None when it went to none."""
    if "route" in scope:
        return str(scope["route"].path)
    if "endpoint" not in scope:
        return None
    # A plain route does not tell its own path, only what its parameters are.
    segments = str(scope["path"]).split("/")
    for name, value in scope.get("path_params", {}).items():
        for position in range(len(segments) - 1, -1, -1):
            if segments[position] == str(value):
                segments[position] = f"{{{name}}}"
                break
    return "/".join(segments)


def audit(request: Request, **ids: str) -> None:
    """Have ids stand in the call's audit line, such as those of what a batch made (never anything secret)."""
    request.scope[IDS].update({name: value[:255] for name, value in ids.items()})


def caller_of(request: Request) -> Caller:
    """Who is calling. Raises `UnauthorizedError` where the door let somebody in without asking."""
    caller: Any = request.scope.get(CALLER)
    if not isinstance(caller, Caller):
        raise UnauthorizedError("this call needs an API key or a token")
    return caller


def closing_of(scope: Scope) -> asyncio.Future[None]:
    """Is done when the gateway stops; what waits then answers with what it has."""
    closing: asyncio.Future[None] = scope[CLOSING]
    return closing


async def still_allowed(scope: Scope) -> bool:
    """Whether what the caller showed is worth what it was when the call began: for answers that go on for long."""
    check: Callable[[], Awaitable[bool]] = scope[STILL]
    return await check()


def count_as(request: Request, calls: int) -> None:
    """Have the call, which does the work of so many, count as many in the rates. It is done, and the next ones wait."""
    if calls > 1:
        request.scope[OWE](calls - 1)


def passed_on(request: Request) -> dict[str, str]:
    """The headers that a call's event carries on through run, chain and reply: its name and its trace."""
    own = {
        wire.H_CALL_ID: request.scope[CALL_ID],
        wire.H_TRACEPARENT: request.scope[TRACEPARENT] or "",
        wire.H_TRACESTATE: request.headers.get(wire.H_TRACESTATE, ""),
    }
    return wire.trace_headers(own)
