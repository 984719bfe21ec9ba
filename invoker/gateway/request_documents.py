"""Documents about requests, chains and runs: the stored keys, as `-o json` of the command line has them."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field

from invoker import wire
from invoker.gateway.documents import Answer
from invoker.request import ClaimCheck, Content
from invoker.result import Attempt, Reason, ResultClass, State
from invoker.views import ChainNode, RequestState, RequestView, RunRow, RunView


class RunDetail(Answer):
    """One run: its stored result, or the latest news of it under the same keys.

    `reason` and `finished_at` are null exactly while it is unfinished.
    """

    version: int = 1
    request_id: str
    run_id: str
    function: str
    topic: str
    state: State
    reason: Reason | None = None
    message: str = ""
    class_: ResultClass | None = Field(default=None, alias="class")
    output: Content | None = Field(None, description="Small outputs are here; all are at /v1/runs/{run_id}/output")
    attempts: tuple[Attempt, ...] = ()
    queued_at: AwareDatetime | None = None
    dispatched_at: AwareDatetime | None = Field(None, description="When a controller gave the run to its engine")
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    percent: float | None = Field(None, description="How far an unfinished run says it is")
    text: str | None = Field(None, description="What an unfinished run says it is doing")
    spec_hash: str | None = None
    catalog: str | None = None
    engine: str | None = None
    job: str | None = None
    root_request_id: str | None = None
    parent_run_id: str | None = None
    hops: int = 0
    log_tail: str | None = None
    log_claim: ClaimCheck | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    errors: tuple[dict[str, Any], ...] = ()


class InputInfo(Answer):
    """What the event's bytes are; the bytes themselves are at /v1/requests/{request_id}/input."""

    size_bytes: int = Field(alias="bytes")
    content_type: str | None = None
    sha256: str


class RequestDetail(Answer):
    """One request and its runs. Until it is accepted (`accepted_at` is null) its runs are not known."""

    request_id: str
    message_id: str | None = Field(None, description="The publisher's own id, when it had to be hashed")
    topic: str
    state: RequestState
    received_at: AwareDatetime | None = None
    accepted_at: AwareDatetime | None = None
    input: InputInfo | None = None
    catalog: str | None = None
    reply_to: str | None = None
    root_request_id: str | None = None
    parent_run_id: str | None = None
    replay_of: str | None = None
    hops: int = 0
    headers: dict[str, str] = Field(default_factory=dict, description="The event's headers that travel on")
    params: dict[str, str] = Field(default_factory=dict)
    runs: list[RunDetail] = Field(default_factory=list)


class ChainDetail(RequestDetail):
    """A request of a chain and the requests that its runs caused."""

    settled: bool | None = Field(None, description="Of the first: nothing more can come")
    children: list[ChainDetail] = Field(default_factory=list)


class RunLine(Answer):
    """One line of a list of runs."""

    run_id: str
    request_id: str
    function: str
    topic: str
    state: State
    reason: Reason | None = None
    attempts: int = 0
    queued_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    cursor: str = Field("", description="The cursor of a page that begins behind this line")


class RunPage(Answer):
    """A page of a list of runs: unfinished ones first, then finished ones, each part newest first."""

    items: list[RunLine]
    next: str | None = Field(None, description="The cursor of the next page; null on the last one")


class CancelOrder(Answer):
    """Which runs to cancel, and why."""

    function: str | None = Field(None, max_length=63, description="Only the run of this function")
    message: str | None = Field(None, max_length=500, description="Stands in the results")


class CancelledRuns(Answer):
    """The run ids that this call cancelled, and those that had finished before."""

    cancelled: list[str]
    already_finished: list[str]


_TOLD = (
    "attempts", "queued_at", "dispatched_at", "started_at", "percent", "text", "spec_hash", "catalog", "engine", "job",
)  # fmt: skip
"""What the news of a run have under the keys of its result."""


def run_detail(run: RunView, topic: str) -> RunDetail:
    """A run of a request on that topic."""
    if run.result is not None:
        return RunDetail.model_validate(run.result.model_dump(by_alias=True))
    status = run.status
    given: dict[str, Any] = {}
    if status is not None:
        given = {key: getattr(status, key) for key in _TOLD}
    return RunDetail(
        request_id=run.request_id, run_id=run.run_id, function=run.function, topic=topic, state=run.state, **given
    )


def request_detail(view: RequestView) -> RequestDetail:
    """A request with its runs."""
    return RequestDetail(**_request_fields(view))


def chain_detail(node: ChainNode, *, settled: bool) -> ChainDetail:
    """A chain from that request on."""
    return ChainDetail(**_request_fields(node.view), settled=settled, children=[_below(one) for one in node.children])


def _below(node: ChainNode) -> ChainDetail:
    return ChainDetail(**_request_fields(node.view), children=[_below(one) for one in node.children])


def _request_fields(view: RequestView) -> dict[str, Any]:
    record = view.record
    fields: dict[str, Any] = {
        "request_id": view.request_id,
        "topic": view.topic,
        "state": view.state,
        "runs": [run_detail(run, view.topic) for run in view.runs],
    }
    if record is not None:
        keys = (
            "message_id", "received_at", "accepted_at", "catalog", "reply_to", "root_request_id", "parent_run_id",
            "replay_of", "hops", "headers", "params",
        )  # fmt: skip
        fields |= {key: getattr(record, key) for key in keys}
        fields["input"] = InputInfo(
            size_bytes=record.body.size_bytes,
            content_type=record.body.content_type or wire.header(record.headers, wire.H_CONTENT_TYPE),
            sha256=record.sha256,
        )
    return fields


def run_line(row: RunRow) -> RunLine:
    """A line of a list."""
    return RunLine(
        run_id=row.run_id, request_id=row.request_id, function=row.function, topic=row.topic, state=row.state,
        reason=row.reason, attempts=row.attempts, queued_at=row.queued_at, started_at=row.started_at,
        finished_at=row.finished_at, cursor=row.cursor,
    )  # fmt: skip
