"""The input of `as: file` runs, streamed to the engine under the same fence as the run API's `GET input`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from invoker.claimcheck import ClaimStore
from invoker.errors import RunFinishedError
from invoker.results.nats import ResultStream
from trigger.plan import RunPlan


class InputReader:
    """Reads the bytes of a run's input."""

    def __init__(self, results: ResultStream, claims: ClaimStore) -> None:
        self._results = results
        self._claims = claims

    async def read(self, plan: RunPlan) -> AsyncIterator[bytes]:
        """The input's bytes in chunks. Raises `RunFinishedError` when the run has its result: nothing may start."""
        ticket, result, record = await asyncio.gather(
            self._results.ticket(plan.run_id, plan.function),
            self._results.result(plan.request_id, plan.function),
            self._results.record(plan.request_id),
        )
        if ticket is None or result is not None or record is None:
            raise RunFinishedError(f"run {plan.run_id} is finished: it is given no input")
        if record.body.claim is not None:
            return self._claims.open(record.body.claim)
        return _once(record.body.inline_bytes() or b"")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
