"""Lists refuse a query parameter that they do not have: a filter that was passed over would answer with too much."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request

from invoker.errors import InputRefusedError

MAX_NAMED = 20
"""Unknown parameters that an answer names."""


def known_queries(*also: str) -> Any:
    """For routes whose query parameters all stand in their signature, or in `also`: others are refused by name."""

    async def check(request: Request) -> None:
        route = request.scope["route"]
        assert isinstance(route, APIRoute)
        known = sorted({*(field.alias for field in route.dependant.query_params), *also})
        problems = unknown_queries(list(dict(request.query_params)), known)
        if problems:
            words = f"{problems[0]['pointer']}: {problems[0]['detail']}"
            raise InputRefusedError(f"the call cannot be read: {words}", errors=problems)

    return Depends(check)


def unknown_queries(given: list[str], known: list[str]) -> list[dict[str, str]]:
    """What to say of each given name that is not among the known ones, as errors of a problem document."""
    names = [name for name in given if name not in known]
    return [{"pointer": f"/query/{name[:100]}", "detail": _unknown(name[:100], known)} for name in names[:MAX_NAMED]]


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return "there are no query parameters here"
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"is none of the query parameters here ({', '.join(known)}){meant}"
