"""Waiting within a call: first watch, then read, then wait for what is stored next and read again.

As many as like may wait: they share one feed, and who hangs up is forgotten at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import Query
from starlette.requests import ClientDisconnect, Request

from invoker.errors import InputRefusedError
from invoker.feed import Watch
from invoker.gateway.door import closing_of
from invoker.gateway.gateway import Gateway

T = TypeVar("T")

Wait = Annotated[
    float | None,
    Query(ge=0, le=86_400, allow_inf_nan=False, description="Seconds to wait; `Prefer: wait=N` is the same"),
]
_PREFERRED = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.1, 5.0
"""Between two looks for what is not announced to a watch."""
_TOGETHER_SECONDS = 0.005
"""What is stored within this time is answered by one reading."""


def seconds_to_wait(gateway: Gateway, request: Request, wait: float | None) -> float:
    """How long the caller wants to wait, and may."""
    if wait is None:
        preferred = _PREFERRED.search(request.headers.get("prefer", ""))
        wait = float(preferred[1]) if preferred else 0.0
    return min(wait, gateway.settings.gateway_wait_seconds)


async def waited(
    request: Request,
    watch: Watch,
    read: Callable[[], Awaitable[T]],
    enough: Callable[[T], bool],
    seconds: float,
    *,
    look: Callable[[T], Awaitable[bool]] | None = None,
) -> T:
    """What `read` gives once it is `enough`, or after so many seconds as it is then.

    The watch must have been opened before. `look` is asked now and then, with growing pauses, for as long as it says
    so; what it raises ends the waiting. Raises `ClientDisconnect` when the caller goes.
    """
    found = await read()
    if enough(found) or seconds <= 0:
        return found
    clock, pause = asyncio.get_running_loop().time, FIRST_LOOK_SECONDS
    deadline = clock() + seconds
    gone, closing = asyncio.ensure_future(_gone(request)), closing_of(request.scope)
    try:
        while not enough(found):
            until = deadline if look is None else min(deadline, clock() + pause)
            if await _moved(watch, gone, closing, until):
                found = await read()
            elif closing.done() or look is None or clock() >= deadline:
                return await read()
            else:
                look = look if await look(found) else None
                pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        return found
    finally:
        gone.cancel()


async def _moved(watch: Watch, gone: asyncio.Future[None], closing: asyncio.Future[None], deadline: float) -> bool:
    """Wait for the next item of the watch; False when the time is over, or the gateway stops."""
    item = asyncio.ensure_future(watch.next())
    try:
        left = deadline - asyncio.get_running_loop().time()
        both: set[asyncio.Future[Any]] = {item, gone, closing}
        await asyncio.wait(both, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            gone.result()  # a body that was promised and never came has an answer of its own
            raise ClientDisconnect
        if not item.done():
            return False
    finally:
        item.cancel()
    # A request of a hundred runs ends in a burst: one reading for each of them would be ten thousand.
    with suppress(TimeoutError):
        async with asyncio.timeout(_TOGETHER_SECONDS):
            while True:
                await watch.next()
    return True


async def _gone(request: Request) -> None:
    """When this returns the caller has hung up. Raises what the door raises about a body that nobody asked for."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def small_body(request: Request, limit_bytes: int) -> bytes:
    """A body that is a small document. Raises `InputRefusedError` when it is larger than that."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit_bytes:
            raise InputRefusedError(f"the document in the body is larger than {limit_bytes} bytes")
    return bytes(data)
