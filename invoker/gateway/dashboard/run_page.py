"""One run on one page: what became of it and what to do next, its time, its attempts, its payloads, its log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ExpiredError, UnknownIdError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.advice import advice, repeats_payload
from invoker.gateway.dashboard.paths import HOME, live_url, url_for
from invoker.gateway.dashboard.payloads import input_shown, output_shown
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dashboard.run_facts import attempt_columns, invoker_lines, kubectl_lines, spec_used
from invoker.gateway.dashboard.run_log import is_followed, log_shown
from invoker.gateway.dashboard.timeline import WIDTH, Timeline, timeline
from invoker.gateway.dashboard.veils import input_veil, output_veil, secret_parameters
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.request_documents import RunDetail, run_detail
from invoker.gateway.sight import Sight, needs_nats
from invoker.quantities import short_id
from invoker.result import Reason
from invoker.schema_secrets import CONCEALED
from invoker.views import RequestView, RunView

PUBLISHED_AT_ONCE = 8
MAX_CHILDREN = 64
"""Requests that a run caused; more are on the page of its request."""


@dataclass(frozen=True, slots=True)
class Child:
    """A request that the run caused, and how: `onSuccess`, `onFailure` or `published`."""

    kind: str
    view: RequestView


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/runs/{{run_id}}")
    async def run_page(run_id: str, request: Request) -> Response:
        """The whole of a run."""
        sight = Sight(gateway, caller_of(request))
        run, topic = await sight.run(run_id)
        view = await _request_of(sight, run, topic)
        given, output, log, children = await asyncio.gather(
            input_shown(sight, view), output_shown(sight, run, topic), log_shown(gateway, run), _children(sight, run)
        )
        detail = _detail(run, topic, view)
        return pages.page(
            request,
            "run.html",
            title=f"{run.function} {short_id(run.run_id)}",
            section="runs",
            live=_live(run, detail, children),
            run=detail,
            record=view.record,
            input=given,
            output=output,
            log=log,
            children=children,
            log_stream=url_for("run", run.run_id, "log", "live") if is_followed(run) else None,
            **await _facts(sight, run, detail, view, datetime.now(UTC)),
        )

    return routes


def _detail(run: RunView, topic: str, view: RequestView) -> RunDetail:
    """The run; what nobody has told of it yet is taken from its request."""
    detail, record = run_detail(run, topic), view.record
    if record is None or run.finished:
        return detail
    return detail.model_copy(
        update={
            "queued_at": detail.queued_at or record.received_at,
            "root_request_id": record.root_request_id,
            "parent_run_id": record.parent_run_id,
            "hops": record.hops,
        }
    )


async def _facts(sight: Sight, run: RunView, detail: RunDetail, view: RequestView, now: datetime) -> dict[str, Any]:
    """What the page says besides payloads and log."""
    catalog = sight.gateway.catalog
    function, problem = catalog.function(run.function), catalog.problem
    secret = await secret_parameters(sight, view)
    hides = bool(secret and repeats_payload(run.reason)) or await _hides_words(sight, run, detail.topic, view)
    operates = sight.may(Action.OPERATE, detail.topic, run.function)
    return {
        "advice": advice(run, function, problem, hides=hides),
        "time": _timeline(run, detail, now),
        "time_width": WIDTH,
        "attempts": attempt_columns(detail.attempts, run.state, detail.finished_at, now),
        "backoff_limit": function.backoff_limit if function is not None else None,
        "errors": [{**one, "detail": CONCEALED} if hides else one for one in detail.errors],
        "spec": spec_used(detail.spec_hash, function, problem),
        "kubectl": kubectl_lines(detail.engine, detail.job),
        "commands": invoker_lines(detail),
        "may_cancel": operates and not run.finished,
        "may_replay": operates and run.finished and view.record is not None,
        "secret_parameters": secret,
    }


def _live(run: RunView, detail: RunDetail, children: list[Child]) -> str:
    """The stream of what may change on the page: requests that the run causes come after its own has ended."""
    if not is_followed(run) and all(child.view.complete for child in children):
        return live_url(request=run.request_id)
    return live_url(chain=detail.root_request_id or run.request_id)


def _timeline(run: RunView, detail: RunDetail, now: datetime) -> Timeline:
    return timeline(
        state=run.state,
        queued_at=detail.queued_at,
        dispatched_at=detail.dispatched_at,
        attempts=detail.attempts,
        finished_at=detail.finished_at,
        now=now,
    )


async def _hides_words(sight: Sight, run: RunView, topic: str, view: RequestView) -> bool:
    """Whether what is said about the payload that does not fit may quote a value that is kept from the caller."""
    if not repeats_payload(run.reason):
        return False
    if run.reason is not Reason.INVALID_INPUT:
        return output_veil(sight, run, topic).hides
    if view.record is None:  # where the event came from is not kept any more
        return not sight.caller.operates_everything()
    return (await input_veil(sight, view)).hides


async def _request_of(sight: Sight, run: RunView, topic: str) -> RequestView:
    """The run's request; of one whose record is gone only what the run itself knows."""
    try:
        return await sight.request(run.request_id)
    except (UnknownIdError, ExpiredError):
        return RequestView(run.request_id, topic, None, (run,))


async def _children(sight: Sight, run: RunView) -> list[Child]:
    """The requests that the run caused and that the caller may see. Their ids follow from the run's, so nothing is
    searched for."""
    following = [("onSuccess", 0), ("onFailure", 0)] if run.finished else []
    found = await _accepted(sight, run, following)
    positions = count()
    while len(found) < MAX_CHILDREN:
        some = [("published", position) for position in islice(positions, PUBLISHED_AT_ONCE)]
        published = await _accepted(sight, run, some)
        found += published
        if len(published) < PUBLISHED_AT_ONCE:
            break
    seen = ((child.kind, sight.part_of(child.view)) for child in found)
    return [Child(kind, view) for kind, view in seen if view is not None]


async def _accepted(sight: Sight, run: RunView, wanted: list[tuple[str, int]]) -> list[Child]:
    stored = sight.gateway.client.stored
    ids = [wire.chained_id(run.run_id, kind, position) for kind, position in wanted]
    views = await asyncio.gather(*(stored.accepted(one) for one in ids))
    return [Child(kind, view) for (kind, _), view in zip(wanted, views, strict=True) if view is not None]
