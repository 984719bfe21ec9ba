"""Changing one run: cancel it, replay it with its payload or another one. Each asks once, and can be sent twice."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.forms import read_form
from invoker.gateway.dashboard.paths import HOME, url_for
from invoker.gateway.dashboard.payload_editing import editable_payload, edited_payload
from invoker.gateway.dashboard.payloads import input_content
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.door import audit, caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.requests import accepted_record, replay_of
from invoker.gateway.sight import Sight, needs_nats
from invoker.quantities import short_id, size
from invoker.views import RunView

MAX_MESSAGE = 500


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/runs/{{run_id}}/cancel")
    async def ask_cancel(run_id: str, request: Request) -> Response:
        """Ask whether the run is to be cancelled."""
        _, run, topic = await _operable(gateway, request, run_id)
        page = url_for("run", run.run_id)
        return pages.question(
            request,
            f"Cancel this run of {run.function}?",
            action=url_for("run", run.run_id, "cancel"),
            yes="Cancel the run",
            ends=True,
            back=page,
            section="runs",
            facts=[
                *_named(run, topic),
                ("State", str(run.state)),
                ("What happens", "Its process or pod is ended; when it has finished meanwhile, it keeps its result"),
            ],
            template="run_cancel.html",
            max_message=MAX_MESSAGE,
        )

    @routes.post(f"{HOME}/runs/{{run_id}}/cancel")
    async def cancel(run_id: str, request: Request) -> Response:
        """Cancel it; a finished one keeps its result."""
        _, run, _ = await _operable(gateway, request, run_id)
        message = (await read_form(request)).get("message", "").strip()[:MAX_MESSAGE]
        await gateway.client.cancel(run.request_id, function=run.function, message=message or None)
        return RedirectResponse(query(url_for("run", run.run_id), done="cancelled"), 303)

    @routes.get(f"{HOME}/runs/{{run_id}}/replay")
    async def ask_replay(run_id: str, request: Request) -> Response:
        """Ask whether, and with what, the function is to run again."""
        sight, run, topic = await _operable(gateway, request, run_id)
        view = await sight.request(run.request_id)
        record = accepted_record(view)
        text, why = await editable_payload(sight, view, run.function)
        return pages.question(
            request,
            f"Replay this run of {run.function}?",
            action=url_for("run", run.run_id, "replay"),
            yes="Replay the run",
            back=url_for("run", run.run_id),
            section="runs",
            facts=[
                *_named(run, topic),
                ("Payload", f"{size(record.body.size_bytes)}, {input_content(record).content_type or 'no type'}"),
                ("What happens", f"A new request runs {run.function} alone; this run stays as it is"),
            ],
            template="run_replay.html",
            text=text,
            why=why,
        )

    @routes.post(f"{HOME}/runs/{{run_id}}/replay")
    async def replay(run_id: str, request: Request) -> Response:
        """Publish the event again for this function alone; the new request's page follows."""
        sight, run, topic = await _operable(gateway, request, run_id)
        form = await read_form(request)
        data = edited_payload(form, gateway.settings.max_event_bytes)
        view = await sight.request(run.request_id)
        kind = input_content(accepted_record(view)).content_type if data is not None else None
        receipt = await replay_of(
            sight, request, run.request_id, topic, run.function, data=data, content_type=kind, key=form.once
        )
        audit(request, request_id=receipt.request_id)
        return RedirectResponse(query(url_for("request", receipt.request_id), done="replayed"), 303)

    return routes


async def _operable(gateway: Gateway, request: Request, run_id: str) -> tuple[Sight, RunView, str]:
    """The run, for one who may operate it. Raises `ForbiddenError`, `UnknownIdError` for who may not even see it."""
    sight = Sight(gateway, caller_of(request))
    run, topic = await sight.run(run_id)
    sight.check(Action.OPERATE, topic, run.function)
    return sight, run, topic


def _named(run: RunView, topic: str) -> list[tuple[str, str]]:
    return [("Function", run.function), ("Topic", topic), ("Run", short_id(run.run_id))]
