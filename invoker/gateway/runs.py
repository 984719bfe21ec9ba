"""Runs over HTTP: the list, one run, its output and its log; cancel and replay."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import InputRefusedError, NotReadyError
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.conditional import has_already, tag_of, tagged
from invoker.gateway.content import content_answer, sha256_of
from invoker.gateway.documents import Accepted
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.known_queries import known_queries
from invoker.gateway.openapi_parts import BYTES, ORDER_BODY, REPLACING_BODY
from invoker.gateway.polling import Wait, seconds_to_wait, waited
from invoker.gateway.request_documents import CancelledRuns, CancelOrder, RunDetail, RunPage, run_detail, run_line
from invoker.gateway.requests import Empty, read_order, replayed
from invoker.gateway.sight import Sight, needs_nats
from invoker.listing import RunFilter
from invoker.lookup import Found
from invoker.result import Reason, Result, State
from invoker.views import RunRow, RunView

MAX_LIMIT = 500
MAX_HIDDEN = 2_000
"""Rows that a page may pass by because its caller may not see them."""
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

FunctionFilter = Annotated[str | None, Query(max_length=63, description="Only runs of this function")]
TopicFilter = Annotated[str | None, Query(max_length=255, description="Only of this topic, or topic pattern")]


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["runs"], dependencies=[needs_nats(gateway)])

    @routes.get("/v1/runs", response_model=RunPage, dependencies=[known_queries()])
    async def list_runs(
        request: Request,
        function: FunctionFilter = None,
        state: Annotated[State | None, Query(description="Only runs in this state")] = None,
        reason: Annotated[Reason | None, Query(description="Only runs that ended for this reason")] = None,
        topic: TopicFilter = None,
        request_id: Annotated[str | None, Query(alias="request", max_length=512)] = None,
        since: Annotated[
            str | None, Query(max_length=64, description="An instant (RFC 3339), or how long ago: 30s, 10m, 2h, 1d")
        ] = None,
        until: Annotated[str | None, Query(max_length=64, description="The same: only runs before it")] = None,
        text: Annotated[
            str | None, Query(max_length=64, description="Stands in the id of the run or of its request")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
    ) -> Response:
        """Runs, unfinished ones first, then finished ones, each part newest first, without their payloads. A page may
        have fewer than `limit`, and still be followed by another one."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        wanted = RunFilter(
            function=function,
            states=frozenset({state} if state else ()),
            reason=reason,
            request_id=wire.canonical_id(request_id) if request_id else None,
            since=instant(since, datetime.now(UTC), "since") if since else None,
            until=instant(until, datetime.now(UTC), "until") if until else None,
            topic=wire.check_pattern(topic) if topic else None,
            text=text or None,
        )
        rows, looked_to = await visible_rows(sight, wanted, limit + 1, cursor)
        following = rows[limit - 1].cursor if len(rows) > limit else looked_to
        page = RunPage(items=[run_line(row) for row in rows[:limit]], next=following)
        return JsonResponse(page, headers=next_link(request, following))

    @routes.get("/v1/runs/{run_id}", response_model=RunDetail)
    async def get_run(run_id: str, request: Request, wait: Wait = None) -> Response:
        """One run: its result, or the latest news of it. With `wait` once it has finished, or once anything differs
        from what `If-None-Match` names."""
        knows = "if-none-match" in request.headers

        def enough(found: tuple[RunView, str]) -> bool:
            return found[0].finished or (knows and not has_already(request, _tag(*found)))

        run, topic = await _run_at_last(gateway, request, run_id, wait, enough)
        return tagged(request, run_detail(run, topic))

    @routes.head("/v1/runs/{run_id}/output", include_in_schema=False)
    @routes.get("/v1/runs/{run_id}/output", response_class=Response, responses=BYTES)
    async def get_output(run_id: str, request: Request, wait: Wait = None) -> Response:
        """The bytes that the function gave, whole or the part that `Range` asks for; with `wait` once it has finished.

        A run that failed answers with its problem, under the status of its reason.
        """
        run, _ = await _run_at_last(gateway, request, run_id, wait, lambda found: found[0].finished)
        if run.result is None:
            raise NotReadyError(
                f"run {run.run_id} is {run.state}: it has no output yet", hint="?wait=30 answers once it has finished"
            )
        if not run.result.succeeded:
            return failure(run.result, request.url.path)
        output = run.result.output
        return await content_answer(request, gateway, output, sha256_of(output), run.run_id)

    @routes.post("/v1/runs/{run_id}/cancel", response_model=CancelledRuns, openapi_extra=ORDER_BODY)
    async def cancel(run_id: str, request: Request) -> Response:
        """Cancel the run; a finished one keeps its result. Safe to repeat."""
        sight = Sight(gateway, caller_of(request))
        run, topic = await sight.run(run_id)
        sight.check(Action.OPERATE, topic, run.function)
        order = await read_order(request, CancelOrder)
        if order.function not in (None, run.function):
            raise InputRefusedError(f"run {run.run_id} is one of {run.function}, not of {order.function!a}")
        done = await gateway.client.cancel(run.request_id, function=run.function, message=order.message)
        return JsonResponse(CancelledRuns(cancelled=list(done.cancelled), already_finished=list(done.already_finished)))

    @routes.post("/v1/runs/{run_id}/replay", status_code=202, response_model=Accepted, openapi_extra=REPLACING_BODY)
    async def replay(run_id: str, request: Request, empty: Empty = False) -> Response:
        """Run the function again on the same event, as a new request that names the original; what the call replaces is
        told at `/v1/requests/{request_id}/replay`."""
        sight = Sight(gateway, caller_of(request))
        run, topic = await sight.run(run_id)
        sight.check(Action.OPERATE, topic, run.function)
        return await replayed(sight, request, run.request_id, topic, run.function, empty=empty)

    return routes


async def _run_at_last(
    gateway: Gateway,
    request: Request,
    run_id: str,
    wait: float | None,
    enough: Callable[[tuple[RunView, str]], bool],
) -> tuple[RunView, str]:
    sight = Sight(gateway, caller_of(request))
    run, topic = await sight.run(run_id)
    seconds = seconds_to_wait(gateway, request, wait)
    if seconds <= 0 or enough((run, topic)):
        return run, topic
    found = Found(run.request_id, run.function)
    async with gateway.client.feed.watch(run.request_id) as watch:
        return await waited(request, watch, lambda: sight.run_of(found, run_id), enough, seconds)


async def visible_rows(
    sight: Sight, wanted: RunFilter, limit: int, cursor: str | None
) -> tuple[list[RunRow], str | None]:
    """So many rows that the caller may see; with a cursor when so many others were looked at that the page ends there:
    who may see next to nothing must not make every page a search through everything."""
    everything = sight.caller.sees_everything()
    found: list[RunRow] = []
    rows = sight.gateway.client.stored.rows(wanted, before=cursor, recent=sight.gateway.runs)
    hidden = 0
    async with aclosing(rows):
        async for row in rows:
            if everything or sight.may(Action.READ, row.topic, row.function):
                found.append(row)
                if len(found) >= limit:
                    break
            else:
                hidden += 1
                if hidden >= MAX_HIDDEN:
                    return found, row.cursor
    return found, None


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header of a page that another one follows: the same query with that cursor."""
    if cursor is None:
        return {}
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return {"Link": f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'}


def failure(result: Result, path: str) -> Response:
    """A run that ended without success, as the problem document of its reason."""
    document = result.problem() | {"instance": path}
    return Response(to_json(document), document["status"], media_type=wire.CONTENT_TYPE_PROBLEM)


def instant(text: str, now: datetime, name: str) -> datetime:
    """The instant in words, of the field of that name. Raises `InputRefusedError`. Pure."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus in a query is a space
        at.timestamp()
    except (ValueError, OverflowError) as error:
        raise InputRefusedError(f"{name}: {text[:64]!a} is no instant (RFC 3339) and no 30s, 10m, 2h or 1d") from error
    if at.tzinfo is None:
        raise InputRefusedError(f"{name}: {text[:64]!a} has no time zone; end it with Z")
    return at


def _tag(run: RunView, topic: str) -> str:
    return tag_of(bytes(JsonResponse(run_detail(run, topic)).body))
