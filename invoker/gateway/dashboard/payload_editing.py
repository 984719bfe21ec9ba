"""A payload that is sent again: as text for who may change it, and back from the form."""

from __future__ import annotations

from invoker.errors import ClaimCheckError, NotReadyError, PayloadTooLargeError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.forms import Form, text_bytes, text_digest
from invoker.gateway.dashboard.payload_view import editable
from invoker.gateway.dashboard.payloads import beginning
from invoker.gateway.dashboard.veils import input_veil
from invoker.gateway.gateway import Gateway
from invoker.gateway.requests import accepted_record
from invoker.gateway.sight import Sight
from invoker.request import Content
from invoker.views import RequestView

NOT_YOURS_TO_EDIT = "To edit the payload one must be allowed to publish on the topic."


async def editable_payload(sight: Sight, view: RequestView, function: str | None) -> tuple[str | None, str]:
    """The event's payload as text to be edited for that function, or for all; or None and why not."""
    record = accepted_record(view)
    if not sight.may(Action.PUBLISH, view.topic, function):
        return None, NOT_YOURS_TO_EDIT
    if (await input_veil(sight, view)).hides:
        return None, "The payload has fields that another function declares secret, so it is not shown here."
    return await editable_text(sight.gateway, record.body)


async def editable_text(gateway: Gateway, content: Content) -> tuple[str | None, str]:
    """The bytes as text to be edited, or None and why not. Raises `NotReadyError` when they are not kept any more."""
    try:
        text = editable(await beginning(gateway, content), content.size_bytes)
    except ClaimCheckError as error:
        raise NotReadyError("the payload is not kept any more, so it cannot be published again") from error
    return text, "" if text is not None else "The payload is too large, or no text, to be edited here."


def edited_payload(form: Form, limit_bytes: int) -> bytes | None:
    """The payload that the form brings, None when it comes back as it was drawn: then that of the event is sent, byte
    for byte. Raises `PayloadTooLargeError`. Pure."""
    if "data" not in form or text_digest(form["data"]) == form.get("drawn"):
        return None
    data = text_bytes(form["data"])
    if len(data) > limit_bytes:
        raise PayloadTooLargeError(
            f"the payload is larger than {limit_bytes} bytes (INVOKER_MAX_EVENT_BYTES)", limit_bytes=limit_bytes
        )
    return data
