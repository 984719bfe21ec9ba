"""Payloads on pages and as downloads, for the dashboard's own addresses: the browser's cookie is for nothing else.

A caller who may not operate on what a payload is for sees it without the fields that are declared secret, and gets no
bytes of one that has such fields.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ClaimCheckError, ForbiddenError, NoSuchPathError, NotReadyError
from invoker.gateway.content import content_answer, sha256_of
from invoker.gateway.dashboard.paths import HOME, url_for
from invoker.gateway.dashboard.payload_view import READ_BYTES, PayloadView, gone, image_type, payload_view
from invoker.gateway.dashboard.secrets import Veil
from invoker.gateway.dashboard.veils import input_veil, output_veil
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.requests import accepted_record
from invoker.gateway.sight import Sight, needs_nats
from invoker.request import Content, RequestRecord
from invoker.views import RequestView, RunView

_MAGIC_BYTES = 16
_VEILED_AT_ONCE = 32 * 1024


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(f"{HOME}/requests/{{request_id}}/input")
    async def input_bytes(request_id: str, request: Request) -> Response:
        """The event's bytes, to be kept as a file."""
        view, record = await _input(gateway, request, request_id)
        return await content_answer(request, gateway, input_content(record), record.sha256, view.request_id)

    @routes.get(f"{HOME}/requests/{{request_id}}/input/image")
    async def input_image(request_id: str, request: Request) -> Response:
        """The event's bytes as an image in a page."""
        view, record = await _input(gateway, request, request_id)
        return await _image(request, gateway, input_content(record), record.sha256, view.request_id)

    @routes.get(f"{HOME}/runs/{{run_id}}/output")
    async def output_bytes(run_id: str, request: Request) -> Response:
        """The output's bytes, to be kept as a file."""
        run, output = await _output(gateway, request, run_id)
        return await content_answer(request, gateway, output, sha256_of(output), run.run_id)

    @routes.get(f"{HOME}/runs/{{run_id}}/output/image")
    async def output_image(run_id: str, request: Request) -> Response:
        """The output's bytes as an image in a page."""
        run, output = await _output(gateway, request, run_id)
        return await _image(request, gateway, output, sha256_of(output), run.run_id)

    return routes


async def input_shown(sight: Sight, view: RequestView) -> PayloadView:
    """The request's event as the caller may see it; `none` while there is no record."""
    if view.record is None:
        return PayloadView("none")
    content = input_content(view.record)
    download = url_for("request", view.request_id, "input")
    return await _shown(sight.gateway, content, view.record.sha256, download, await input_veil(sight, view))


async def output_shown(sight: Sight, run: RunView, topic: str) -> PayloadView:
    """The run's output as the caller may see it; `none` while it is unfinished."""
    if run.result is None:
        return PayloadView("none")
    output = run.result.output
    download = url_for("run", run.run_id, "output")
    return await _shown(sight.gateway, output, sha256_of(output), download, output_veil(sight, run, topic))


async def beginning(gateway: Gateway, content: Content, limit: int = READ_BYTES) -> bytes:
    """The first bytes of a payload. Raises `ClaimCheckError` when they are gone."""
    inline = content.inline_bytes()
    if inline is not None or content.size_bytes == 0:
        return (inline or b"")[:limit]
    last = min(content.size_bytes, limit) - 1
    async with aclosing(gateway.client.stored.part(content, 0, last)) as chunks:  # type: ignore[type-var]  # a generator
        return b"".join([chunk async for chunk in chunks])


def input_content(record: RequestRecord) -> Content:
    """The event's bytes with their content type, which may stand in a header."""
    given = record.body.content_type or wire.header(record.headers, wire.H_CONTENT_TYPE)
    return record.body.model_copy(update={"content_type": given})


def check_unveiled(veil: Veil) -> None:
    """Raise `ForbiddenError` when the veil hides anything: bytes are given whole or not at all."""
    if veil.hides:
        raise ForbiddenError(
            "this payload has, or may have, fields that its function declares secret",
            hint="its page shows the others; the bytes are for who may operate the function",
        )


async def _shown(gateway: Gateway, content: Content, sha256: str, download: str, veil: Veil) -> PayloadView:
    try:
        data = await beginning(gateway, content)
    except ClaimCheckError:
        return gone(content.size_bytes, content.content_type)
    return await view_of(content, data, sha256, download=download, image=f"{download}/image", veil=veil)


async def view_of(
    content: Content, data: bytes, sha256: str, *, download: str, image: str | None = None, veil: Veil
) -> PayloadView:
    """The view of a payload of which these are the first bytes. A large one is veiled in a thread: its schema may have
    patterns, and it many thousand keys to be tried with each, while the gateway has other callers."""
    view = partial(
        payload_view, data, content.size_bytes, content.content_type, sha256, download=download, image=image, veil=veil
    )
    return await asyncio.to_thread(view) if veil.hides and len(data) > _VEILED_AT_ONCE else view()


async def _input(gateway: Gateway, request: Request, request_id: str) -> tuple[RequestView, RequestRecord]:
    sight = Sight(gateway, caller_of(request))
    view = await sight.request(request_id)
    record = accepted_record(view)
    check_unveiled(await input_veil(sight, view))
    return view, record


async def _output(gateway: Gateway, request: Request, run_id: str) -> tuple[RunView, Content]:
    sight = Sight(gateway, caller_of(request))
    run, topic = await sight.run(run_id)
    if run.result is None:
        raise NotReadyError(f"run {run.run_id} is {run.state}: it has no output yet")
    check_unveiled(output_veil(sight, run, topic))
    return run, run.result.output


async def _image(request: Request, gateway: Gateway, content: Content, sha256: str, name: str) -> Response:
    """The bytes for an `<img>`, when they are one: what a browser makes of them is neither page nor script."""
    kind = image_type(await beginning(gateway, content, _MAGIC_BYTES), content.content_type)
    if kind is None:
        raise NoSuchPathError("this payload is no image of a kind that is shown")
    typed = content.model_copy(update={"content_type": kind})
    answer = await content_answer(request, gateway, typed, sha256, name)
    answer.headers["Content-Disposition"] = "inline"
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return answer
