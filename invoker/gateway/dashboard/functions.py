"""Functions: the list, and one of them with all that is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker.errors import InvokerError, ServerUnreachableError
from invoker.gateway.access.scopes import Action, Caller
from invoker.gateway.dashboard import function_view as view
from invoker.gateway.dashboard.histogram import histogram
from invoker.gateway.dashboard.paths import FUNCTIONS, RELOAD, RUNS, live_url
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.door import caller_of
from invoker.gateway.functions import operates as may_operate
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_figures import FunctionFigures
from invoker.gateway.runs import visible_rows
from invoker.gateway.sight import Sight, unknown
from invoker.listing import RunFilter
from invoker.lookup import Found
from invoker.schema_secrets import without_given_secrets
from invoker.views import CatalogInfo, FunctionInfo, FunctionSource, RunRow

RECENT_RUNS = 10
_ASKED_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a function's spec: how many of the recent runs had it, and whether it is the present one."""

    spec_hash: str
    runs: int
    is_present: bool


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(FUNCTIONS)
    async def list_functions(request: Request) -> Response:
        """Every function that the reader may see, broken ones first. Also while NATS is away: as it was known."""
        caller = caller_of(request)
        caller.check(Action.READ)
        catalog, problem = await present_catalog(gateway)
        seen = [one for one in catalog.functions if caller.may(Action.READ, function=one.name)]
        asked = request.query_params
        wanted = view.FunctionsFilter(asked.get("text", "").strip()[:200], asked.get("label", "").strip()[:200])
        lines = view.function_lines(seen, wanted, await hour_of_functions(Sight(gateway, caller)))
        start = _start(asked.get("from"))
        return pages.page(
            request,
            "functions.html",
            title="Functions",
            section="functions",
            live=live_url(),
            lines=lines[start : start + view.PAGE_ROWS],
            count=len(lines),
            start=start,
            step=view.PAGE_ROWS,
            total=len(seen),
            broken=sum(one.status != "ready" for one in seen),
            wanted=wanted,
            labels=view.labels_of(seen),
            catalog=catalog,
            problem=problem,
            functions_path=FUNCTIONS,
            reload_path=RELOAD,
        )

    @routes.get(FUNCTIONS + "/{name}")
    async def one_function(name: str, request: Request) -> Response:
        """One function: how it stands, what it is, what it did lately."""
        sight = Sight(gateway, caller_of(request))
        info, catalog, problem = await function_now(gateway, sight.caller, name)
        operates = may_operate(sight.caller, info)
        sees = sees_topics(sight, name)
        source, source_problem = await _source(gateway, info, masked=not operates)
        rows = await recent_rows(sight, name)
        hour = (await hour_of_functions(sight)).get(name)
        durations = gateway.runs.durations(name, sees=sees)
        seen = {one.name for one in catalog.functions if sight.caller.may(Action.READ, function=one.name)}
        return pages.page(
            request,
            "function.html",
            title=name,
            section="functions",
            live=live_url(function=name),
            info=info,
            status_words=view.STATUS_WORDS[info.status],
            place=view.place_of(info),
            runs_with=view.runs_with(info),
            problem=problem,
            operates=operates,
            publishes=info.status != "broken" and sight.caller.may(Action.PUBLISH, function=name),
            hour=hour,
            without_failure=view.share_without_failure(hour),
            drawing=histogram(durations),
            source=source,
            source_problem=source_problem,
            settings=view.settings_in_words(source.settings if source else ()),
            followings=view.followings(info, catalog, seen),
            parameters=view.parameter_lines(info.parameters, hide_secrets=not operates),
            schemas=_schemas(info, operates),
            rows=rows,
            versions=await _versions(gateway, info, rows),
            is_one_topic=view.is_one_topic,
            runs_path=query(RUNS, function=name),
        )

    return routes


async def function_now(gateway: Gateway, caller: Caller, name: str) -> tuple[FunctionInfo, CatalogInfo, str | None]:
    """The function and the catalog that it is in, and why that is an older one. Raises `UnknownIdError`."""
    if not (caller.may(Action.READ, function=name) and view.is_function_name(name)):
        raise unknown("function", name)
    catalog, problem = await present_catalog(gateway)
    info = catalog.function(name)
    if info is None:
        raise unknown("function", name)
    return info, catalog, problem


async def present_catalog(gateway: Gateway) -> tuple[CatalogInfo, str | None]:
    """The gateway's copy of the catalog, some seconds old at most, and why it is an older one where it is. Open pages
    are drawn again whenever the copy changes, so none asks the controllers itself.

    Raises `ServerUnreachableError` when nobody has told the catalog yet.
    """
    copy = gateway.catalog
    if not copy.is_known and gateway.client.is_connected:
        await copy.renewed()
    if not copy.is_known:
        raise ServerUnreachableError(copy.problem or "no controller has answered yet")
    return copy.present, copy.problem if gateway.client.is_connected else "NATS is away just now"


async def hour_of_functions(sight: Sight) -> Mapping[str, FunctionFigures]:
    """The last hour of each function, of the runs that the caller may see."""
    figures = sight.gateway.runs.figures
    hour = figures.whole() if sight.caller.sees_everything() else await figures.part(_sees_run(sight))
    return {one.function: one for one in hour.functions}


async def recent_rows(sight: Sight, name: str) -> Sequence[RunRow]:
    """The newest runs of the function; none while they cannot be read."""
    if not sight.gateway.client.is_connected:
        return ()
    rows, _ = await visible_rows(sight, RunFilter(function=name), RECENT_RUNS, None)
    return rows


def sees_topics(sight: Sight, name: str) -> Callable[[str], bool] | None:
    """Which topics' runs of the function the caller may see, None for all."""
    if sight.caller.sees_everything():
        return None
    return lambda topic: sight.may(Action.READ, topic, name)


def _sees_run(sight: Sight) -> Callable[[str, str], bool]:
    return lambda function, topic: sight.may(Action.READ, topic, function)


async def _source(gateway: Gateway, info: FunctionInfo, *, masked: bool) -> tuple[FunctionSource | None, str | None]:
    """What is written about the function, or why that cannot be shown."""
    if info.status == "broken":
        return None, "There is no version that could be read."
    try:
        return await gateway.client.source(info.name, masked=masked), None
    except InvokerError as error:
        return None, error.message


def _schemas(info: FunctionInfo, operates: bool) -> list[tuple[str, str]]:
    """The schemas of input and output as text, with what they give for secret fields only for its operators."""
    given = [("Input", info.input_schema), ("Output", info.output_schema)]
    return [
        (words, view.json_text(one if operates else without_given_secrets(one)))
        for words, one in given
        if one is not None
    ]


async def _versions(gateway: Gateway, info: FunctionInfo, rows: Sequence[RunRow]) -> list[Version]:
    """The versions of the spec that the recent runs had, and the present one; the newest first."""
    turn = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def version(row: RunRow) -> str | None:
        async with turn:
            try:
                run, _ = await gateway.client.stored.run(Found(row.request_id, row.function))
            except InvokerError:
                return None
        return run.result.spec_hash if run.result is not None else None

    found = await asyncio.gather(*(version(row) for row in rows if row.finished))
    counts = Counter(one for one in found if one)
    present = [info.spec_hash] if info.spec_hash else []
    return [Version(one, counts[one], one == info.spec_hash) for one in dict.fromkeys([*present, *counts])]


def _start(given: str | None) -> int:
    """Where a page of the list begins."""
    return int(given) if given and given.isascii() and given.isdigit() and len(given) < 7 else 0
