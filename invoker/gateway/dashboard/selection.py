"""Cancelling and replaying many runs: a question with the count first, then some at once, and what became of each.

The form brings the ids that its question counted, so what is done is what was asked about, whatever has happened to the
list in between. Sent twice it does the same as once: a cancelled run is finished, a replay has an id made of the form's
key and the run.
"""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker.errors import InputRefusedError, InvokerError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.at_once import some_at_once
from invoker.gateway.dashboard.forms import Form, read_form
from invoker.gateway.dashboard.paths import RUNS, SELECTION
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dashboard.run_filters import RunsQuery, read_query
from invoker.gateway.dashboard.selected_runs import (
    MAX_RUNS,
    Candidate,
    Change,
    Outcome,
    Outcomes,
    Plan,
    replay_key,
    run_ids,
)
from invoker.gateway.door import audit, caller_of, count_as, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.runs import visible_rows
from invoker.gateway.sight import Sight, needs_nats
from invoker.result import State

_ALL = "-all"
_IDS_IN_ONE = 9
"""Run ids in one field of an audit line, which is cut at 255 characters."""


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    async def question(request: Request, sight: Sight, fields: Form) -> Response:
        query, wish = read_query(fields), fields.get("do", "")
        change = _change(wish.removesuffix(_ALL))
        plan = await (_all(sight, query, change) if wish.endswith(_ALL) else _selected(sight, fields, change))
        return pages.question(
            request,
            plan.question,
            action=SELECTION,
            yes=plan.question.rstrip("?"),
            ends=plan.change is Change.CANCEL,
            back=query.address(),
            section="runs",
            facts=plan.facts,
            fields=[("do", change), *query.pairs(), *(("run", one.run_id) for one in plan.chosen)],
            nothing=None if plan.chosen else "Back to the runs",
        )

    @routes.get(SELECTION)
    async def ask(request: Request) -> Response:
        """What would be done with the selected runs, or with all that fit the filters."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.OPERATE)
        return await question(request, sight, Form(request.query_params.multi_items()))

    @routes.post(SELECTION)
    async def act(request: Request) -> Response:
        """Do it with the runs that the form names, and say what became of each. Safe to repeat.

        The list's own form (`?ask=1`) only asks. It is not read as an address, because two hundred ids are longer than
        many a proxy lets one be.
        """
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.OPERATE)
        form = await read_form(request)
        if "ask" in request.query_params:
            audit(request, asked=_change(form.get("do", "").removesuffix(_ALL)))
            return await question(request, sight, form)
        change, once, chosen = _change(form.get("do", "")), form.once, run_ids(form.all("run"))
        count_as(request, len(chosen))
        headers = passed_on(request)

        async def one(run_id: str) -> Outcome:
            if change is Change.CANCEL:
                return await _cancelled(sight, run_id)
            return await _replayed(sight, run_id, once, headers)

        outcomes = Outcomes(change, await some_at_once(chosen, one))
        parts = [chosen[start : start + _IDS_IN_ONE] for start in range(0, len(chosen), _IDS_IN_ONE)]
        named = {f"runs_{number}": " ".join(part) for number, part in enumerate(parts, 1)}
        audit(request, do=change, done=str(len(outcomes.done)), refused=str(len(outcomes.refused)), **named)
        return pages.page(
            request, "selection_done.html", title=outcomes.title, section="runs",
            outcomes=outcomes, back=read_query(form).address(),
        )  # fmt: skip

    return routes


def _change(text: str) -> Change:
    try:
        return Change(text)
    except ValueError as error:
        raise InputRefusedError("nobody said what to do with the runs", hint=f"go to {RUNS}, and choose") from error


async def _all(sight: Sight, query: RunsQuery, change: Change) -> Plan:
    """The runs that fit the filters. Raises an `InvokerError` for filters that cannot be read."""
    rows, looked_to = await visible_rows(sight, query.wanted(datetime.now(UTC)), MAX_RUNS + 1, None)
    candidates = [
        Candidate(row.run_id, row.function, row.finished, sight.may(Action.OPERATE, row.topic, row.function))
        for row in rows[:MAX_RUNS]
    ]
    return Plan(change, candidates, len(rows) > MAX_RUNS or looked_to is not None)


async def _selected(sight: Sight, fields: Form, change: Change) -> Plan:
    """The runs that the form names, as they are now."""

    async def candidate(run_id: str) -> Candidate:
        try:
            run, topic = await sight.run(run_id)
        except InvokerError:
            return Candidate(run_id)
        return Candidate(run_id, run.function, run.finished, sight.may(Action.OPERATE, topic, run.function))

    return Plan(change, await some_at_once(run_ids(fields.all("run")), candidate))


async def _cancelled(sight: Sight, run_id: str) -> Outcome:
    function = None
    try:
        run, topic = await sight.run(run_id)
        function = run.function
        sight.check(Action.OPERATE, topic, function)
        if run.state is State.CANCELLED:
            return Outcome(run_id, True, "cancelled", function)  # by this form, when it is sent twice
        done = await sight.gateway.client.cancel(run.request_id, function=function)
    except InvokerError as error:
        return Outcome(run_id, False, error.message, function)
    if run_id in done.cancelled:
        return Outcome(run_id, True, "cancelled", function)
    return Outcome(run_id, False, "had finished already, and keeps its result", function)


async def _replayed(sight: Sight, run_id: str, once: str, headers: dict[str, str]) -> Outcome:
    function = None
    try:
        run, topic = await sight.run(run_id)
        function = run.function
        sight.check(Action.OPERATE, topic, function)
        if not run.finished:
            return Outcome(run_id, False, "has not finished", function)
        receipt = await sight.gateway.client.replay(
            run.request_id,
            function=function,
            headers=headers,
            request_id=event_id(sight.caller, replay_key(once, run_id)).message_id,
        )
    except InvokerError as error:
        return Outcome(run_id, False, error.message, function)
    return Outcome(run_id, True, "runs again", function, receipt.request_id)
