"""A start that waits for its NATS: alive, not ready with the reason in words, until what was missing is there.

A production process that ended instead would be started again and again with growing pauses, and say its reason
nowhere but in the log of a process that is gone. What is wrong with the settings themselves still ends the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from invoker.errors import BackPressureError, InvokerError, ServerUnreachableError, StreamMismatchError
from invoker.gateway.http_server import http_server, probe_routes

log = structlog.get_logger(component="start")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
SAID_AGAIN_SECONDS = 60.0
CURABLE = (ServerUnreachableError, StreamMismatchError, BackPressureError)
"""What others can mend while this process waits: away, refusing us, without JetStream, streams with other settings."""


@dataclass(frozen=True, slots=True)
class ProbePlace:
    """Where the probes are while a process waits: the place where they will be when it works."""

    host: str
    port: int
    setting: str
    metrics: Callable[[], bytes]


async def started_patiently(
    run: Callable[[Callable[[], None]], Awaitable[None]], attempt: Callable[[], Awaitable[None]], place: ProbePlace
) -> None:
    """`run` until it ends by itself; as long as it cannot start for a reason that others can mend, wait and try again.

    `run` gets a function that it calls once it works; after that every error of it is raised. `attempt` does what the
    start needs of others and undoes it: while it fails, `/livez` answers 200 and `/readyz` 503 with the reason.
    Raises what no waiting mends, `SettingsError` first of all.
    """
    works = False

    def working() -> None:
        nonlocal works
        works = True

    while True:
        try:
            return await run(working)
        except CURABLE as error:
            if works:
                raise
            await _mended(attempt, error, place)


async def _mended(attempt: Callable[[], Awaitable[None]], error: InvokerError, place: ProbePlace) -> None:
    """Returns when the attempt succeeds, and the probes' place is free again."""
    reason, said_at, clock = error.message, -SAID_AGAIN_SECONDS, asyncio.get_running_loop().time
    pause, said = FIRST_PAUSE_SECONDS, ""
    probes = probe_routes(lambda: [reason], place.metrics)
    async with http_server(probes, place.host, place.port, place.setting):
        while True:
            if reason != said or clock() - said_at >= SAID_AGAIN_SECONDS:
                log.warning("not ready, trying again", reason=reason)
                said, said_at = reason, clock()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                return await attempt()
            except CURABLE as again:
                reason = again.message
