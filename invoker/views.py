"""What the client hands back: frozen values, joined from stored documents. Pure but for `Reply`, which may read bytes.

A view is a moment: asking again gives a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from invoker import wire
from invoker.errors import NoSubscriptionError, RunFailedError
from invoker.request import Content, Document, RequestRecord
from invoker.result import Reason, Result, RunStatusDocument, State, reason_info


@dataclass(frozen=True, slots=True)
class Receipt:
    """An acknowledged publish: the event is stored and will not be lost.

    `request_id` is the id to ask with: for an id that cannot be part of a subject it is its hash. `duplicate` says that
    the request was there already, with the same topic and bytes; `sequence` is its place in `stream` (0 when the
    request was accepted before and nothing was published now).
    """

    request_id: str
    topic: str
    stream: str
    sequence: int
    duplicate: bool = False


class RequestState(StrEnum):
    """Where a request is as a whole: the most advanced of its unfinished runs, or finished, or nothing matched."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    NO_MATCH = "no-match"


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. `result` is set exactly when it has finished; `status` is the latest news of an unfinished one."""

    request_id: str
    run_id: str
    function: str
    state: State
    reason: Reason | None = None
    result: Result | None = None
    status: RunStatusDocument | None = None

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def exit_code(self) -> int:
        """What a command about this run ends with: 0 when it succeeded or is unfinished, else its reason's."""
        return reason_info(self.result.reason).exit_code if self.result else 0

    def raise_for_failure(self) -> None:
        """Raise `RunFailedError` when the run finished without success."""
        if self.result is not None and not self.result.succeeded:
            raise run_failed(self.result)


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request and its runs. `record` is None while the event still waits to be accepted."""

    request_id: str
    topic: str
    record: RequestRecord | None
    runs: tuple[RunView, ...] = ()

    @property
    def state(self) -> RequestState:
        if self.record is None and not self.runs:
            return RequestState.QUEUED
        if not self.runs:
            return RequestState.NO_MATCH
        present = {run.state for run in self.runs if not run.finished}
        for state in (State.RUNNING, State.STARTING, State.QUEUED):
            if state in present:
                return RequestState(state.value)
        return RequestState.FINISHED

    @property
    def complete(self) -> bool:
        """Nothing more will come: every run has its result, or nothing matched."""
        return self.state in (RequestState.FINISHED, RequestState.NO_MATCH)

    @property
    def succeeded(self) -> bool:
        return self.state is RequestState.FINISHED and all(run.result and run.result.succeeded for run in self.runs)

    @property
    def results(self) -> tuple[Result, ...]:
        """The results so far, in the order of the record."""
        return tuple(run.result for run in self.runs if run.result is not None)

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the first run that failed; 6 when nothing matched."""
        if self.state is RequestState.NO_MATCH:
            return NoSubscriptionError.exit_code
        return next((run.exit_code for run in self.runs if run.exit_code), 0)

    def run(self, function_or_run_id: str) -> RunView | None:
        return next((run for run in self.runs if function_or_run_id in (run.function, run.run_id)), None)

    def raise_for_failure(self) -> None:
        """Raise `RunFailedError` for the first run that finished without success."""
        for run in self.runs:
            run.raise_for_failure()


def request_view(
    request_id: str,
    record: RequestRecord | None,
    results: Mapping[str, Result],
    statuses: Mapping[str, RunStatusDocument],
) -> RequestView:
    """Join what is stored: a run is in its result's state, else in its status', else it is queued."""
    functions = record.functions if record is not None else tuple(sorted(results))
    topic = record.topic if record is not None else next((result.topic for result in results.values()), "")
    runs = []
    for function in functions:
        run_id = wire.run_id_of(request_id, function)
        runs.append(run_view(request_id, function, run_id, results.get(function), statuses.get(run_id)))
    return RequestView(request_id, topic, record, tuple(runs))


def run_view(
    request_id: str, function: str, run_id: str, result: Result | None, status: RunStatusDocument | None
) -> RunView:
    if result is not None:
        return RunView(request_id, run_id, function, result.state, result.reason, result, status)
    state = status.state if status is not None else State.QUEUED
    # A status may be ahead of the result for a moment; only the result finishes a run.
    return RunView(request_id, run_id, function, State.RUNNING if state.finished else state, None, None, status)


def run_failed(result: Result) -> RunFailedError:
    words = result.message or reason_info(result.reason).meaning
    return RunFailedError(
        f"{result.function} {result.state} ({result.reason}): {words}",
        hint=f"invoker runs describe {result.run_id}",
        run_id=result.run_id,
        function=result.function,
        state=str(result.state),
        reason=str(result.reason),
    )


@dataclass(frozen=True, slots=True)
class ChainNode:
    """One request of a chain and the requests that its runs caused, in the order they were accepted."""

    view: RequestView
    parent_run_id: str | None
    children: tuple[ChainNode, ...] = ()

    def __iter__(self) -> Iterator[ChainNode]:
        """This node and all below it, a parent before its children."""
        yield self
        for child in self.children:
            yield from child


@dataclass(frozen=True, slots=True)
class Chain:
    """All requests that began with one. `settled` says that nothing more can come: no run is unfinished and every
    event that a finished one published has been accepted. `is_cut`: there are more requests than were asked for."""

    root: ChainNode
    settled: bool = False
    is_cut: bool = False

    def __iter__(self) -> Iterator[ChainNode]:
        yield from self.root

    @property
    def views(self) -> tuple[RequestView, ...]:
        return tuple(node.view for node in self)

    @property
    def runs(self) -> tuple[RunView, ...]:
        return tuple(run for view in self.views for run in view.runs)

    @property
    def succeeded(self) -> bool:
        return all(run.result is not None and run.result.succeeded for run in self.runs)

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the first run that failed."""
        return next((run.exit_code for run in self.runs if run.exit_code), 0)


def chain_of(root_request_id: str, views: Mapping[str, RequestView], *, settled: bool, is_cut: bool = False) -> Chain:
    """The views, in the order of their acceptance, as a tree.

    A request whose parent is not known, or not older than itself (headers may say anything), hangs under the root: none
    is left out, and none is its own ancestor.
    """
    owner = {run.run_id: root_request_id for run in views[root_request_id].runs}
    children: dict[str, list[str]] = {}
    for request_id, view in views.items():
        if request_id != root_request_id:
            children.setdefault(owner.get(_parent_of(view) or "", root_request_id), []).append(request_id)
            owner |= {run.run_id: request_id for run in view.runs}

    def node(request_id: str) -> ChainNode:
        below = tuple(node(child) for child in children.get(request_id, ()))
        return ChainNode(views[request_id], _parent_of(views[request_id]), below)

    return Chain(node(root_request_id), settled, is_cut)


def _parent_of(view: RequestView) -> str | None:
    return view.record.parent_run_id if view.record is not None else None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of a list of runs. `cursor` goes into `Client.runs(before=…)` for the page after this line.

    `percent` and `text` are what an unfinished run told of its progress, as far as whoever lists asked for it.
    """

    run_id: str
    request_id: str
    function: str
    topic: str
    state: State
    reason: Reason | None
    attempts: int
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cursor: str
    percent: float | None = None
    text: str | None = None

    @property
    def finished(self) -> bool:
        return self.state.finished


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a run wrote. When only the stored tail is left, `stream` and `at` are None, and so is `attempt`
    up to the first mark of an attempt."""

    text: str
    attempt: int | None = None
    stream: str | None = None
    at: datetime | None = None


class SubscriptionInfo(Document):
    """A subscription as its function declares it."""

    topic: str
    filter: Any = None


class ParameterInfo(Document):
    """A declared parameter: its JSON schema and default, and whether every request must give it."""

    name: str
    schema_: Any = Field(default=None, alias="schema")
    default: Any = None
    required: bool = False
    description: str = ""


class FunctionProblem(Document):
    """Why a function's file is refused, as far as it is known where."""

    file: str | None = None
    line: int | None = None
    field: str | None = None
    message: str = ""


class FunctionInfo(Document):
    """A function as the controllers have it. `kept` runs in its last good version, `broken` has none."""

    name: str
    description: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    subscriptions: tuple[SubscriptionInfo, ...] = ()
    status: Literal["ready", "kept", "broken"] = "ready"
    problem: FunctionProblem | None = None
    paused: bool = False
    queued: int = 0
    running: int = 0
    concurrency: int | None = None
    runtime: str | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None
    handler: str | None = None
    file: str | None = None
    spec_hash: str | None = None
    timeout_seconds: float | None = None
    backoff_limit: int | None = None
    no_retry_exit_codes: tuple[int, ...] = ()
    input_schema: Any = None
    output_schema: Any = None
    parameters: tuple[ParameterInfo, ...] = ()
    on_success: Any = None
    on_failure: Any = None


class CatalogInfo(Document):
    """The catalog in use: its version, the engine, and every function, broken ones included."""

    catalog: str = ""
    engine: str = ""
    functions: tuple[FunctionInfo, ...] = ()

    def function(self, name: str) -> FunctionInfo | None:
        return next((function for function in self.functions if function.name == name), None)


class SettingInfo(Document):
    """One setting that holds for a function's runs, by its key in the file. `given`: the file says so; otherwise it is
    the default."""

    name: str
    value: Any = None
    given: bool = False


class FunctionSource(Document):
    """A function as it is written: its document of `file`, which begins in `line`, and the handler's file beside it.

    `masked`: without comments, values of environment variables and secret fields, so lines are not the file's.
    """

    function: str
    file: str = ""
    line: int | None = None
    text: str = ""
    masked: bool = True
    truncated: bool = False
    code_file: str | None = None
    code: str | None = None
    code_truncated: bool = False
    settings: tuple[SettingInfo, ...] = ()


class ExplainedSubscription(Document):
    """One subscription against the asked event: the clause that decided, in words."""

    function: str
    pattern: str
    matched: bool
    clause: str = ""


class NearPattern(Document):
    """A topic pattern close to one that nothing matches."""

    pattern: str
    function: str


class Explanation(Document):
    """Which functions an event would run, and why."""

    topic: str
    matched: tuple[str, ...] = ()
    subscriptions: tuple[ExplainedSubscription, ...] = ()
    nearest: tuple[NearPattern, ...] = ()


class ReloadInfo(Document):
    """The catalog after a reload."""

    catalog: str = ""
    functions: int = 0
    broken: int = 0


class PauseInfo(Document):
    """Whether a function is paused now."""

    function: str = ""
    paused: bool = False


class Redriven(Document):
    """The request that a dead letter became."""

    request_id: str


class Cancelled(Document):
    """The run ids that this call cancelled, and those that had finished before."""

    cancelled: tuple[str, ...] = ()
    already_finished: tuple[str, ...] = ()


class DeadLetter(Document):
    """An event that could not become runs; `reason` is an error code of `docs/errors.md`."""

    version: int = 1
    id: str
    reason: str
    message: str = ""
    topic: str = ""
    subject: str = ""
    stream: str = ""
    sequence: int = 0
    dead_at: AwareDatetime
    request_id: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: Content = Content()
