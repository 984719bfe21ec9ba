"""The list of runs, and the search for one by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.errors import AmbiguousIdError, ExpiredError, InputRefusedError, UnknownIdError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.forms import Form
from invoker.gateway.dashboard.paths import OPEN, RUNS, live_url, url_for
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dashboard.run_filters import CHOICES, QUICK, RunsQuery, problem_of, read_query
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.ids import meant_id
from invoker.gateway.runs import visible_rows
from invoker.gateway.sight import Sight, needs_nats
from invoker.result import Reason, State
from invoker.views import RunRow

MAX_CURSOR = 64


@dataclass(frozen=True, slots=True)
class QuickFilter:
    """A filter that is one click away."""

    words: str
    address: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class RunsList:
    """A page of the list. `older` is the address of the next page, `newest` of the first one where this is another."""

    query: RunsQuery
    problem: str | None
    rows: Sequence[RunRow]
    older: str | None
    newest: str | None
    is_cut: bool
    """It ends where it does because so many runs were looked at that the reader may not see."""
    pickable: frozenset[str]
    """The runs that he may change something about."""

    @property
    def is_live(self) -> bool:
        """Only the first page changes by itself: rows of another one shall not move under the reader's eyes."""
        return self.newest is None and self.problem is None

    @property
    def quick(self) -> tuple[QuickFilter, ...]:
        chosen = set(self.query.states)
        return tuple(
            QuickFilter(words, self.query.address(states=states), set(states) == chosen) for words, states in QUICK
        )


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(RUNS)
    async def runs(request: Request) -> Response:
        """Runs that fit the filters, unfinished ones first, each part newest first."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        fields = Form(request.query_params.multi_items())
        found = await _read(sight, read_query(fields), fields.get("cursor", "")[:MAX_CURSOR] or None)
        names = [one.name for one in gateway.catalog.present.functions]
        return pages.page(
            request,
            "runs.html",
            title="Runs",
            section="runs",
            live=live_url(function=found.query.function or None) if found.is_live else None,
            list=found,
            may_pick=sight.caller.may(Action.OPERATE),
            functions=[name for name in names if sight.caller.may(Action.READ, function=name)],
            states=list(State),
            reasons=list(Reason),
            choices=sorted({*CHOICES, found.query.limit}),
        )

    @routes.get(OPEN)
    async def open_by_id(request: Request) -> Response:
        """Lead to what an id stands for: a run's or a request's, whole, shortened, or `@latest`."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        given = request.query_params.get("id", "").strip()[:512]
        try:
            if not given:
                raise UnknownIdError("no id was given")
            found = await meant_id(sight, given)
        except (UnknownIdError, ExpiredError, AmbiguousIdError, InputRefusedError) as error:
            return pages.page(
                request, "not_found.html", title="Not found", section="runs", status=error.http_status,
                given=given, error=error,
                candidates=list(error.fields.get("candidates", ())), dead_id=error.fields.get("dead_id"),
                is_expired=isinstance(error, ExpiredError),
            )  # fmt: skip
        run_id = found.run_id
        return RedirectResponse(url_for("run", run_id) if run_id else url_for("request", found.request_id), 303)

    return routes


async def _read(sight: Sight, query: RunsQuery, cursor: str | None) -> RunsList:
    """The page of the list; with a filter that cannot be read an empty one that says so."""
    now = datetime.now(UTC)
    newest = query.address() if cursor else None
    problem = problem_of(query, now)
    if problem is not None:
        return RunsList(query, problem, (), None, newest, False, frozenset())
    rows, looked_to = await visible_rows(sight, query.wanted(now), query.limit + 1, cursor)
    following = rows[query.limit - 1].cursor if len(rows) > query.limit else looked_to
    shown = rows[: query.limit]
    older = query.address(cursor=following) if following else None
    pickable = frozenset(row.run_id for row in shown if sight.may(Action.OPERATE, row.topic, row.function))
    return RunsList(query, None, shown, older, newest, looked_to is not None, pickable)
