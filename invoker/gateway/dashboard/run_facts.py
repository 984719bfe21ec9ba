"""What a run's page says besides its drawing: attempts beside each other, versions, commands to copy. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from invoker.gateway.dashboard.timeline import Kind, attempt_kind
from invoker.gateway.request_documents import RunDetail
from invoker.quantities import between
from invoker.result import Attempt, State
from invoker.views import FunctionInfo


@dataclass(frozen=True, slots=True)
class AttemptColumn:
    """One attempt beside the others. `width` is its part of the longest one, from 0 to 100; `seconds` of one that
    `goes_on` are so far. `kind` is how it is drawn in the timeline, too."""

    attempt: Attempt
    seconds: float | None
    width: float
    goes_on: bool
    kind: Kind


@dataclass(frozen=True, slots=True)
class SpecUsed:
    """Which version of the function ran, and what the present one is. `words` compare them."""

    words: str
    same: bool | None
    image: str | None = None
    command: str | None = None
    handler: str | None = None
    runtime: str | None = None


def attempt_columns(
    attempts: Sequence[Attempt], state: State, finished_at: datetime | None, now: datetime
) -> list[AttemptColumn]:
    """The attempts in their order."""
    spans = [between(one.started_at, one.finished_at or finished_at or now) for one in attempts]
    longest = max((span for span in spans if span is not None), default=0.0)
    found = []
    for one, span in zip(attempts, spans, strict=True):
        goes_on = _goes_on(one, finished_at)
        kind = attempt_kind(one, state, goes_on=goes_on)
        found.append(AttemptColumn(one, span, _part(span, longest), goes_on, kind))
    return found


def spec_used(spec_hash: str | None, function: FunctionInfo | None, problem: str | None) -> SpecUsed:
    """The version that ran beside the present one."""
    if function is None:
        gone = "The function is not in the catalog now." if problem is None else "The catalog is not known just now."
        return SpecUsed(gone, None)
    same = None if spec_hash is None or function.spec_hash is None else spec_hash == function.spec_hash
    words = {
        None: "Below is the function's present version.",
        True: "The function's present version is the same.",
        False: "The function has another version now; image and command below are those of the present one.",
    }[same]
    command = shlex.join(function.command) if function.command else None
    return SpecUsed(words, same, function.image, command, function.handler, function.runtime)


def kubectl_lines(engine: str | None, job: str | None) -> tuple[str, ...]:
    """Commands that show the run's Job; none for a run of another engine."""
    namespace, slash, name = (job or "").partition("/")
    if engine != "kubernetes" or not slash or not name:
        return ()
    space, one = shlex.quote(namespace), shlex.quote(name)
    return (
        f"kubectl -n {space} get job {one} -o yaml",
        f"kubectl -n {space} describe job {one}",
        f"kubectl -n {space} describe pods -l job-name={one}",
        f"kubectl -n {space} logs job/{one} --all-containers --tail=-1",
    )


def invoker_lines(run: RunDetail) -> tuple[str, ...]:
    """Commands of our own about the run."""
    lines = [f"invoker runs describe {run.run_id}", f"invoker runs logs {run.run_id}"]
    if run.reason is None:
        return (*lines, f"invoker runs cancel {run.run_id}")
    return (*lines, f"invoker result {run.request_id} --chain", f"invoker runs replay {run.run_id}")


def _part(span: float | None, longest: float) -> float:
    return round(100 * max(0.0, span) / longest, 1) if span is not None and longest > 0 else 0.0


def _goes_on(attempt: Attempt, finished_at: datetime | None) -> bool:
    return finished_at is None and attempt.finished_at is None
