"""What the log of a program that runs for long says about its connection to NATS: one line per change, no more."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

SAID_AGAIN_SECONDS = 60.0
"""A reason that stays is said again after this time, so that it stands near the end of the log too."""
_MOST_REASONS = 64


class ConnectionLog:
    """A listener for `invoker.connection.connect` that writes a line `nats` with the state at every change of it.

    What the library tries several times a second fails as often: the same `error_message` is written at most once a
    minute until the connection is back.
    """

    def __init__(self, component: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger(component=component)
        self._clock = clock
        self._state = "connected"
        self._said: dict[str, float] = {}
        self._ended = False

    def end(self) -> None:
        """Say nothing any more: the connection is about to be closed on purpose."""
        self._ended = True

    async def __call__(self, event: str) -> None:
        if self._ended:
            return
        if event.startswith("error: "):
            self._failed(event.removeprefix("error: "))
            return
        state = "connected" if event == "reconnected" else event
        if state == self._state:
            return
        self._state = state
        if state == "connected":
            self._said.clear()
        self._log.log(20 if state == "connected" else 30, "nats", state=state)

    def _failed(self, reason: str) -> None:
        now = self._clock()
        if now - self._said.get(reason, -SAID_AGAIN_SECONDS) < SAID_AGAIN_SECONDS:
            return
        if len(self._said) >= _MOST_REASONS:
            self._said.clear()
        self._said[reason] = now
        self._log.warning("nats", state=self._state, error_message=reason)
