"""Servers of a test that pods, or programs on this machine, reach: an ASGI application on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

LAST_ANSWERS_SECONDS = 5
"""A request that is still held when the test is over, as at a gate that a failed test has not opened, is let go."""


@asynccontextmanager
async def served(app: ASGIApp, address: str) -> AsyncIterator[int]:
    """The application answers at this address until this is left; gives its port, which nobody else has."""
    config = uvicorn.Config(
        app, host=address, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=LAST_ANSWERS_SECONDS
    )
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    serving = asyncio.create_task(server.serve(sockets))
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving
