"""Events whose sender waits for what their runs give: the call is repeated with the same id until they have finished,
so that the gateway answers for forwarded replies too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from invoker import wire
from invoker.errors import WaitExpiredError
from invoker.http.calls import Calls
from invoker.http.content import content_of
from invoker.http.finding import quoted
from invoker.http.sending import Asked, Outgoing, Sender, can_repeat
from invoker.http.waiting import PIECE_SECONDS, Waiter, patiently
from invoker.replies import Reply, reply_of_result
from invoker.request import ClaimCheck
from invoker.result import Result


@dataclass(frozen=True, slots=True)
class OutputBytes:
    """The output of one run, read at the gateway when it is not in its result."""

    calls: Calls
    run_id: str

    async def open(self, claim: ClaimCheck) -> AsyncGenerator[bytes, None]:
        path = f"/v1/runs/{quoted(self.run_id)}/output"
        async for chunk in content_of(self.calls, path, claim.size_bytes, claim.sha256):
            yield chunk


class Asker:
    """Asks one gateway for replies."""

    def __init__(self, calls: Calls, sender: Sender, waiter: Waiter) -> None:
        self._calls = calls
        self._sender = sender
        self._waiter = waiter

    async def request(self, event: Outgoing, timeout: float) -> list[Reply]:
        """Send the event, then the replies of all its runs; see `Client.request`."""
        deadline = asyncio.get_running_loop().time() + timeout
        asked = await self._sender.ask(event, min(timeout, PIECE_SECONDS))
        while asked.run_ids is None:
            left = deadline - asyncio.get_running_loop().time()
            # The gateway may have made another id of ours, which is the key that we know the event by.
            request_id = asked.request_id or wire.canonical_id(event.request_id)
            if left <= 0:
                raise await self._expired(request_id, timeout)
            if can_repeat(event.data):
                asked = await patiently(lambda piece: self._sender.ask(event, piece), deadline)
            else:
                view = await self._waiter.view(request_id, left)
                asked = Asked(request_id, [run.run_id for run in view.runs])
        return [self._reply(await self._waiter.result(run_id)) for run_id in asked.run_ids]

    def _reply(self, result: Result) -> Reply:
        return reply_of_result(result, OutputBytes(self._calls, result.run_id))

    async def _expired(self, request_id: str, timeout: float) -> WaitExpiredError:
        """The error, with the replies so far."""
        view = await self._waiter.view(request_id, 0.0)
        replies = [self._reply(result) for result in view.results]
        came = f"{len(replies)} of {len(view.runs)} replies" if view.runs else "no reply"
        error = WaitExpiredError(
            f"{came} within {timeout:g} s for request {view.request_id}; its runs go on",
            hint=f"invoker result {view.request_id} --wait 60",
            request_id=view.request_id,
        )
        error.partial = replies
        return error
