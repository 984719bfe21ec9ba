"""Replies: what a caller finds on its reply subject. `*_reply` are pure, `Replier` sends.

One message per run, and one when there is none. A reply may be sent twice (a controller died between reply and ack):
`Invoker-Run-Id` tells repeats apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from invoker import spans, tracing, wire
from invoker.claimcheck import ClaimStore
from invoker.connection import nats_errors
from invoker.errors import ClaimCheckError, InvokerError, NoSubscriptionError
from invoker.request import ClaimCheck, RequestRecord
from invoker.result import Result

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for a reply subject."""

    data: bytes
    headers: dict[str, str]


def success_reply(result: Result, runs: int, data: bytes) -> Reply:
    """The output itself, with the content type that the function gave it."""
    return Reply(data, _headers(result, runs, result.output.content_type or wire.CONTENT_TYPE_BYTES))


def claimed_reply(result: Result, runs: int, claim: ClaimCheck) -> Reply:
    """An output too large for a message: the claim check in header and body, and the content type of the bytes."""
    headers = _headers(result, runs, result.output.content_type or wire.CONTENT_TYPE_BYTES)
    return Reply(claim.to_json(), headers | {wire.H_CLAIM: claim.to_json().decode()})


def failure_reply(result: Result, runs: int) -> Reply:
    """A run without success as problem+json, marked as an error for clients of NATS services too."""
    problem = result.problem()
    headers = _headers(result, runs, wire.CONTENT_TYPE_PROBLEM)
    return Reply(_json(problem), headers | _service_error(problem["status"], problem["detail"]))


def error_reply(error: InvokerError, request_id: str) -> Reply:
    """An event that became no run: the error as problem+json, `Invoker-Runs: 0`."""
    problem = error.problem() | {"request_id": request_id}
    headers = {
        wire.H_REQUEST_ID: request_id,
        wire.H_RUNS: "0",
        wire.H_REASON: error.code,
        wire.H_CONTENT_TYPE: wire.CONTENT_TYPE_PROBLEM,
    }
    return Reply(_json(problem), headers | _service_error(problem["status"], error.message))


def no_subscription_problem(record: RequestRecord, nearest: Iterable[tuple[str, str]]) -> InvokerError:
    """Nothing matched: the error, with the nearest topic patterns as suggestions."""
    suggestions = [{"pattern": pattern, "function": function} for pattern, function in nearest]
    words = f"; closest: {suggestions[0]['pattern']} ({suggestions[0]['function']})" if suggestions else ""
    return NoSubscriptionError(
        f"no subscription matches the topic {record.topic!r}{words}",
        hint=f"invoker explain {record.topic}",
        suggestions=suggestions,
    )


class Replier:
    """Sends replies; the caller's subject was checked when the event was decoded."""

    def __init__(self, client: NatsClient, claims: ClaimStore) -> None:
        self._client = client
        self._claims = claims

    async def answer(self, reply_to: str, result: Result, record: RequestRecord) -> None:
        """When this returns the server has the reply, with the names that the caller gave its call and its trace.
        Raises `ServerUnreachableError` when it has not."""
        reply = await self._reply(result, len(record.functions))
        if tracing.exporter() is None:
            await self.send(reply_to, replace(reply, headers=wire.trace_headers(record.headers) | reply.headers))
            return
        start = datetime.now(UTC)
        named = spans.carried(wire.trace_headers(record.headers), spans.reply_context(record, result.run_id))
        await self.send(reply_to, replace(reply, headers=named | reply.headers))
        end = datetime.now(UTC)
        tracing.tell(lambda: [spans.reply_span(result, record, reply_to, start, end)])

    async def send(self, reply_to: str, reply: Reply) -> None:
        with nats_errors("sending a reply"):
            await self._client.publish(reply_to, reply.data, headers=reply.headers)
            # The reply must have left before the run is acked: what is buffered dies with the process.
            await self._client.flush(timeout=5)

    async def _reply(self, result: Result, runs: int) -> Reply:
        if not result.succeeded:
            return failure_reply(result, runs)
        claim = result.output.claim
        if claim is None:
            return success_reply(result, runs, result.output.inline_bytes() or b"")
        room = min(wire.CLAIM_THRESHOLD_BYTES, self._client.max_payload - wire.WIRE_MARGIN_BYTES)
        if claim.size_bytes > room:
            return claimed_reply(result, runs, claim)
        try:
            return success_reply(result, runs, await self._claims.read(claim))
        except ClaimCheckError:
            # Removed by hand: the caller hears what was promised, instead of nothing for ever.
            return claimed_reply(result, runs, claim)


def _headers(result: Result, runs: int, content_type: str) -> dict[str, str]:
    return {
        wire.H_REQUEST_ID: result.request_id,
        wire.H_RUN_ID: result.run_id,
        wire.H_FUNCTION: result.function,
        wire.H_STATE: str(result.state),
        wire.H_REASON: str(result.reason),
        wire.H_RUNS: str(runs),
        wire.H_CONTENT_TYPE: content_type,
        **result.times(),
    }


def _service_error(status: int, detail: str) -> dict[str, str]:
    # A header is one line of printable text, and a function's error message may hold anything.
    words = " ".join(detail.split())[:200].encode("ascii", "replace").decode()
    return {wire.H_SERVICE_ERROR_CODE: str(status), wire.H_SERVICE_ERROR: words or "error"}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, default=str).encode()
