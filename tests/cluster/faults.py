"""What a fault proxy does wrong, and to which requests. Values only; `fault_proxy.py` acts on them.

Rule(Answer(429, headers={"Retry-After": "1"}), verb="create", resource="jobs", times=2)
Rule(CutStream(after_events=3), verb="watch")
Rule(CutAfterWrite(), verb="create", nth=2)
Rule(Slow(10), times=None)                      # all requests, until cleared
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The API server is not asked; this is answered. Without a body a `Status` of that code, as it would say it."""

    status: int
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CutBeforeForward:
    """The connection ends, the API server has heard nothing."""


@dataclass(frozen=True, slots=True)
class CutAfterWrite:
    """The API server has done it and answered; the connection ends before the answer is passed on."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The request is held for so many seconds, then forwarded."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CutStream:
    """The connection ends after so many lines of the answer; with `within_line` in the middle of the next one.

    With `politely` the answer ends as a whole one does, as some proxies make it.
    """

    after_events: int = 0
    within_line: bool = False
    politely: bool = False


@dataclass(frozen=True, slots=True)
class SilentStream:
    """After so many lines nothing more is passed on; the connection stays."""

    after_events: int = 0


@dataclass(frozen=True, slots=True)
class GoneInStream:
    """After so many lines the watch says that its version is too old (410), and ends."""

    after_events: int = 0


Fault = Answer | CutBeforeForward | CutAfterWrite | Slow | CutStream | SilentStream | GoneInStream


@dataclass(slots=True)
class Rule:
    """A fault for the requests that fit: from the `nth` of them on, `times` times (None: until cleared).

    `verb` is Kubernetes' word (create, get, list, watch, patch, update, delete, deletecollection, log for pods' logs),
    `resource` the plural (jobs, pods, configmaps), `path` a regular expression found in path and query.
    """

    fault: Fault
    verb: str | None = None
    resource: str | None = None
    path: str | None = None
    nth: int = 1
    times: int | None = 1
    seen: int = 0
    hits: int = 0
    _hit: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, verb: str, resource: str, path: str) -> bool:
        """Whether the fault befalls this request; counts it."""
        if not self._fits(verb, resource, path):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        self._hit.set()
        return True

    async def hit(self, within: float = 150) -> None:
        """Returns once the fault has befallen a request."""
        await asyncio.wait_for(self._hit.wait(), within)

    def _fits(self, verb: str, resource: str, path: str) -> bool:
        same = self.verb in (None, verb) and self.resource in (None, resource)
        return same and (self.path is None or re.search(self.path, path) is not None)


GONE = (
    b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"too old resource version: 10 (536)","reason":"Expired","code":410}}\n'
)
_REASONS = {
    401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


def status_body(code: int, message: str = "made by the fault proxy") -> bytes:
    """A `Status` object as the API server writes it."""
    status: dict[str, Any] = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": _REASONS.get(code, ""), "code": code,
    }  # fmt: skip
    return json.dumps(status).encode()


_PATH = re.compile(
    r"^(?:/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>.+))?$"
)


def classify(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Kubernetes' verb and resource of a request; other paths are ("get", path)."""
    found = _PATH.match(path)
    if found is None:
        return method.lower(), path
    resource, name = found["resource"], found["name"]
    if found["sub"] == "log":
        return "log", resource
    if method == "GET" and query.get("watch", "false") not in ("", "0", "false"):
        return "watch", resource
    verbs = {"GET": "get" if name else "list", "POST": "create", "PUT": "update", "PATCH": "patch"}
    return verbs.get(method, "delete" if name else "deletecollection"), resource
