"""What a run's state and reason mean, and what to do next: a table, and the facts of the run put into it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from invoker.gateway.dashboard.words import sentence
from invoker.quantities import count
from invoker.result import Reason, Result, RunStatusDocument, State, reason_info
from invoker.views import FunctionInfo, RunView

LOG = "The log below has what the function wrote last."
REPLAY = "Then replay the run: that publishes the same event again, as a new request."
PLATFORM = "This is not the function's fault."
_UNSAID = "cancelled on request"
"""What a cancel says of which nobody said why."""
_ALIKE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Advice:
    """What happened in a sentence or two, what to do next, and the section of docs/runbooks.md about it."""

    happened: str
    next: tuple[str, ...] = ()
    runbook: str | None = None


_STEPS: dict[Reason, tuple[str, ...]] = {
    Reason.COMPLETED: (),
    Reason.ERROR: (
        f"Look at the error of the last attempt, and at the end of the log. {LOG}",
        "Mend the function; its catalog is read again by itself.",
        f"{REPLAY} When the failure passes by itself, let backoffLimit try again.",
    ),
    Reason.OUT_OF_MEMORY: (
        "Raise resources.limits.memory of the function, or have it hold less at once.",
        REPLAY,
    ),
    Reason.TIMEOUT: (
        f"See in the log where the time went. {LOG}",
        "Raise timeoutSeconds when the work takes that long; a timed-out attempt is not tried again.",
        REPLAY,
    ),
    Reason.PENDING_TIMEOUT: (
        f"{PLATFORM} Its pod was there, but did not start in time: look at the pod's events for why.",
        "Add room in the cluster, or raise pendingTimeoutSeconds.",
        REPLAY,
    ),
    Reason.IMAGE_PULL: (
        "Look whether the image's name and tag are right, and whether the cluster may pull it (imagePullSecrets).",
        REPLAY,
    ),
    Reason.CONFIG: (
        "The message names what is missing: a Secret, a ConfigMap, a key, a command. Create it, or correct its name.",
        REPLAY,
    ),
    Reason.UNSCHEDULABLE: (
        "No node fits what the function asks for: compare its resources, node selector and tolerations with the nodes.",
        "Add a node, or ask for less.",
        REPLAY,
    ),
    Reason.REFUSED: (
        "The message has the words of who refused it: a policy, a quota, or a wrong field of the Job.",
        "Change the function's spec, or the rule that it breaks.",
        REPLAY,
    ),
    Reason.INVALID_INPUT: (
        "The event does not fit what the function declares: the places are listed below.",
        "Correct the sender. To try one event, replay it with an edited payload.",
    ),
    Reason.INVALID_OUTPUT: (
        "Compare what the function gives with its output schema: the places are listed below.",
        "Mend the function or the schema.",
        REPLAY,
    ),
    Reason.OUTPUT_TOO_LARGE: (
        "Have the function give less, or store the bytes elsewhere and give their address.",
        "The limit is INVOKER_MAX_OUTPUT_BYTES of the controllers and gateways.",
        REPLAY,
    ),
    Reason.FUNCTION_REMOVED: (
        "Nothing ran. When the function was taken away on purpose, there is nothing to do.",
        "Else put its file back into the catalog, and replay the request.",
    ),
    Reason.EXPIRED_IN_QUEUE: (
        "The run never started: its function was paused or busy, or no controller ran, for almost the whole retention.",
        f"Mend the cause: raise concurrency, resume the function, start controllers. {REPLAY}",
    ),
    Reason.EVICTED: (
        f"{PLATFORM} Its node needed the room, and the pod could not be placed again.",
        "See why in the cluster's events; requests that are near to what it really uses keep a pod longer.",
        REPLAY,
    ),
    Reason.NODE_LOST: (f"{PLATFORM} Look at the node; the work may have been done in part.", REPLAY),
    Reason.DELETED: (
        "Somebody removed the Job, or ended the process, from outside. The cluster's audit log knows who.",
        REPLAY,
    ),
    Reason.CANCELLED: ("Nothing, unless it was a mistake: then replay it.",),
    Reason.ENGINE: (
        "Look at the controller's log for lines with this run's id: an engine ought not to lose a run.",
        REPLAY,
    ),
}
_LOST_BOOK, _FAILING_BOOK = "InvokerRunsLost", "InvokerFunctionFailing"
_RUNBOOKS: dict[Reason, str] = {
    Reason.ERROR: _FAILING_BOOK,
    Reason.OUT_OF_MEMORY: _FAILING_BOOK,
    Reason.TIMEOUT: _FAILING_BOOK,
    Reason.IMAGE_PULL: _FAILING_BOOK,
    Reason.CONFIG: _FAILING_BOOK,
    Reason.UNSCHEDULABLE: _FAILING_BOOK,
    Reason.REFUSED: _FAILING_BOOK,
    Reason.PENDING_TIMEOUT: "InvokerRunsWaiting",
    Reason.EXPIRED_IN_QUEUE: _LOST_BOOK,
    Reason.NODE_LOST: _LOST_BOOK,
    Reason.DELETED: _LOST_BOOK,
    Reason.ENGINE: _LOST_BOOK,
}


def advice(run: RunView, function: FunctionInfo | None, problem: str | None, *, hides: bool = False) -> Advice:
    """About the run as it is. `function` is the catalog's entry, `problem` why that is not up to date; `hides` leaves
    out words that may repeat secret values."""
    if run.result is not None:
        return _of_result(run.result, hides=hides)
    if run.state is State.QUEUED:
        return _of_queued(function, problem)
    if run.state is State.STARTING:
        return _of_starting(run.status, problem)
    return _of_running(run.status, function, problem)


def repeats_payload(reason: Reason | None) -> bool:
    """Whether the words about such an end may quote values of the input or the output."""
    return reason in (Reason.INVALID_INPUT, Reason.INVALID_OUTPUT)


def _of_result(result: Result, *, hides: bool) -> Advice:
    words = reason_info(result.reason).meaning
    if result.message.rstrip(".") not in ("", _UNSAID, words.rstrip(".")) and not hides:
        more = sentence(result.message)
        words = more if _begins_alike(more, words) else f"{words} {more}"
    return Advice(words, _STEPS[result.reason], _RUNBOOKS.get(result.reason))


def _begins_alike(one: str, other: str) -> bool:
    """Whether both say the same, the one more exactly."""
    first, second = (words.lower().split()[:_ALIKE_WORDS] for words in (one, other))
    return first == second


def _of_queued(function: FunctionInfo | None, problem: str | None) -> Advice:
    if problem is not None:
        return _NO_CONTROLLER
    if function is None:
        return Advice(
            "The function is not in the catalog: unless it comes back, the run ends as function-removed.",
            ("Put the function's file back, or cancel the run.",),
            "InvokerCatalogBroken",
        )
    if function.paused:
        return Advice(
            f"The function is paused: {count(function.queued, 'run')} of it {_wait(function.queued)}.",
            ("Resume it on its page, and its runs start in their order.",),
            "InvokerFunctionWaiting",
        )
    if function.status == "broken":
        return Advice(
            "The function's file cannot be loaded, and no earlier version is in use: its runs wait.",
            ("Mend the file; its page says what is wrong and where. It is loaded within a second.",),
            "InvokerCatalogBroken",
        )
    if function.concurrency is not None and function.running >= function.concurrency:
        limit = count(function.concurrency, "run")
        return Advice(
            f"The function runs {limit} at once at most, and that many run now; "
            f"{function.queued:,} more {_wait(function.queued)}.",
            ("Nothing: it starts when its turn comes. Raise concurrency to have more run at once.",),
            "InvokerRunsWaiting",
        )
    return Advice(
        "It waits for a controller to take it, which takes some milliseconds when one has room.",
        ("When it stays so: the controllers may be full (INVOKER_MAX_RUNNING), or restarting.",),
        "InvokerRunsWaiting",
    )


def _of_starting(status: RunStatusDocument | None, problem: str | None) -> Advice:
    if problem is not None:
        return _NO_CONTROLLER
    words = "A controller has it, and its process is being started."
    if status is not None and status.engine == "kubernetes":
        words = "A controller has it; its Job waits for a pod, and the pod for a node, its image or its volume."
    if status is not None and status.text:
        words = f"{words} {sentence(status.text)}"
    return Advice(
        words,
        ("Nothing, if it has just begun. It ends by itself after pendingTimeoutSeconds; cancel it to end it now.",),
        "InvokerRunsWaiting",
    )


def _of_running(status: RunStatusDocument | None, function: FunctionInfo | None, problem: str | None) -> Advice:
    number = max((one.number for one in status.attempts), default=1) if status else 1
    limit = function.backoff_limit if function is not None else None
    words = f"Attempt {number} of at most {limit + 1} is at work." if limit else f"Attempt {number} is at work."
    steps = ["Nothing: the page follows it."]
    if function is not None and function.timeout_seconds is not None:
        steps = [f"Nothing: the page follows it. An attempt is ended after {function.timeout_seconds:g} s."]
    if problem is not None:
        steps.append("No controller answers just now; the run goes on, and its result is stored all the same.")
    return Advice(words, tuple(steps))


_NO_CONTROLLER = Advice(
    "No controller answers just now. The run waits, and nothing is lost.",
    ("Start a controller, or see why it is not ready; the run then goes on by itself.",),
    "InvokerNoController",
)


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"
