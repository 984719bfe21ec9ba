"""Bodies on their way in: how long a caller may pause, how slow he may be, and how many bytes all of them may hold.

What a call holds is counted as it comes, up to what its route keeps in memory at once: a body of any size that is
passed on piece by piece counts with one such piece. What has not come holds nothing, however much was promised.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from invoker import wire
from invoker.errors import BodySilentError, TooManyBytesError

_HOLD = "invoker.hold"


class Bodies:
    """The bodies of all calls of one gateway. `seconds` is the longest pause, and from when on a body must have brought
    `bytes_per_second` on average (0: however little); `at_once` bounds what all of them hold, in bytes."""

    def __init__(self, seconds: float, bytes_per_second: float, at_once: int) -> None:
        self.seconds = seconds
        self.bytes_per_second = bytes_per_second
        self.at_once = at_once
        self.held = 0

    def of(self, scope: Scope, receive: Receive, *, trusted: bool) -> IncomingBody:
        """The body of one call. A function's output may come as slowly as it is made: it is `trusted`."""
        return IncomingBody(self, scope, receive, 0.0 if trusted else self.bytes_per_second)


class IncomingBody:
    """One body; call it for its next part. `release` when the call is over."""

    def __init__(self, bodies: Bodies, scope: Scope, receive: Receive, bytes_per_second: float) -> None:
        self._bodies = bodies
        self._scope = scope
        self._receive = receive
        self._rate = bytes_per_second
        self._done = False
        self._received = 0
        self._held = 0
        self._waited = 0.0

    async def __call__(self) -> Message:
        """The next part. Raises `BodySilentError` for a caller who does not go on, or hardly, and `TooManyBytesError`
        while others hold what may be held."""
        if self._done:
            return await self._receive()  # only waits for the caller to go
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._bodies.seconds):
                message = await self._receive()
        except TimeoutError:
            words = f"the body did not go on for {self._bodies.seconds:g} s; nothing was done with it"
            raise BodySilentError(words) from None
        # Only the time that the caller let us wait: who is slow because we are does not count.
        self._waited += loop.time() - began
        self._done = not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        self._check_rate()
        self._hold()
        return message

    def release(self) -> None:
        """Hold nothing any more. Safe to repeat."""
        self._bodies.held -= self._held
        self._held = 0

    def _check_rate(self) -> None:
        if not self._done and self._waited > self._bodies.seconds and self._received < self._rate * self._waited:
            raise BodySilentError(
                f"the body brought {self._received} bytes in {self._waited:.0f} s, and {self._rate:g} a second are the "
                "least; nothing was done with it"
            )

    def _hold(self) -> None:
        more = min(self._received, self._scope.get(_HOLD, wire.CLAIM_THRESHOLD_BYTES)) - self._held
        if more <= 0:
            return
        if self._bodies.held + more > self._bodies.at_once:
            raise TooManyBytesError(
                "the gateway holds as many bytes of bodies as it may (INVOKER_GATEWAY_MAX_HELD_BYTES)",
                hint="nothing was done with this one; send it again",
            )
        self._bodies.held += more
        self._held += more


def may_hold(request: Request, size: int) -> None:
    """Say, before the body is read, that so many bytes of it are kept in memory (otherwise what fits an event)."""
    request.scope[_HOLD] = size
