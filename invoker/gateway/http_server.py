"""Serving HTTP inside the event loop of the program it is part of; liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from invoker.errors import SettingsError
from invoker.gateway.http_protocol import ServerLimits, limited

Served: TypeAlias = Sequence[BaseRoute] | ASGIApp
Routes: TypeAlias = list[BaseRoute]
METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def probe_routes(
    unready: Callable[[], list[str]], metrics: Callable[[], bytes], degraded: Callable[[], list[str]] = list
) -> list[BaseRoute]:
    """`/livez`: the loop answers. `/readyz`: 200, or 503 with what is missing. `/metrics`: Prometheus' text format.

    What is `degraded` is told beside it and keeps nobody from being ready. `metrics` is called in a thread: with a
    thousand functions its text takes a second.
    """

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        missing = unready()
        answer: dict[str, object] = {"ready": not missing, "missing": missing}
        if worse := degraded():
            answer["degraded"] = worse
        return JSONResponse(answer, status_code=503 if missing else 200)

    async def exposition(_: Request) -> Response:
        return Response(await asyncio.to_thread(metrics), media_type=METRICS_CONTENT_TYPE)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", exposition)]


@asynccontextmanager
async def http_server(
    served: Served, host: str, port: int, setting: str, limits: ServerLimits | None = None
) -> AsyncIterator[str]:
    """The routes (or a whole application), served until this is left; gives the base URL.

    Raises `SettingsError`, with the setting's name in front, when the port is taken.
    """
    listener = _listener(host, port, setting)
    server = _Server(
        uvicorn.Config(
            Starlette(routes=list(served)) if isinstance(served, Sequence) else served,
            http=limited(limits or ServerLimits()),
            ws="none",
            proxy_headers=False,  # whose X-Forwarded-For is believed is a setting: invoker/gateway/access/limits.py
            server_header=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
    )
    with listener:
        actual = listener.getsockname()[1]
        async with server.running([listener]):
            yield f"http://{host if ':' not in host else f'[{host}]'}:{actual}"


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the program it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def running(self, sockets: list[socket.socket]) -> AsyncIterator[None]:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=sockets)
        try:
            yield
        finally:
            self.should_exit = True
            await self.shutdown(sockets=sockets)


def _listener(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio turns Nagle's algorithm off for sockets that say TCP only, and with it every
    # second answer on a connection waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{setting}: {host}:{port} cannot be listened on: {error.strerror}",
            hint="choose another port, or 0",
        ) from error
    listener.setblocking(False)
    return listener
