"""The fence: the first question of every attempt, whether its run still wants it.

The run API gives the input only while the run is unfinished, so whoever asks for it learns whether to begin at all.
"""

from __future__ import annotations

from .api_client import Answer, RunApiClient
from .exits import NO_RETRY
from .note import AttemptFailedError

LATE_STATUSES = (409, 410)


class RunFinishedError(AttemptFailedError):
    """The run has its result already, or is gone: nothing that this attempt does counts any more."""

    def __init__(self, message: str) -> None:
        super().__init__("RunOver", message, exit_code=NO_RETRY)


def ask_input(client: RunApiClient, *, only_headers: bool = False, spill: tuple[str, int] | None = None) -> Answer:
    """The input, or only what is told about it. `spill` is (file, bytes): larger inputs go into that file.

    Raises `RunFinishedError` when this attempt is too late, and `AttemptFailedError` when the input is refused for good
    (`NO_RETRY`) or could not be had for as long as the client has patience.
    """
    answer = client.call("HEAD" if only_headers else "GET", "input", spill=spill)
    if answer.status == 200:
        return answer
    problem = answer.problem()
    if answer.status in LATE_STATUSES and problem.get("code") != "claim-check":
        raise RunFinishedError(f"this attempt is too late: {problem['detail']}")
    raise AttemptFailedError("InputUnavailable", str(problem["detail"]), exit_code=NO_RETRY)
