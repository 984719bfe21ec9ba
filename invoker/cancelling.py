"""Cancelling a chain: every unfinished run of it, and of what it goes on to while that is done. For both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from invoker.views import Cancelled, Chain, RequestState
from invoker.waiting import wait_expired

PATIENCE_SECONDS = 15.0
"""How long later stages are waited for: functions that were cancelled have that long to publish their last event."""


class ChainClient(Protocol):
    """What is asked of a client, whichever door it uses."""

    def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]: ...

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled: ...


async def cancelled_chain(
    client: ChainClient, id: str, message: str | None, *, patience_seconds: float = PATIENCE_SECONDS
) -> Cancelled:
    """Cancel what is unfinished in the chain of the request or run, until nothing more can come.

    A stage that ended meanwhile has perhaps published the next one: so the chain is looked at again after each change,
    and not once. Runs of a paused function are cancelled as well, though they leave their queue only when it goes on.
    Raises `WaitExpiredError` when the event that the chain begins with is not accepted for so long: it may run later.
    """
    cancelled: list[str] = []
    finished: dict[str, None] = {}
    asked: set[str] = set()
    clock, chain = asyncio.get_running_loop().time, None
    deadline = clock() + patience_seconds
    async with aclosing(client.follow_chain(id)) as changes:
        while (change := await _next(changes, deadline)) is not None:
            chain = change
            for view in chain.views:
                finished |= {run.run_id: None for run in view.runs if run.finished and run.run_id not in cancelled}
                left = {run.run_id for run in view.runs if not run.finished}
                if left - asked:
                    asked |= left
                    done = await client.cancel(view.request_id, message=message)
                    cancelled += [run_id for run_id in done.cancelled if run_id not in cancelled]
                    deadline = clock() + patience_seconds
    if chain is not None and chain.root.view.state is RequestState.QUEUED and not chain.runs:
        raise wait_expired(chain.root.view, patience_seconds)
    return Cancelled(
        cancelled=tuple(cancelled),
        already_finished=tuple(run_id for run_id in finished if run_id not in cancelled),
    )


async def _next(changes: AsyncGenerator[Chain, None], deadline: float) -> Chain | None:
    """The chain after its next change, None when nothing more can come or the time is over.

    Waiting has a limit, cancelling what is there has none: of a chain of thousands nothing is left out.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(changes, None)
    except TimeoutError:
        return None
