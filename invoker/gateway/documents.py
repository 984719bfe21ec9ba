"""The documents that the gateway answers with: field names as in the stored documents and as `-o json` prints them."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from invoker.result import Reason, Result, State
from invoker.views import RequestState, RequestView, RunView


class Answer(BaseModel):
    """A document of the gateway."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True, populate_by_name=True)


class RunSummary(Answer):
    """One run of a request: where it is. `reason` is there once it has finished."""

    run_id: str
    function: str
    state: State
    reason: Reason | None = None
    message: str | None = None
    finished_at: AwareDatetime | None = None
    url: str = Field(description="Where the run is told in full")


class Accepted(Answer):
    """What became of a published event. `runs` is null while no controller has accepted it yet; ask again at `url`."""

    request_id: str
    topic: str
    state: RequestState
    duplicate: bool = Field(False, description="The same event was there already under this id")
    runs: list[RunSummary] | None = None
    message: str | None = Field(None, description="What there is to say besides, such as that nothing matched")
    url: str


def run_summary(run: RunView) -> RunSummary:
    """The summary of a run."""
    result: Result | None = run.result
    return RunSummary(
        run_id=run.run_id,
        function=run.function,
        state=run.state,
        reason=run.reason,
        message=(result.message or None) if result is not None else None,
        finished_at=result.finished_at if result is not None else None,
        url=f"/v1/runs/{run.run_id}",
    )


def accepted(view: RequestView, *, duplicate: bool) -> Accepted:
    """A publish as its request is now."""
    return Accepted(
        request_id=view.request_id,
        topic=view.topic,
        state=view.state,
        duplicate=duplicate,
        runs=[run_summary(run) for run in view.runs] if view.record is not None else None,
        message=no_match_words(view.topic) if view.state is RequestState.NO_MATCH else None,
        url=f"/v1/requests/{view.request_id}",
    )


def no_match_words(topic: str) -> str:
    return f"no subscription matches the topic {topic!r}; nothing runs"
