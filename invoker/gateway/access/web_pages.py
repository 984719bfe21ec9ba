"""Which web pages may call: those of the origins that are set, and protection against all others.

A browser on this machine, or on the network, sends what any page tells it to. A page cannot add a key that it does not
have; where calls without key or token may do something, they are told apart by what browsers do not let pages choose:
`Origin` and `Host`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from invoker.errors import ForbiddenError
from invoker.gateway.settings import GatewaySettings

TOLD_TO_PAGES = (
    "ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "Content-Disposition",
)  # fmt: skip
"""Headers of answers that scripts of pages may read."""


def allowing_pages(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """The application with CORS for these origins, outside of its door, so that refusals can be read too."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=list(origins), allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"], allow_headers=["*"],
        expose_headers=TOLD_TO_PAGES, max_age=600,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageGuard:
    """The rules of one gateway. `listens_on` is its address; `origins` are those whose pages may call."""

    listens_on: str
    origins: Collection[str]

    @classmethod
    def of(cls, settings: GatewaySettings) -> PageGuard | None:
        """None where nothing is allowed without a key: then there is nothing that a page could do."""
        return cls(settings.gateway_host, settings.gateway_cors_origins) if settings.gateway_anonymous else None

    def check(self, headers: Headers, *, changing: bool) -> None:
        """Raise `ForbiddenError` for a call that only a web page of somebody else's would make."""
        host = headers.get("host", "")
        if is_loopback(self.listens_on) and not is_loopback(host_name(host)):
            # A page of evil.example whose name now leads to 127.0.0.1 is of the same origin for its browser.
            raise ForbiddenError(
                f"calls to {host[:80]!a} are not for this gateway, which listens on {self.listens_on} only",
                hint="call it as localhost or by its address",
            )
        if not changing:
            return
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and not is_same_origin(origin, host):
            raise ForbiddenError(
                f"pages of {origin[:80]!a} may not call this gateway",
                hint="INVOKER_GATEWAY_CORS_ORIGINS names those that may",
            )
        if origin is None and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ForbiddenError("pages of other sites may not call this gateway")


def warnings_about(settings: GatewaySettings) -> list[str]:
    """What an operator may not have meant, in words: everybody let in, or nobody."""
    allowed = settings.gateway_anonymous
    if not allowed and settings.gateway_keys is None and settings.gateway_jwks is None:
        return ["nobody may do anything here: set INVOKER_GATEWAY_KEYS (invoker keys new), or INVOKER_GATEWAY_JWKS"]
    if set(allowed) - {"read"} and not is_loopback(settings.gateway_host):
        return [f"everybody who reaches {settings.gateway_host} may {', '.join(allowed)}: INVOKER_GATEWAY_ANONYMOUS"]
    return []


def host_name(host: str) -> str:
    """The name in a `Host` header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0] if "]" in host else ""
    return host.partition(":")[0]


def is_loopback(name: str) -> bool:
    """Whether a name or address can only be this machine's own."""
    lowered = name.lower().rstrip(".")
    if lowered == "localhost" or lowered.endswith(".localhost"):
        return True
    try:
        return ip_address(lowered).is_loopback
    except ValueError:
        return False


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of that origin came from the address that it calls."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()
