"""gitfaas' API for its clients and functions: `/publish/…`, `/response/…`, `/refresh`, with its shapes and statuses.

What differs is what gitfaas leaves open: bytes pass as they are, an answer is taken once, the uid of a function carries
its run's token. `docs/gitfaas.md` is the page about it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import structlog
from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import (
    BackPressureError,
    ContentRefusedError,
    ExpiredError,
    ForbiddenError,
    InputRefusedError,
    InvokerError,
    NoSuchPathError,
    PayloadTooLargeError,
    RequestIdError,
    RunFinishedError,
    TokenRefusedError,
    UnauthorizedError,
    UnknownIdError,
)
from invoker.gateway import run_body
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.answers import JsonResponse
from invoker.gateway.bodies import may_hold
from invoker.gateway.door import caller_of, passed_on
from invoker.gateway.gateway import Gateway
from invoker.gateway.publishing import open_topic
from invoker.gateway.run_address import parse_uid
from invoker.gateway.run_answers import StreamedBody
from invoker.gateway.sight import Sight
from invoker.payload import Payload
from invoker.result import Result
from invoker.views import RunView

RESERVED = frozenset({"PAYLOAD", "FUNCTION_UID", "RANDOM", "TOPIC"})
CHECKED_JSON_BYTES = 16 * 1024 * 1024
"""A body that says it is JSON is looked at before it is published, so it must be held in memory."""
_THREAD_ABOVE_BYTES = 256 * 1024

_log = structlog.get_logger(component="gateway")
_Route = Callable[[Request], Awaitable[Response]]


def has_own_door(path: str) -> bool:
    """Whether the path is that of a function's answer, whose uid holds a token: the id of a request has no dot."""
    return path.startswith("/response/") and "." in path


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group; none where they are not switched on."""
    routes = APIRouter(tags=["gitfaas"])
    if not gateway.settings.gateway_gitfaas:
        return routes
    paths: list[tuple[str, str, Callable[[Gateway, Request], Awaitable[Response]]]] = [
        ("POST", "/publish/{topic}", _publish),
        ("GET", "/response/{request_uid}", _responses),
        ("POST", "/response/{function_uid}", _respond),
        ("GET", "/refresh", _refresh),
    ]
    for method, path, act in paths:
        routes.add_api_route(path, _told(gateway, act), methods=[method], include_in_schema=False)
    return routes


def _told(gateway: Gateway, act: Callable[[Gateway, Request], Awaitable[Response]]) -> _Route:
    """The route, whose refusals are told in gitfaas' words."""

    async def route(request: Request) -> Response:
        try:
            return await act(gateway, request)
        except (UnauthorizedError, ForbiddenError):
            raise  # the same for every path of the gateway
        except InvokerError as error:
            return _error(error)

    return route


def _error(error: InvokerError, status: int | None = None) -> Response:
    message = error.message
    if error.http_status >= 500 and not isinstance(error, BackPressureError):
        _log.warning("gitfaas call failed", code=error.code, error_message=error.message)
        message = "the gateway cannot do this now; the same call may succeed later"
    return JsonResponse({"error": True, "message": message}, status or error.http_status)


async def _publish(gateway: Gateway, request: Request) -> Response:
    topic = open_topic(gateway, request.path_params["topic"])
    caller_of(request).check(Action.PUBLISH, topic=topic)
    content_type = request.headers.get("content-type")
    kind = (content_type or "text/plain").partition(";")[0].strip().lower()
    if kind not in ("text/plain", "application/json"):
        return _error(ContentRefusedError(f"content type {kind[:80]!a}: text/plain or application/json is taken"), 406)
    params = _params(request)
    data = await _body(gateway, request, is_json=kind == "application/json")
    request_id = gateway.client.new_request_id()
    async with gateway.client.feed.watch(request_id) as watch:
        await gateway.client.publish(
            topic, data, content_type=content_type, headers=passed_on(request), params=params, request_id=request_id
        )
        try:
            async with asyncio.timeout(gateway.settings.gateway_accept_seconds):
                await watch.next()
        except TimeoutError:
            pass
    return JsonResponse(await _report(gateway, topic, request_id), 202)


def _params(request: Request) -> dict[str, str]:
    params: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in RESERVED:
            raise InputRefusedError(f"the parameter {name} is reserved: a caller cannot set it")
        params.setdefault(name, value)
    return params


async def _body(gateway: Gateway, request: Request, *, is_json: bool) -> Payload:
    limit = CHECKED_JSON_BYTES if is_json else gateway.settings.max_event_bytes
    limit = min(limit, gateway.settings.max_event_bytes)

    def too_large(size: int) -> InvokerError:
        return PayloadTooLargeError(f"the payload has {size} bytes or more, at most {limit} are taken here")

    run_body.refuse_larger(request, limit, too_large)
    hold = limit if is_json else wire.CLAIM_THRESHOLD_BYTES
    may_hold(request, hold)
    body = await run_body.read_head(run_body.bounded(request, limit, too_large), hold)
    if is_json:
        await _check_json(body.head)
    return body.data()


async def _check_json(data: bytes) -> None:
    try:
        if len(data) > _THREAD_ABOVE_BYTES:
            await asyncio.to_thread(json.loads, data)
        else:
            json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputRefusedError("the payload says it is JSON and is not") from error


async def _report(gateway: Gateway, topic: str, request_id: str) -> dict[str, Any]:
    """What became of the event: it is stored, whatever goes wrong from here on."""
    report: dict[str, Any] = {"requestUid": request_id, "applies": [], "error": False}
    try:
        view = await gateway.client.stored.request(request_id)
    except UnknownIdError as error:
        return report | {"error": True, "message": error.message}  # a dead letter by now
    except InvokerError:
        return report | {"message": "stored; which functions run for it will be known soon"}
    if view.record is None:
        return report | {"message": "stored; which functions run for it will be known soon"}
    report["applies"] = [_applied(run) for run in view.runs]
    report["error"] = any(one["error"] for one in report["applies"])
    return report if view.runs else report | {"message": f"no function listens to the topic {topic}"}


def _applied(run: RunView) -> dict[str, Any]:
    failed = run.result is not None and not run.result.succeeded
    words = run.result.message or str(run.reason) if run.result is not None and failed else "accepted"
    return {"error": failed, "path": run.function, "message": words}


async def _responses(gateway: Gateway, request: Request) -> Response:
    sight, uid = Sight(gateway, caller_of(request)), request.path_params["request_uid"]
    if not wire.is_plain_id(uid):
        refused = RequestIdError("the request uid is not valid")
        return JsonResponse({"error": True, "message": refused.message, "responses": []})
    try:
        view = sight.part_of(await gateway.client.stored.request(uid))
        if view is None:
            raise UnknownIdError(f"nothing is known of the request {uid}")
    except UnknownIdError as error:
        state = "expired" if isinstance(error, ExpiredError) else "unknown"
        message = error.message if state == "expired" else f"nothing is known of the request {uid}"
        return JsonResponse({"error": False, "responses": [], "state": state, "message": message})
    rest = {"state": str(view.state), "runs": [_run(run) for run in view.runs]}
    return StreamedBody(_answers(gateway, view.runs, rest), media_type="application/json")


def _run(run: RunView) -> dict[str, Any]:
    """What gitfaas does not tell: which of the nulls will stay null, and why."""
    message = run.result.message if run.result is not None and not run.result.succeeded else None
    return {"function": run.function, "state": run.state, "reason": run.reason, "message": message}


async def _answers(gateway: Gateway, runs: Sequence[RunView], rest: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """`{"error": false, "responses": [base64 | null, …], …}`, piece by piece: outputs may be of any size."""
    yield b'{"error":false,"responses":['
    for number, run in enumerate(runs):
        yield b"," if number else b""
        if run.result is None or not run.result.succeeded:
            yield b"null"
            continue
        yield b'"'
        async for piece in _base64(_output(gateway, run.result)):
            yield piece
        yield b'"'
    yield b"]," + to_json(rest)[1:]


async def _output(gateway: Gateway, result: Result) -> AsyncIterator[bytes]:
    async for chunk in gateway.client.open_output(result):
        yield chunk


async def _base64(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    left = b""
    async for chunk in chunks:
        data = left + chunk
        whole = len(data) - len(data) % 3
        left = data[whole:]
        yield base64.b64encode(data[:whole])
    yield base64.b64encode(left)


async def _respond(gateway: Gateway, request: Request) -> Response:
    """A function's answer becomes its run's result. What gitfaas refuses with 200 is refused with 200."""
    try:
        if gateway.run_api is None:
            raise NoSuchPathError("this gateway takes no answers of functions: INVOKER_RUN_TOKEN_KEY is not set")
        address, token = parse_uid(request.path_params["function_uid"])
        await gateway.run_api.take_output(request, address, token)
    except (TokenRefusedError, UnknownIdError, RunFinishedError) as error:
        gateway.metrics.answers_refused.inc()
        invalid = not isinstance(error, RunFinishedError)
        return JsonResponse({"error": True, "message": "the function uid is not valid" if invalid else error.message})
    except ClientDisconnect:
        return Response(status_code=499)  # nobody is there to read it
    return JsonResponse({"error": False, "message": "the answer is stored"})


async def _refresh(gateway: Gateway, request: Request) -> Response:
    caller: Caller = caller_of(request)
    caller.check(Action.ADMIN)
    info = await gateway.client.reload()
    await gateway.catalog.refresh()
    message = f"functions: {info.functions}" + (f", cannot be used: {info.broken}" if info.broken else "")
    return JsonResponse({"error": False, "message": message})
