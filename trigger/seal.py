"""Sealing: a verdict becomes the run's result, unless it has one already. The first one stored wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.errors import BackPressureError, InvokerError
from invoker.request import ClaimCheck, Content, RequestRecord, RunTicket
from invoker.result import Result
from invoker.results.nats import ResultStream
from trigger.engine import RunStatus
from trigger.moments import Moment, Moments
from trigger.verdict import RunFacts, Verdict, result_of


class Sealer:
    """Stores results of the controller's own making."""

    def __init__(
        self,
        results: ResultStream,
        claims: ClaimStore,
        moments: Moments,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._results = results
        self._claims = claims
        self._moments = moments
        self._now = now

    async def seal(
        self,
        ticket: RunTicket,
        record: RequestRecord | None,
        verdict: Verdict,
        *,
        facts: RunFacts | None = None,
        status: RunStatus | None = None,
        output: bytes | None = None,
    ) -> Result:
        """The run's result: this verdict, or the one that was stored before it. Safe to repeat."""
        log_tail, log_claim = await self._log(status)
        result = result_of(
            ticket,
            record,
            verdict,
            facts=facts or RunFacts(),
            status=status,
            now=self._now(),
            output=await self._content(output, verdict.content_type),
            log_tail=log_tail,
            log_claim=log_claim,
        )
        try:
            is_ours = await self._results.put_result(result)
        except BackPressureError:
            # Surely not stored, and asked for again soon: what was put for it would pile up until RESULTS has room.
            await self._withdraw(result, None)
            raise
        if is_ours:
            self._moments.reached(Moment.VERDICT_STORED)
            return result
        stored = await self._results.result(ticket.request_id, ticket.function)
        if stored is None:
            raise InvokerError(f"the result of run {ticket.run_id} expired while it was being sealed")
        await self._withdraw(result, stored)
        return stored

    async def _withdraw(self, result: Result, stored: Result | None) -> None:
        """Nothing points at what was put for a result that is none."""
        await self._claims.withdraw(result.output.claim, kept=stored.output.claim if stored else None)
        await self._claims.withdraw(result.log_claim, kept=stored.log_claim if stored else None)

    async def _content(self, output: bytes | None, content_type: str | None) -> Content | None:
        if output is None:
            return None
        if len(output) <= wire.INLINE_OUTPUT_BYTES:
            return Content.inline(output, content_type)
        # Bytes before the result that points at them.
        return Content.claimed(await self._claims.put(output, owner="output"), content_type)

    async def _log(self, status: RunStatus | None) -> tuple[str | None, ClaimCheck | None]:
        """The log's tail for the document, and a claim check of all that was kept when that is more."""
        tail = status.end.log_tail if status and status.end else b""
        if not tail:
            return None, None
        claim = await self._claims.put(tail, owner="log") if len(tail) > wire.INLINE_OUTPUT_BYTES else None
        return tail[-wire.INLINE_OUTPUT_BYTES :].decode("utf-8", "replace"), claim
