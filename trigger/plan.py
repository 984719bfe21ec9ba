"""What an engine is asked to do for one run: a value that knows neither Kubernetes nor processes.

Pure. `RunPlan` is made by `trigger.planning` from a function, a request record and settings; engines only read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from invoker import wire


class InputMode(StrEnum):
    """How the input reaches the function: it asks the run API, finds it in its environment, or in a file."""

    API = "api"
    ENV = "env"
    FILE = "file"


class OutputMode(StrEnum):
    """Where the output comes from: the run API, the process's stdout, or its termination message."""

    API = "api"
    STDOUT = "stdout"
    TERMINATION = "termination"


@dataclass(frozen=True, slots=True)
class Code:
    """What is executed. `command` is complete for images and local commands; with `runtime` it is None and the engine
    starts that runtime with `handler`. `folder` holds the code beside the function's file, `inline` the spec's `code:`.
    """

    runtime: str | None = None
    handler: str | None = None
    folder: Path | None = None
    inline: str | None = None
    requirements: Path | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one run. Seconds and bytes; None means no bound of its own."""

    backoff_limit: int = 0
    timeout_seconds: float | None = None
    pending_timeout_seconds: float = 600.0
    ttl_seconds_after_finished: float = 60.0
    memory_bytes: int | None = None
    output_bytes: int = 16 * 1024 * 1024
    log_tail_bytes: int = 64 * 1024
    grace_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run as an engine sees it.

    `env` is complete and already rendered (it holds `INVOKER_RUN_URL`, `INVOKER_RUN_TOKEN`, an `as: env` input, the
    function's own variables), save what only an engine knows: `INVOKER_WORKDIR`, `INVOKER_INPUT_FILE`,
    `INVOKER_POD_UID`, `INVOKER_TERMINATION_FILE`. `no_retry_exit_codes` end the run without a further attempt.
    `deadline_at` is when the whole run is given up (0.9 of the retention after its acceptance). `keep_log`: the result
    holds the log's tail of a run that succeeded too.
    """

    run_id: str
    request_id: str
    function: str
    topic: str
    spec_hash: str
    catalog: str
    code: Code
    env: Mapping[str, str]
    input: InputMode = InputMode.API
    output: OutputMode = OutputMode.API
    limits: Limits = Limits()
    deadline_at: datetime | None = None
    no_retry_exit_codes: frozenset[int] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    keep_log: bool = False
    traceparent: str | None = None
    """The run's span in its trace, where it has one."""

    def ids(self) -> dict[str, str]:
        """For log lines: which run this is, and its trace where it has one."""
        found = {"request_id": self.request_id, "run_id": self.run_id, "function": self.function}
        return found | wire.trace_ids(self.traceparent)
