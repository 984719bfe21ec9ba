"""The dashboard's own files as browsers get them: one style sheet, one module, one icon. Their addresses name their
content: browsers keep them for good and never have an old one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from invoker.errors import NoSuchPathError
from invoker.gateway.conditional import has_already, not_modified
from invoker.gateway.dashboard.paths import ASSETS
from invoker.gateway.gateway import Gateway

KINDS = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}
STYLES = (
    "foundations", "frame", "blocks", "tables", "states", "forms", "drawings", "frame_on_phones",
    "runs", "functions", "run", "overview", "topics", "chain", "tables_on_phones",
)  # fmt: skip
"""The parts of the style sheet. In this order: of two rules alike the later one holds."""
FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file and the hash of its bytes."""

    data: bytes
    digest: str


@cache
def asset(name: str) -> Asset:
    """The file of that name, read once."""
    folder = files("invoker.gateway.dashboard").joinpath("static")
    if name == "dashboard.css":
        data = b"\n".join(folder.joinpath("styles", f"{part}.css").read_bytes() for part in STYLES)
    else:
        data = folder.joinpath(name).read_bytes()
    return Asset(data, hashlib.sha256(data).hexdigest()[:16])


def asset_url(name: str) -> str:
    """Where the file is."""
    return f"{ASSETS}/{name}?v={asset(name).digest}"


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(ASSETS + "/{name}")
    async def get_asset(name: str, request: Request) -> Response:
        if name not in KINDS:
            raise NoSuchPathError(f"the dashboard has no file {name[:80]!a}")
        found = asset(name)
        tag = f'"{found.digest}"'
        if has_already(request, tag):
            return not_modified(tag)
        is_named = request.query_params.get("v") == found.digest
        headers = {"ETag": tag, "Cache-Control": FOR_GOOD if is_named else "no-cache"}
        return Response(found.data, headers=headers, media_type=KINDS[name])

    return routes
