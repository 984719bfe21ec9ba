"""Pieces of the OpenAPI document that a route's types do not tell: bodies that are read by hand, answers of bytes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from invoker.gateway.request_documents import CancelOrder

_ANY_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}

BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes, with the content type they came with", "content": _ANY_BYTES},
    206: {"description": "The part that was asked for", "content": _ANY_BYTES},
    304: {"description": "The caller has them"},
    409: {"description": "Not there yet"},
    410: {"description": "Not kept any more"},
    416: {"description": "Behind the end"},
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {}}},
}
REPLACING_BODY: dict[str, Any] = {
    "requestBody": {"description": "Replaces the payload", "required": False, "content": _ANY_BYTES},
    "parameters": [{"$ref": "#/components/parameters/idempotency-key"}],
}


def document_body(kind: type[BaseModel], *, required: bool = False) -> dict[str, Any]:
    """`openapi_extra` for a route that reads such a document from its body."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


ORDER_BODY = document_body(CancelOrder)
