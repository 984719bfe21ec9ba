"""From a problem document (RFC 9457) back to the error it was made of. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from invoker.errors import InvokerError

_STANDARD = {"type", "title", "status", "detail", "instance", "code", "hint"}


def error_of_problem(document: dict[str, Any], fallback: str = "the server reported an error") -> InvokerError:
    """The error of the document's code, with its hint and fields; an unknown code gives a plain `InvokerError`."""
    kind = _BY_CODE.get(str(document.get("code")), InvokerError)
    # A field may be named as anything; the two that a constructor knows would collide.
    fields = {key: value for key, value in document.items() if key not in _STANDARD and key not in ("message", "self")}
    return kind(str(document.get("detail") or fallback), hint=document.get("hint"), **fields)


def parsed_problem(data: bytes) -> dict[str, Any] | None:
    """The problem document in the bytes, None when there is none."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _all(kind: type[InvokerError]) -> Iterator[type[InvokerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all(child)


_BY_CODE = {kind.code: kind for kind in _all(InvokerError) if kind.__module__ == InvokerError.__module__}
