"""Publishing over HTTP: `POST /v1/topics/{topic}`, raw bytes as they come."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import InvokerError
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.documents import accepted
from invoker.gateway.door import caller_of, passed_on
from invoker.gateway.gateway import Gateway
from invoker.views import Receipt, RequestView


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["publish"])

    @routes.post("/v1/topics/{topic}", status_code=202)
    async def publish(topic: str, request: Request) -> Response:
        """Publish one event: the body is the event, whatever it is."""
        caller_of(request).check(Action.PUBLISH, topic=wire.check_topic(topic))
        data = await request.body()
        return await _published(gateway, request, topic, data)

    return routes


async def _published(gateway: Gateway, request: Request, topic: str, data: bytes) -> Response:
    request_id = request.headers.get("idempotency-key") or gateway.client.new_request_id()
    async with gateway.client.feed.watch(request_id) as watch:
        receipt = await gateway.client.publish(
            topic, data, content_type=request.headers.get("content-type"), headers=passed_on(request),
            request_id=request_id,
        )  # fmt: skip
        if not receipt.duplicate:
            try:
                async with asyncio.timeout(gateway.settings.gateway_accept_seconds):
                    await watch.next()
            except TimeoutError:
                pass
    view = await _view(gateway, receipt)
    headers = {"Location": f"/v1/requests/{receipt.request_id}"}
    return JsonResponse(accepted(view, duplicate=receipt.duplicate), 202, headers=headers)


async def _view(gateway: Gateway, receipt: Receipt) -> RequestView:
    """The request as it is now: its event is stored, whatever goes wrong from here on."""
    try:
        return await gateway.client.result(receipt.request_id)
    except InvokerError:
        return RequestView(receipt.request_id, receipt.topic, None)
