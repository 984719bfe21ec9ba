"""Request targets in absolute form (`POST http://gateway:8080/v1/… HTTP/1.1`), which every HTTP server has to take.

Clients that were told to use a proxy send them. It also is how a function with an address in its code reaches this
gateway unchanged: its environment says `http_proxy`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class OriginForm:
    """Wraps an application: it only sees paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/"):
            raw = path_of(scope["raw_path"].decode("latin-1")).encode("latin-1")
            scope = {**scope, "path": path_of(scope["path"]), "raw_path": raw}
        await self._app(scope, receive, send)


def path_of(target: str) -> str:
    """The path in a target of absolute form; anything else stays as it is. Pure."""
    scheme, there, rest = target.partition("://")
    if not there or scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]
