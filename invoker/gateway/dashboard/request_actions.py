"""Changing one request: cancel what is unfinished, publish it again. Each asks once, and can be sent twice."""

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
from invoker.gateway.dashboard.run_actions import MAX_MESSAGE
from invoker.gateway.door import audit, caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.requests import accepted_record, cancel_runs, check_replay, replay_of
from invoker.gateway.sight import Sight, needs_nats
from invoker.quantities import count, short_id, size
from invoker.views import RequestView


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/requests/{{request_id}}/cancel")
    async def ask_cancel(request_id: str, request: Request) -> Response:
        """Ask whether what is unfinished is to be cancelled."""
        sight = Sight(gateway, caller_of(request))
        view = await sight.request(request_id)
        accepted_record(view)
        for run in view.runs:
            sight.check(Action.OPERATE, view.topic, run.function)
        going = [run for run in view.runs if not run.finished]
        return pages.question(
            request,
            f"Cancel {count(len(going), 'run')} of this request?" if going else "Nothing of this request is unfinished",
            action=url_for("request", view.request_id, "cancel"),
            yes="Cancel what is unfinished",
            ends=True,
            back=url_for("request", view.request_id),
            section="runs",
            facts=[
                *_named(view),
                ("Unfinished", ", ".join(run.function for run in going) or "none"),
                ("What happens", "Finished runs keep their result; what they caused goes on"),
            ],
            template="run_cancel.html",
            max_message=MAX_MESSAGE,
        )

    @routes.post(f"{HOME}/requests/{{request_id}}/cancel")
    async def cancel(request_id: str, request: Request) -> Response:
        """Cancel its unfinished runs; finished ones keep their result."""
        sight = Sight(gateway, caller_of(request))
        whole = await sight.whole_request(request_id)
        message = (await read_form(request)).get("message", "").strip()[:MAX_MESSAGE]
        await cancel_runs(sight, whole, None, message or None)
        return RedirectResponse(query(url_for("request", whole.request_id), done="cancelled"), 303)

    @routes.get(f"{HOME}/requests/{{request_id}}/replay")
    async def ask_replay(request_id: str, request: Request) -> Response:
        """Ask whether the event is to be published again, and for which functions."""
        sight = Sight(gateway, caller_of(request))
        whole = await sight.whole_request(request_id)
        check_replay(sight, whole, None)
        record = accepted_record(whole)
        text, why = await editable_payload(sight, whole, None)
        return pages.question(
            request,
            "Replay this request?",
            action=url_for("request", whole.request_id, "replay"),
            yes="Replay the request",
            back=url_for("request", whole.request_id),
            section="runs",
            facts=[
                *_named(whole),
                ("Payload", f"{size(record.body.size_bytes)}, {input_content(record).content_type or 'no type'}"),
                ("What happens", "A new request with this event; the old one stays as it is"),
            ],
            template="request_replay.html",
            functions=[run.function for run in whole.runs],
            text=text,
            why=why,
        )

    @routes.post(f"{HOME}/requests/{{request_id}}/replay")
    async def replay(request_id: str, request: Request) -> Response:
        """Publish the event again, for all functions or one; the new request's page follows."""
        sight = Sight(gateway, caller_of(request))
        whole = await sight.whole_request(request_id)
        form = await read_form(request)
        function = form.get("function") or None
        check_replay(sight, whole, function)
        data = edited_payload(form, gateway.settings.max_event_bytes)
        kind = input_content(accepted_record(whole)).content_type if data is not None else None
        receipt = await replay_of(
            sight, request, whole.request_id, whole.topic, function, data=data, content_type=kind, key=form.once
        )
        audit(request, made=receipt.request_id)
        return RedirectResponse(query(url_for("request", receipt.request_id), done="replayed"), 303)

    return routes


def _named(view: RequestView) -> list[tuple[str, str]]:
    return [("Topic", view.topic), ("Request", short_id(view.request_id))]
