"""Answers that a caller may have already: entity tags, `If-None-Match`, 304. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from invoker.gateway.answers import JsonResponse

_TAG = re.compile(r'(?:W/)?("[^"]*")')
PRIVATE = "private, no-cache"
"""Kept by the caller alone, and asked for again each time: who may see it can change."""


def tag_of(data: bytes) -> str:
    """The entity tag of these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def has_already(request: Request, tag: str) -> bool:
    """Whether the caller says that he has what this tag names."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag in _TAG.findall(given)


def not_modified(tag: str) -> Response:
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": PRIVATE})


def tagged(request: Request, document: Any, headers: dict[str, str] | None = None) -> Response:
    """The document with its tag, or 304 when the caller has it."""
    answer = JsonResponse(document, headers=headers)
    tag = tag_of(bytes(answer.body))
    if has_already(request, tag):
        return not_modified(tag)
    answer.headers["ETag"] = tag
    answer.headers["Cache-Control"] = PRIVATE
    return answer
