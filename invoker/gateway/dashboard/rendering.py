"""From values to pages: templates with everything escaped, and the headers that every page has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from invoker import quantities
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard import words
from invoker.gateway.dashboard.assets import asset_url
from invoker.gateway.dashboard.forms import new_key, text_digest
from invoker.gateway.dashboard.paths import HOME, url_for
from invoker.gateway.dashboard.session import has_session
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.version import __version__

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing of others, nothing written into a page: what a function or a publisher wrote is text, whatever it looks like.
"""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SECTIONS = (
    ("overview", "Overview", HOME),
    ("runs", "Runs", f"{HOME}/runs"),
    ("functions", "Functions", f"{HOME}/functions"),
    ("topics", "Topics", f"{HOME}/topics"),
    ("dead-letters", "Dead letters", f"{HOME}/dead-letters"),
)
"""The parts of the dashboard, in the order of its navigation: key, name, address."""


class HtmlPage(Response):
    """A page with the headers of all pages."""

    media_type = "text/html"

    def __init__(self, text: str, status: int = 200) -> None:
        super().__init__(text, status, headers=HEADERS)


class Pages:
    """Draws the pages of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def page(
        self,
        request: Request,
        template: str,
        *,
        title: str,
        section: str = "",
        live: str | None = None,
        status: int = 200,
        **values: Any,
    ) -> Response:
        """The page as the caller sees it. `live` is the address of the stream of its changes (`live_url`)."""
        caller = caller_of(request)
        frame = {
            "title": title,
            "section": section,
            "live": live,
            "caller": caller,
            "signed_in": has_session(request),
            "address": _address(request),
            "notice": words.notice(request.query_params.get("done")),
            "loading": not self._gateway.runs.loaded,
            # How many there are is told only to who sees all of them.
            "loaded": len(self._gateway.runs) if caller.sees_everything() else None,
            "away": not self._gateway.client.is_connected,
            "now": datetime.now(UTC),
        }
        return HtmlPage(render(template, **frame, **values), status)

    def question(
        self,
        request: Request,
        question: str,
        *,
        action: str,
        yes: str,
        back: str,
        section: str = "",
        facts: Sequence[tuple[str, str]] = (),
        fields: Sequence[tuple[str, str]] = (),
        nothing: str | None = None,
        ends: bool = False,
        template: str = "confirm.html",
        **values: Any,
    ) -> Response:
        """The page that asks once before a change: `action` is where its form is sent, with a key of its own, so that
        sending it twice is the same as once. With `nothing` there is nothing to do: only the way back, in these
        words. What `ends` something looks so: its button is not taken for one that only asks."""
        return self.page(
            request, template, title=question, section=section, question=question, action=action, yes=yes, back=back,
            facts=facts, fields=fields, nothing=nothing, ends=ends, once=new_key(), **values,
        )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """The text of a template with these values; what is not given raises. Pure."""
    return _TEMPLATES.get_template(template).render(**values)


def bare_page(template: str, title: str, status: int, **values: Any) -> Response:
    """A page for somebody who is not known: no navigation, no names."""
    return HtmlPage(render(template, title=title, status=status, **values), status)


def query(path: str, **values: Any) -> str:
    """The path with those values that are given as its query. Pure."""
    given = [(name, value) for name, value in values.items() if value not in (None, "", False)]
    return f"{path}?{urlencode(given)}" if given else path


def _address(request: Request) -> str:
    """Where the reader is, for links that lead back here; without what was only said once."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "done"]
    path = quote(request.url.path)
    return f"{path}?{urlencode(kept)}" if kept else path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("invoker.gateway.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": quantities.duration,
        "size": quantities.size,
        "short_id": quantities.short_id,
        "text_digest": text_digest,
        "ago": words.ago,
        "instant": words.instant,
        "number": words.number,
        "sentence": words.sentence,
    }
    environment.globals |= {
        "sections": SECTIONS,
        "version": __version__,
        "Action": Action,
        "asset": asset_url,
        "url_for": url_for,
        "query": query,
        "between": quantities.between,
        "counted": quantities.count,
        "home": HOME,
    }
    return environment


_TEMPLATES = _environment()


def template_names() -> Sequence[str]:
    """Every template there is."""
    return _TEMPLATES.list_templates()
