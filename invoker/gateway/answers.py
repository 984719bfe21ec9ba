"""Answers of the gateway: problem documents for what is refused, JSON for the rest; nothing of our inside in either."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from invoker import wire
from invoker.errors import InvokerError, RangeRefusedError, RateLimitedError

RETRY_AFTER_SECONDS = 1


class JsonResponse(Response):
    """A JSON document; models, instants and enumerations are written as everywhere else."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content, by_alias=True)


def problem(error: InvokerError, *, instance: str | None = None) -> Response:
    """The error as `application/problem+json` (RFC 9457) with its status; 429 and 503 say when to try again."""
    document = error.problem()
    if instance is not None:
        document["instance"] = instance
    answer = Response(to_json(document, fallback=str), error.http_status, media_type=wire.CONTENT_TYPE_PROBLEM)
    if error.http_status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if error.http_status in (401, 408, 429):
        # Of 408 what else comes is the rest of that body. The others would keep a connection, of which there are only
        # so many, from those who may call.
        answer.headers["Connection"] = "close"
    if isinstance(error, RangeRefusedError):
        answer.headers["Content-Range"] = f"bytes */{error.fields.get('bytes', 0)}"
    if isinstance(error, RateLimitedError):
        answer.headers["Retry-After"] = str(max(1, round(error.fields.get("retry_after_seconds", 1))))
    elif error.http_status == 503:
        answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return answer


def unexpected() -> InvokerError:
    """What a caller is told of an error of ours; the log has the rest."""
    return InvokerError("the gateway failed; its log says why", hint="the same call may succeed later")
