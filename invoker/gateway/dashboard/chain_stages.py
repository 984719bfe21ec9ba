"""A chain as a table: every run with its stage, its times and its bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from invoker.quantities import between
from invoker.result import Reason, State
from invoker.views import ChainNode, RequestView, RunView

MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class StageRow:
    """One run. `stage` counts from 1; times in seconds, None when they are not known (yet): it waited, queued and
    starting, until it ran. `since` is when a run began that goes on; `cause` is the function whose run sent the event.
    """

    stage: int
    topic: str
    request_id: str
    run_id: str
    function: str
    state: State
    reason: Reason | None
    waited_seconds: float | None
    ran_seconds: float | None
    since: datetime | None
    input_bytes: int | None
    output_bytes: int | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Stages:
    """The rows, how many there are besides, and how long it all took: from the first event to the last result."""

    rows: Sequence[StageRow]
    left_out: int
    seconds: float | None
    runs: int
    failed: int
    unfinished: int


def stages(root: ChainNode, most: int = MAX_ROWS) -> Stages:
    """The table of the chain from that request on, a stage before what it caused."""
    nodes = list(_levels(root))
    runs = [run for _, node in nodes for run in node.view.runs]
    owners = {run.run_id: run.function for run in runs}
    rows = islice((_row(stage, node, run, owners) for stage, node in nodes for run in node.view.runs), most)
    ends = [run.result.finished_at for run in runs if run.result is not None]
    unfinished = sum(not run.finished for run in runs)
    return Stages(
        rows=list(rows),
        left_out=max(0, len(runs) - most),
        seconds=between(_began(root.view), max(ends)) if ends and not unfinished else None,
        runs=len(runs),
        failed=sum(run.result is not None and not run.result.succeeded for run in runs),
        unfinished=unfinished,
    )


def _levels(root: ChainNode) -> Iterator[tuple[int, ChainNode]]:
    level, stage = [root], 1
    while level:
        yield from ((stage, node) for node in level)
        level, stage = [child for node in level for child in node.children], stage + 1


def _began(view: RequestView) -> datetime | None:
    return view.record.received_at if view.record is not None else None


def _row(stage: int, node: ChainNode, run: RunView, owners: dict[str, str]) -> StageRow:
    result, status, record = run.result, run.status, node.view.record
    queued = result.queued_at if result is not None else status.queued_at if status is not None else None
    started = result.started_at if result is not None else status.started_at if status is not None else None
    return StageRow(
        stage=stage,
        topic=node.view.topic,
        request_id=run.request_id,
        run_id=run.run_id,
        function=run.function,
        state=run.state,
        reason=run.reason,
        waited_seconds=between(queued, started),
        ran_seconds=between(started, result.finished_at) if result is not None else None,
        since=started if result is None else None,
        input_bytes=record.body.size_bytes if record is not None else None,
        output_bytes=result.output.size_bytes if result is not None else None,
        cause=owners.get(node.parent_run_id or ""),
    )
