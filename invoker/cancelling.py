"""Cancelling a chain: every unfinished run of it, and of what it goes on to while that is done. For both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from invoker.views import Cancelled, Chain

PATIENCE_SECONDS = 15.0
"""How long later stages are waited for: functions that were cancelled have that long to publish their last event."""


class ChainClient(Protocol):
    """What is asked of a client, whichever door it uses."""

    def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]: ...

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled: ...


async def cancelled_chain(client: ChainClient, id: str, message: str | None) -> Cancelled:
    """Cancel what is unfinished in the chain of the request or run, until nothing more can come.

    A stage that ended meanwhile has perhaps published the next one: so the chain is looked at again after each change,
    and not once. Runs of a paused function are cancelled as well, though they leave their queue only when it goes on.
    """
    cancelled: list[str] = []
    finished: dict[str, None] = {}
    asked: set[tuple[str, str]] = set()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(client.follow_chain(id)) as changes:
            async for chain in changes:
                for view in chain.views:
                    left = {(view.request_id, run.run_id) for run in view.runs if not run.finished}
                    finished |= {run.run_id: None for run in view.runs if run.finished and run.run_id not in cancelled}
                    if left - asked:
                        asked |= left
                        done = await client.cancel(view.request_id, message=message)
                        cancelled += [run_id for run_id in done.cancelled if run_id not in cancelled]
    except TimeoutError:
        pass
    return Cancelled(
        cancelled=tuple(cancelled),
        already_finished=tuple(run_id for run_id in finished if run_id not in cancelled),
    )
