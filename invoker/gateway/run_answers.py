"""What the run API says no with, and how it hands out bytes: nothing here shows anything of our inside."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from invoker import wire
from invoker.errors import (
    BackPressureError,
    ClaimCheckError,
    InvokerError,
    OutputTooLargeError,
    PayloadTooLargeError,
    TopicError,
)

RETRY_AFTER_SECONDS = 1

_log = structlog.get_logger(component="run-api")


class StreamedBody(StreamingResponse):
    """A body that is read while it is sent. When reading fails the answer stays short of its length, and the server
    closes the connection: the one way left to say that the bytes are no good."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except InvokerError as error:
            _log.warning("input cut short", error_message=str(error), code=error.code)


def refusal(error: InvokerError, ids: Mapping[str, str | int]) -> Response:
    """The answer for an error: in full what the function did, in general words what we cannot do. `ids` say in the log
    whose call it was."""
    if error.http_status < 500 or isinstance(error, BackPressureError):
        return problem(error)
    if isinstance(error, ClaimCheckError):
        return problem(error, status=410)
    _log.warning("run API unavailable", **ids, error_message=str(error), code=error.code)
    return problem(type(error)("the run API cannot reach its custody now; the same call may succeed later"))


def problem(error: InvokerError, status: int | None = None) -> Response:
    """The error as problem+json; 5xx say when to try again."""
    status = status or (422 if isinstance(error, TopicError) else error.http_status)
    response = JSONResponse(error.problem() | {"status": status}, status, media_type=wire.CONTENT_TYPE_PROBLEM)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status >= 500:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def too_large(size: int, limit: int, what: str, *, more: bool = False) -> InvokerError:
    """The error that names both numbers; `more` when the size is only known to be above that."""
    kind = OutputTooLargeError if "output" in what else PayloadTooLargeError
    words = f"{what} has {'more than ' if more else ''}{size} bytes, at most {limit} are allowed"
    return kind(words, size_bytes=size, limit_bytes=limit)
