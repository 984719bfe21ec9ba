"""One request: who published what, the chain it belongs to as a graph and as a table, and why nothing matched."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker.errors import ExpiredError, InvokerError, UnknownIdError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.chain_graph import Graph, chain_graph
from invoker.gateway.dashboard.chain_stages import Stages, stages
from invoker.gateway.dashboard.explanations import Explained, explained_request
from invoker.gateway.dashboard.paths import HOME, live_url
from invoker.gateway.dashboard.payloads import input_shown
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dashboard.veils import secret_parameters
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.requests import check_replay, visible_chain
from invoker.gateway.sight import Sight, needs_nats
from invoker.quantities import short_id
from invoker.views import ChainNode, RequestState, RequestView

MAX_REQUESTS = 200
"""Of a chain that are read for a page."""


@dataclass(frozen=True, slots=True)
class ShownChain:
    """What the reader sees of a chain. `is_cut`: there are more requests than are read. `begins_here`: the chain's
    first request is not to be had, so it is shown from this one on."""

    root: ChainNode
    graph: Graph
    stages: Stages
    settled: bool
    is_cut: bool
    begins_here: bool


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/requests/{{request_id}}")
    async def request_page(request_id: str, request: Request) -> Response:
        """The whole of a request."""
        sight = Sight(gateway, caller_of(request))
        try:
            whole = await sight.whole_request(request_id)
        except (UnknownIdError, ExpiredError) as error:
            return pages.page(
                request, "not_found.html", title="Not found", section="runs", status=error.http_status,
                given=request_id[:80], error=error, candidates=(), dead_id=error.fields.get("dead_id"),
                is_expired=isinstance(error, ExpiredError),
            )  # fmt: skip
        view = sight.part_of(whole) or whole
        given, chain, explained = await asyncio.gather(
            input_shown(sight, view), _chain(sight, whole, view), _explained(sight, view)
        )
        return pages.page(
            request,
            "request.html",
            title=f"{view.topic} {short_id(view.request_id)}",
            section="runs",
            live=live_url() if chain.begins_here else live_url(chain=chain.root.view.request_id),
            view=view,
            record=view.record,
            input=given,
            chain=chain,
            explained=explained,
            secret_parameters=await secret_parameters(sight, view),
            may_cancel=_may_cancel(sight, view),
            may_replay=_may_replay(sight, whole),
        )

    return routes


async def _chain(sight: Sight, whole: RequestView, view: RequestView) -> ShownChain:
    """The chain that the request belongs to, as far as the caller may see it; from the request itself on when its
    beginning is gone, hidden, or too far away."""
    root = await _root(sight, whole)
    stored = sight.gateway.client.stored
    chain = await stored.chain(root, MAX_REQUESTS)
    node = visible_chain(sight, chain.root, view.request_id)
    if node is None or not any(one.view.request_id == view.request_id for one in node):
        chain = await stored.chain(whole, MAX_REQUESTS)
        node = visible_chain(sight, chain.root, view.request_id) or ChainNode(view, None)
    begins_here = node.view.request_id == view.request_id and _is_stage(view)
    graph = chain_graph(node, view.request_id)
    return ShownChain(node, graph, stages(node), chain.settled, chain.is_cut, begins_here)


async def _root(sight: Sight, whole: RequestView) -> RequestView:
    """The request that the chain began with, whether the caller sees it or not; this one when it is gone."""
    if not _is_stage(whole) or whole.record is None:
        return whole
    try:
        return await sight.gateway.requests(whole.record.root_request_id)
    except (UnknownIdError, ExpiredError):
        return whole


def _is_stage(view: RequestView) -> bool:
    """Whether a run caused the request, so that the chain began before it."""
    return view.record is not None and view.record.root_request_id != view.request_id


async def _explained(sight: Sight, view: RequestView) -> Explained | None:
    """Why nothing matched, by the functions of now; None for a request that has runs, or is not accepted."""
    if view.state is not RequestState.NO_MATCH:
        return None
    return await explained_request(sight, view.request_id)


def _may_cancel(sight: Sight, view: RequestView) -> bool:
    """Whether there is something to cancel, and the caller may cancel all of it."""
    going = [run for run in view.runs if not run.finished]
    return bool(going) and all(sight.may(Action.OPERATE, view.topic, run.function) for run in view.runs)


def _may_replay(sight: Sight, whole: RequestView) -> bool:
    """Whether the caller may publish the whole again; one function alone is replayed from its run."""
    try:
        check_replay(sight, whole, None)
    except InvokerError:
        return False
    return True
