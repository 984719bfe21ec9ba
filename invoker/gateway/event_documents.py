"""What the events of a stream say: a request was accepted, a run has news, a run has finished."""

from __future__ import annotations

from functools import lru_cache

from pydantic import AwareDatetime, Field

from invoker.feed import FeedItem
from invoker.gateway.documents import Answer
from invoker.gateway.request_documents import run_line
from invoker.gateway.server_sent import frame
from invoker.result import Attempt, RunStatusDocument, State
from invoker.views import RequestState, RequestView

SHARED_FRAMES = 1_024
"""Events that are written once for all who get them."""


class Opened(Answer):
    """The first event of a stream: everything behind this place will be told."""

    sequence: int


class Gap(Answer):
    """What lies between the place that was asked for and `first` is not kept any more, and is not told."""

    after: int
    first: int


class AcceptedEvent(Answer):
    """A request was accepted; without runs nothing matched its topic."""

    request_id: str
    topic: str
    root_request_id: str | None = None
    runs: int
    functions: tuple[str, ...] | None = Field(None, description="Null when there are too many to be named here")


class StatusEvent(Answer):
    """News of an unfinished run. Lossy: it has no id, and is not told again."""

    run_id: str
    request_id: str
    function: str
    topic: str
    state: State
    attempts: tuple[Attempt, ...] = ()
    percent: float | None = None
    text: str | None = None
    started_at: AwareDatetime | None = None
    at: AwareDatetime


class EndEvent(Answer):
    """Nothing more will come of this request."""

    request_id: str
    state: RequestState


@lru_cache(SHARED_FRAMES)
def item_frame(item: FeedItem) -> bytes:
    """The event of what was stored: `accepted` or `result`, with its place as id."""
    if item.row is not None:
        return frame("result", run_line(item.row), item.sequence)
    document = AcceptedEvent(
        request_id=item.request_id, topic=item.topic, root_request_id=item.root_request_id, runs=item.runs or 0,
        functions=item.functions,
    )  # fmt: skip
    return frame("accepted", document, item.sequence)


def status_frame(status: RunStatusDocument) -> bytes:
    """The event of a status, without an id."""
    keys = set(StatusEvent.model_fields)
    return frame("status", StatusEvent(**{key: getattr(status, key) for key in keys}))


def end_frame(view: RequestView) -> bytes:
    return frame("end", EndEvent(request_id=view.request_id, state=view.state))
