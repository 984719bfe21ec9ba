"""One HTTP connection: uvicorn's own protocol, with limits for heads, silent peers and connections at once.

What a framework never sees is refused here, as a problem document like every other: heads that are too slow, too long
or of two minds about where their body ends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from pydantic_core import to_json
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from invoker import wire

DRAIN_SECONDS = 5.0
"""A caller that was answered in the middle of its body may finish it for so long: closed at once, its system would
throw the answer away."""
TURNED_AWAY_SECONDS = 1.0
_WORDS = {
    408: ("head-slow", "the head of the call did not come in time"),
    414: ("url-too-long", "the address of the call is longer than {url_bytes} bytes"),
    431: ("head-too-large", "the head of the call is larger than {head_bytes} bytes, or has over {headers} headers"),
    501: ("invalid-request", "the call uses a transfer encoding that is not spoken here"),
    505: ("invalid-request", "only HTTP/1.1 is spoken here"),
    503: ("too-many-connections", "{detail} has as many connections as it may"),
}
# Faults of callers are answered, not logged: whoever sends nonsense shall not fill our disk with it.
_log = logging.getLogger("invoker.http")
_log.setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server bears. None: as many connections as come; seconds and bytes are in the names.

    `silent_seconds` is how long a caller may leave an answer unread that does not fit into the buffers between us;
    `address_connections` how many connections each address may have (0: any number), `counted_as` under which name its
    are counted (None: not at all).
    """

    connections: int | None = None
    header_seconds: float = 10.0
    silent_seconds: float = 60.0
    head_bytes: int = 32 * 1024
    headers: int = 100
    url_bytes: int = 8 * 1024
    address_connections: int = 0
    counted_as: Callable[[str], str | None] = str


class _Connection(h11.Connection):
    """h11's connection, which also refuses what it would take though another reader might see something else in it."""

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits = limits

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._check(event)
        return event

    def _check(self, request: h11.Request) -> None:
        if len(request.target) > self._limits.url_bytes:
            raise h11.RemoteProtocolError("url too long", error_status_hint=414)
        # h11 itself only measures heads that have not come whole yet.
        size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > self._limits.head_bytes or len(request.headers) > self._limits.headers:
            raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("no HTTP/1.1", error_status_hint=505)
        names = [name for name, _ in request.headers]
        if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
            # A proxy before us may believe the other one, and take the rest for a call of somebody else's.
            raise h11.RemoteProtocolError("two lengths of one body")
        if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in request.headers):
            raise h11.RemoteProtocolError("no websockets")


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol for one connection, with the limits. Made by `limited`."""

    limits = ServerLimits()
    of_address: ClassVar[Counter[str]] = Counter()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Connection(self.limits)
        self.logger = _log
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._turned_away = ""
        self._counted: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        self._turned_away = self._too_many(transport)
        super().connection_made(transport)
        if self._turned_away:
            self.connections.discard(self)  # it is not among those that are served
            self._within(TURNED_AWAY_SECONDS, "head", self.transport.close)
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        if self._turned_away:
            # Answered now, and not before: a client that is answered before it asked takes it for noise.
            if not self.transport.is_closing():
                self._refuse(503, self._turned_away)
            return
        super().data_received(data)
        self._watch_head()
        if self.conn.their_state is not h11.SEND_BODY:
            self._no_more("body")

    def connection_lost(self, exc: Exception | None) -> None:
        for name in ("head", "body", "answer"):
            self._no_more(name)
        if self._counted is not None:
            self.of_address[self._counted] -= 1
            if not self.of_address[self._counted]:
                del self.of_address[self._counted]
            self._counted = None
        super().connection_lost(exc)

    def _too_many(self, transport: asyncio.Transport) -> str:
        """Whose connections these are too many of; empty for one that is served, and counted."""
        limits, peer = self.limits, transport.get_extra_info("peername")
        if limits.connections is not None and len(self.connections) >= limits.connections:
            return "the gateway"
        counted = limits.counted_as(str(peer[0])) if limits.address_connections and peer else None
        if counted is None:
            return ""
        if self.of_address[counted] >= limits.address_connections:
            return "this address"
        self.of_address[counted] += 1
        self._counted = counted
        return ""

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._within(DRAIN_SECONDS, "body", self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._within(self.limits.silent_seconds, "answer", self.transport.abort)

    def resume_writing(self) -> None:
        self._no_more("answer")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's way of refusing what is no HTTP; called while the fault is being handled, which says what it is."""
        fault = sys.exc_info()[1]
        self._refuse(getattr(fault, "error_status_hint", 400), str(fault or msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: an upgrade that is not spoken here (h2c) may be left aside, and is no news."""

    def _watch_head(self) -> None:
        """The head of a request is due from its first byte on, of the first request from the connection on."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._no_more("head")
        else:
            self._within(self.limits.header_seconds, "head", self._head_is_late)

    def _head_is_late(self) -> None:
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            self.transport.close()  # it never asked for anything

    def _refuse(self, status: int, detail: str = "") -> None:
        """Answer with a problem and close; only close when an answer has begun."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        code, words = _WORDS.get(status, ("invalid-request", "the call is no HTTP that is taken here: {detail}"))
        document = {
            "type": f"https://invoker.dev/problems/{code}",
            "title": code.replace("-", " "),
            "status": status,
            "detail": words.format(
                url_bytes=self.limits.url_bytes, head_bytes=self.limits.head_bytes, headers=self.limits.headers,
                detail=detail[:100],
            ),
            "code": code,
        }  # fmt: skip
        headers = [("Content-Type", wire.CONTENT_TYPE_PROBLEM), ("Connection", "close")]
        if status == 503:
            headers.append(("Retry-After", "1"))
        body = to_json(document)
        response = h11.Response(
            status_code=status, headers=[*headers, ("Content-Length", str(len(body)))], reason=STATUS_PHRASES[status]
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _within(self, seconds: float, what: str, otherwise: Callable[[], None]) -> None:
        """Give the peer so long for that from now on, unless its time is running already."""
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, otherwise)

    def _no_more(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()


def limited(limits: ServerLimits) -> type[LimitedProtocol]:
    """The protocol with these limits, as a class, since that is what uvicorn wants to be given."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits, "of_address": Counter()})
