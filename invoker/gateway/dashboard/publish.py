"""Publishing from a page: a form made from the schema of the function that is called, or for any topic a text."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker.errors import IdempotencyMismatchError, TopicError, UnknownIdError
from invoker.gateway.acceptance import Arrival, accept
from invoker.gateway.access.scopes import Action
from invoker.gateway.calls import known_function
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dashboard.forms import new_key, read_form
from invoker.gateway.dashboard.function_view import listens
from invoker.gateway.dashboard.paths import FUNCTIONS, PUBLISH, TOPICS, url_for
from invoker.gateway.dashboard.publish_view import (
    CONTENT_TYPES,
    FIELD,
    PARAMETER,
    PublishForm,
    Target,
    Typed,
    empty_form,
    read_typed,
    shown_form,
    switched,
    together,
    typed_event,
)
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.door import audit, caller_of, passed_on
from invoker.gateway.event_id import event_id
from invoker.gateway.gateway import Gateway
from invoker.gateway.publishing import open_topic
from invoker.gateway.run_body import Body
from invoker.gateway.sight import Sight, needs_nats
from invoker.schema import Problem

_THREAD_ABOVE_BYTES = 256 * 1024
SENT_BEFORE = "This form was sent before, with something else in it. Send it once more to publish this as well."


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(FUNCTIONS + "/{name}/publish")
    async def ask_call(name: str, request: Request) -> Response:
        """The form for calling a function, made from the schema of its input."""
        target = await _function(gateway, request, name)
        return _drawn(request, empty_form(target), url_for("function", name, "publish"), url_for("function", name))

    @routes.post(FUNCTIONS + "/{name}/publish")
    async def call(name: str, request: Request) -> Response:
        """Call the function with what was typed. Sent twice it is one request."""
        target = await _function(gateway, request, name)
        return await _sent(request, target, url_for("function", name, "publish"), url_for("function", name))

    @routes.get(PUBLISH)
    async def ask_publish(request: Request) -> Response:
        """The form for an event on any topic; it asks for the topic first."""
        topic = request.query_params.get("topic", "").strip()
        try:
            target = _topic(gateway, request, topic) if topic else None
        except TopicError as error:
            return _asked_topic(request, topic, error.message)
        if target is None:
            caller_of(request).check(Action.PUBLISH)
            return _asked_topic(request, "", None)
        return _drawn(request, empty_form(target), query(PUBLISH, topic=topic), TOPICS)

    @routes.post(PUBLISH)
    async def publish(request: Request) -> Response:
        """Publish what was typed on the topic. Sent twice it is one request."""
        topic = request.query_params.get("topic", "").strip()
        audit(request, topic=topic)
        target = _topic(gateway, request, topic)
        return await _sent(request, target, query(PUBLISH, topic=topic), TOPICS)

    async def _sent(request: Request, target: Target, action: str, back: str) -> Response:
        form = await read_form(request)
        typed, once = read_typed(target, form), form.once
        if form.get("switch") in ("fields", "raw"):
            other = switched(target, typed, "fields" if form["switch"] == "fields" else "raw")
            return _drawn(request, other, action, back)
        data, content_type, unread = typed_event(target, typed)
        notes = _notes(gateway, data, content_type)
        of_input, of_parameters = await _problems(gateway.catalog, target, data, content_type, typed)
        if unread or notes or of_input or of_parameters:
            wrong = {"of_input": together(unread, of_input), "of_parameters": of_parameters}
            return _refused(request, shown_form(target, typed, notes=notes, **wrong), action, back)
        caller = caller_of(request)
        identifier = event_id(caller, once)
        arrival = Arrival(target.topic, identifier, Body(data, None), content_type, passed_on(request), typed.params)
        try:
            await accept(gateway, arrival, 0)
        except IdempotencyMismatchError:
            return _refused(request, shown_form(target, typed, notes=[SENT_BEFORE]), action, back)
        audit(request, request_id=identifier.request_id)
        if not Sight(gateway, caller).may(Action.READ, target.topic):
            return RedirectResponse(f"{action}{'&' if '?' in action else '?'}done=sent", 303)
        return RedirectResponse(query(url_for("request", identifier.request_id), done="published"), 303)

    def _refused(request: Request, form: PublishForm, action: str, back: str) -> Response:
        return _drawn(request, form, action, back, 422)

    def _drawn(request: Request, form: PublishForm, action: str, back: str, status: int = 200) -> Response:
        called = form.target.function is not None
        return pages.page(
            request,
            "publish.html",
            title=f"Call {form.target.name}" if called else f"Publish on {form.target.name}",
            section="functions" if called else "topics",
            status=status,
            form=form,
            action=action,
            back=back,
            once=new_key(),
            content_types=CONTENT_TYPES,
            field_prefix=FIELD,
            parameter_prefix=PARAMETER,
        )

    def _asked_topic(request: Request, topic: str, problem: str | None) -> Response:
        return pages.page(
            request, "publish_topic.html", title="Publish an event", section="topics", topic=topic, problem=problem,
            action=PUBLISH, status=200 if problem is None else 422,
        )  # fmt: skip

    return routes


async def _function(gateway: Gateway, request: Request, name: str) -> Target:
    """The function, when the caller may call it. Raises `UnknownIdError` or `ForbiddenError`."""
    await known_function(gateway.catalog, name, request)
    found = gateway.catalog.function(name)
    if found is None:
        raise UnknownIdError(f"the function {name!r} is not known here yet: no controller answers", function=name)
    return Target(gateway.client.names.direct_topic(name), name, (found,))


def _topic(gateway: Gateway, request: Request, topic: str) -> Target:
    """The topic with the functions that may run for it, as far as the caller may see them."""
    caller = caller_of(request)
    caller.check(Action.PUBLISH)
    caller.check(Action.PUBLISH, topic=open_topic(gateway, topic))
    listeners = tuple(
        one
        for one in gateway.catalog.present.functions
        if listens(one, topic) and caller.may(Action.READ, function=one.name)
    )
    return Target(topic, None, listeners)


async def _problems(
    catalog: CatalogCopy, target: Target, data: bytes, content_type: str | None, typed: Typed
) -> tuple[list[Problem], list[Problem]]:
    """What the one function that runs would refuse, in the input and in the parameters. On a topic any text may be
    published, as over the API: a function that does not like it says so in its run."""
    if target.checked is None or (target.function is None and typed.mode == "raw"):
        return [], []
    name = target.checked.name
    found = await _checked(catalog, name, data, content_type, typed)
    if any(found):
        await catalog.renewed()  # the function may have changed since the copy was made
        found = await _checked(catalog, name, data, content_type, typed)
    return found


async def _checked(
    catalog: CatalogCopy, name: str, data: bytes, content_type: str | None, typed: Typed
) -> tuple[list[Problem], list[Problem]]:
    of_parameters = catalog.parameter_problems(name, typed.params)
    if len(data) <= _THREAD_ABOVE_BYTES:
        return catalog.input_problems(name, data, content_type), of_parameters
    return await asyncio.to_thread(catalog.input_problems, name, data, content_type), of_parameters


def _notes(gateway: Gateway, data: bytes, content_type: str | None) -> list[str]:
    """What is wrong with an event whatever function it runs."""
    notes = []
    if len(data) > gateway.settings.max_event_bytes:
        notes.append(f"The event has {len(data):,} bytes; {gateway.settings.max_event_bytes:,} are allowed.")
    if content_type is not None and (
        len(content_type) > 255 or not content_type.isprintable() or not content_type.isascii()
    ):
        notes.append("The content type is none: write a type as application/json.")
    return notes
