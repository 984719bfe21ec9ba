"""Replies as a caller sees them: one per run, told apart by run id, complete when as many came as were announced."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from invoker import wire
from invoker.claimcheck import claim_of
from invoker.errors import InvokerError, RunFailedError
from invoker.problem import error_of_problem, parsed_problem
from invoker.request import ClaimCheck, Content
from invoker.result import Reason, Result, State


class ClaimedBytes(Protocol):
    """Whoever reads the bytes behind claim checks: the object store, or a gateway before it."""

    def open(self, claim: ClaimCheck) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of one run. Small bytes are in it; large ones are read, and verified, when they are asked for."""

    request_id: str
    run_id: str
    function: str
    state: State
    reason: Reason
    content: Content
    headers: Mapping[str, str] = field(default_factory=dict)
    problem: Mapping[str, Any] | None = None
    _claims: ClaimedBytes | None = field(default=None, repr=False, compare=False)

    @property
    def succeeded(self) -> bool:
        return self.state is State.SUCCEEDED

    @property
    def content_type(self) -> str | None:
        return self.content.content_type

    def raise_for_failure(self) -> None:
        """Raise `RunFailedError`, with the run's own words, when the run did not succeed."""
        if not self.succeeded:
            detail = (self.problem or {}).get("detail") or self.reason
            raise RunFailedError(
                f"{self.function} {self.state} ({self.reason}): {detail}",
                hint=f"invoker runs describe {self.run_id}",
                run_id=self.run_id,
                function=self.function,
                state=str(self.state),
                reason=str(self.reason),
            )

    async def read(self) -> bytes:
        """The function's output. Raises `RunFailedError` when there is none because the run failed, and
        `ClaimCheckError` when the bytes are gone or damaged."""
        return b"".join([chunk async for chunk in self.open()])

    async def open(self) -> AsyncIterator[bytes]:
        """The same in chunks, for outputs of any size; act on them only after the iteration has ended (checksum)."""
        self.raise_for_failure()
        async for chunk in open_content(self.content, self._claims):
            yield chunk

    async def text(self) -> str:
        """The output as UTF-8 text; what is not UTF-8 is shown as U+FFFD."""
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """The output parsed as JSON; raises `ValueError` when it is not."""
        return json.loads(await self.read())


async def open_content(content: Content, claims: ClaimedBytes | None) -> AsyncIterator[bytes]:
    """The bytes of a content in chunks, from wherever they are."""
    inline = content.inline_bytes()
    if inline is not None:
        yield inline
    elif content.claim is not None and claims is not None:
        async for chunk in claims.open(content.claim):
            yield chunk


@dataclass(slots=True)
class Replies:
    """What has come for one request: replies by run id, and how many are announced.

    A function with `forwardReply` hands its reply on to the request it causes, so replies of another request id may
    come in its place: all runs of that request then stand for the one run.
    """

    request_id: str
    by_run: dict[str, Reply] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> int | None:
        """How many runs the request has, None until it is known."""
        return self.announced.get(self.request_id)

    @property
    def complete(self) -> bool:
        if self.expected is None:
            return False
        came = Counter(reply.request_id for reply in self.by_run.values())
        forwarded = [request_id for request_id in self.announced if request_id != self.request_id]
        whole = all(came[request_id] >= self.announced[request_id] for request_id in forwarded)
        return whole and came[self.request_id] + len(forwarded) >= self.expected

    @property
    def list(self) -> list[Reply]:
        return list(self.by_run.values())

    def add(self, data: bytes, headers: Mapping[str, str], claims: ClaimedBytes) -> None:
        """Take one message in; repeats change nothing. Raises the error it carries when there are no runs."""
        error = refusal(data, headers)
        if error is not None:
            raise error
        reply = reply_of(data, headers, claims)
        if reply is not None:
            self.announced[reply.request_id] = int(wire.header(headers, wire.H_RUNS) or 1)
            self.by_run.setdefault(reply.run_id, reply)


def refusal(data: bytes, headers: Mapping[str, str]) -> InvokerError | None:
    """The error in a reply that says the event became no run, None in any other."""
    if wire.header(headers, wire.H_RUNS) != "0":
        return None
    problem = parsed_problem(data) or {"code": wire.header(headers, wire.H_REASON)}
    return error_of_problem(problem, "the event became no run")


def reply_of(data: bytes, headers: Mapping[str, str], claims: ClaimedBytes) -> Reply | None:
    """The reply in a message, None when it is none of ours."""
    run_id, state = wire.header(headers, wire.H_RUN_ID), wire.header(headers, wire.H_STATE)
    if run_id is None or state is None:
        return None
    content_type = wire.header(headers, wire.H_CONTENT_TYPE)
    claim = claim_of(dict(headers))
    succeeded = State(state) is State.SUCCEEDED
    return Reply(
        request_id=wire.header(headers, wire.H_REQUEST_ID) or "",
        run_id=run_id,
        function=wire.header(headers, wire.H_FUNCTION) or "",
        state=State(state),
        reason=Reason(wire.header(headers, wire.H_REASON) or "completed"),
        content=Content.claimed(claim, content_type) if claim else Content.inline(data, content_type),
        headers=dict(headers),
        problem=None if succeeded else parsed_problem(data),
        _claims=claims,
    )


def reply_of_result(result: Result, claims: ClaimedBytes) -> Reply:
    """The reply that a stored result stands for: what a caller gets whose own reply was lost."""
    return Reply(
        request_id=result.request_id,
        run_id=result.run_id,
        function=result.function,
        state=result.state,
        reason=result.reason,
        content=result.output,
        headers=result.times(),
        problem=None if result.succeeded else result.problem(),
        _claims=claims,
    )
