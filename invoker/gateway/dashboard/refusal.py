"""What a browser is shown instead of a problem document: a page that says the same, or the page for signing in."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import RedirectResponse, Response

from invoker.gateway.dashboard.paths import HOME
from invoker.gateway.dashboard.rendering import bare_page
from invoker.gateway.dashboard.session import login_address


def refusal_page(status: int, body: bytes, asked_for: str | None, had_session: bool) -> Response:
    """The answer for a problem document of that status; `asked_for` is the page that was wanted, None of a change."""
    if status == 401:
        return RedirectResponse(login_address(asked_for or HOME, refused=had_session), 303)
    try:
        title = HTTPStatus(status).phrase.capitalize()
    except ValueError:
        title = "Refused"
    return bare_page(
        "refusal.html", title, status, problem=_document(body), again=status == 503 and asked_for is not None
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
