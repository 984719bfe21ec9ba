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
    works, waiting = False, _Waiting()

    def working() -> None:
        nonlocal works
        works = True

    while True:
        try:
            return await run(working)
        except CURABLE as error:
            if works:
                raise
            await _mended(attempt, error, place, waiting)


class _Waiting:
    """How long is waited between two attempts, and what was said of it. One for the whole start: what `attempt` does
    not try fails again and again in `run`, and must not be said and tried twice a second for that."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._said, self._said_at = "", 0.0

    def say(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if reason != self._said or now - self._said_at >= SAID_AGAIN_SECONDS:
            log.warning("not ready, trying again", reason=reason)
            self._said, self._said_at = reason, now

    async def pause(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


async def _mended(
    attempt: Callable[[], Awaitable[None]], error: InvokerError, place: ProbePlace, waiting: _Waiting
) -> None:
    """Returns when the attempt succeeds, and the probes' place is free again."""
    reason = error.message
    probes = probe_routes(lambda: [reason], place.metrics)
    async with http_server(probes, place.host, place.port, place.setting):
        while True:
            waiting.say(reason)
            await waiting.pause()
            try:
                return await attempt()
            except CURABLE as again:
                reason = again.message
