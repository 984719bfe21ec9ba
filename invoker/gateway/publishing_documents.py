"""The documents that publishing calls are answered with, besides `Accepted`: finished requests and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from invoker import wire
from invoker.feed import FeedItem
from invoker.gateway.documents import Accepted, Answer, RunSummary, no_match_words
from invoker.replies import Reply
from invoker.result import Reason, State
from invoker.views import RequestState


class OutputDocument(Answer):
    """An output. Its bytes are in `inline_base64` when they are at most 16 KiB; `url` has them in any case."""

    size_bytes: int = Field(alias="bytes")
    content_type: str | None = None
    inline_base64: str | None = None
    url: str


class RunAnswer(Answer):
    """What one run gave: its output, or the problem that it ended with."""

    request_id: str
    run_id: str
    function: str
    state: State
    reason: Reason
    output: OutputDocument | None = None
    problem: dict[str, Any] | None = None
    url: str


class Finished(Answer):
    """A request of several runs, all of which have finished; failed ones are there too."""

    request_id: str
    topic: str
    state: RequestState = RequestState.FINISHED
    succeeded: bool = Field(description="Whether all runs did")
    runs: list[RunAnswer]
    url: str


class BatchItem(Answer):
    """What became of one event of a batch: `accepted`, or the `problem` that it is refused with."""

    id: str | None = Field(None, description="The CloudEvent's id")
    status: int = Field(description="The HTTP status that the event would have had alone")
    accepted: Accepted | None = None
    problem: dict[str, Any] | None = None


class BatchAnswer(Answer):
    """One item for each event of a batch, in its order."""

    items: list[BatchItem]


def request_url(request_id: str) -> str:
    return f"/v1/requests/{request_id}"


def waiting(request_id: str, topic: str) -> Accepted:
    """An event that is stored, and not accepted yet as far as this gateway knows."""
    return Accepted(
        request_id=request_id, topic=topic, state=RequestState.QUEUED, duplicate=False, url=request_url(request_id)
    )


def accepted_now(item: FeedItem, topic: str) -> Accepted:
    """An event whose record was stored a moment ago: its runs are queued."""
    runs = [
        RunSummary(run_id=(run_id := wire.run_id_of(item.request_id, name)), function=name, state=State.QUEUED,
                   url=f"/v1/runs/{run_id}")
        for name in item.functions or ()
    ]  # fmt: skip
    return Accepted(
        request_id=item.request_id,
        topic=topic,
        state=RequestState.QUEUED if runs else RequestState.NO_MATCH,
        duplicate=False,
        runs=runs,
        message=None if runs else no_match_words(topic),
        url=request_url(item.request_id),
    )


def finished(request_id: str, topic: str, replies: Sequence[Reply]) -> Finished:
    """A request by the replies of its runs, in the order of the functions' names."""
    return Finished(
        request_id=request_id,
        topic=topic,
        succeeded=all(reply.succeeded for reply in replies),
        runs=[_run_answer(reply) for reply in sorted(replies, key=lambda one: (one.function, one.run_id))],
        url=request_url(request_id),
    )


def _run_answer(reply: Reply) -> RunAnswer:
    url = f"/v1/runs/{reply.run_id}"
    return RunAnswer(
        request_id=reply.request_id,
        run_id=reply.run_id,
        function=reply.function,
        state=reply.state,
        reason=reply.reason,
        output=_output(reply, f"{url}/output") if reply.succeeded else None,
        problem=None if reply.succeeded else dict(reply.problem or {}),
        url=url,
    )


def _output(reply: Reply, url: str) -> OutputDocument:
    small = reply.content.size_bytes <= wire.INLINE_OUTPUT_BYTES and reply.content.claim is None
    return OutputDocument(
        size_bytes=reply.content.size_bytes,
        content_type=reply.content.content_type,
        inline_base64=(reply.content.inline_base64 or "") if small else None,
        url=url,
    )
