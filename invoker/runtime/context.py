"""What a handler may ask and tell while it runs: Kubeless' keys as a mapping, ours as attributes."""

from __future__ import annotations

import _thread
import time

from . import lean_json
from .api_client import RunApiClient
from .exits import NO_RETRY
from .fence import RunFinishedError
from .headers import encode_headers, encode_text
from .note import AttemptFailedError
from .output import encode
from .settings import RUNTIME_NAME, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

PROGRESS_PAUSE_SECONDS = 0.1
PROGRESS_PATIENCE_SECONDS = 0.5
MAX_PROGRESS_CHARACTERS = 1024


class PublishRefusedError(AttemptFailedError):
    """The event was refused for good: a bad topic, a chain that is too long, a body that is too large."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__("PublishRefused", message, exit_code=NO_RETRY)
        self.code = code


class Context(dict):  # type: ignore[type-arg]  # a subscript would need typing at run time; handlers see a plain dict
    """The context of one attempt. Keys: `function-name`, `timeout`, `runtime`, `memory-limit`.

    Attributes: `attempt` (from 1), `deadline`, `workdir`, `function`, `run_id`, `request_id`, `traceparent` and
    `tracestate` (the run's span as W3C writes it, None without a trace), and `content_type`, which a handler may set to
    declare the output that it returns.
    """

    def __init__(self, settings: Settings, client: RunApiClient, attempt: int, request_id: str, started: float) -> None:
        super().__init__(
            {
                "function-name": settings.function,
                "timeout": settings.timeout_text,
                "runtime": RUNTIME_NAME,
                "memory-limit": settings.memory_limit,
            }
        )
        self.function = settings.function
        self.run_id = settings.run_id
        self.request_id = request_id
        self.attempt = attempt
        self.workdir = settings.workdir
        self.traceparent = settings.traceparent
        self.tracestate = settings.tracestate
        self.content_type: str | None = None
        self._settings = settings
        self._client = client
        self._started = started
        self._position = 0
        self._lock = _thread.allocate_lock()
        self._next_progress = 0.0

    @property
    def deadline(self) -> datetime | None:
        """When this attempt is ended at the latest (aware UTC), None without a limit."""
        from datetime import UTC, datetime, timedelta

        ends = []
        if self._settings.timeout_seconds is not None:
            ends.append(datetime.fromtimestamp(self._started, UTC) + timedelta(seconds=self._settings.timeout_seconds))
        if self._settings.deadline:
            ends.append(datetime.fromisoformat(self._settings.deadline).astimezone(UTC))
        return min(ends, default=None)

    def publish(
        self, topic: str, data: Any = None, content_type: str | None = None, headers: dict[str, str] | None = None
    ) -> str:
        """Publish an event and return its request id; when this returns the event will not be lost.

        `data` is encoded as an output is; a path is streamed. An attempt that is repeated and publishes the same number
        of events again makes no second ones: the id comes from the run and the position, so publish in a fixed order.
        Not awaited, in async handlers too; a call takes about a millisecond.
        Raises `PublishRefusedError` or `RunFinishedError`.
        """
        own_type, body = encode(data, "what is published")
        sent = {"Invoker-Topic": encode_text(topic), "Invoker-Headers": encode_headers(_texts(headers))}
        if content_type or own_type:
            sent["Content-Type"] = content_type or own_type or ""
        with self._lock:
            sent["Invoker-Position"] = str(self._position)
            answer = self._client.call("POST", "events", sent, body)
            if answer.status == 201:
                self._position += 1
                return str(lean_json.loads(answer.body)["request_id"])
        problem = answer.problem()
        if answer.status in (409, 410):
            raise RunFinishedError(str(problem["detail"]))
        raise PublishRefusedError(str(problem.get("code", "")), f"publishing on {topic}: {problem['detail']}")

    def progress(self, percent: float | None = None, text: str | None = None) -> None:
        """Tell how far the work is: news that may be lost. At most ten a second are sent, the others are dropped; never
        raises, never takes more than a moment."""
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + PROGRESS_PAUSE_SECONDS
        try:
            news = {
                "percent": None if percent is None else float(percent),
                "text": None if text is None else str(text)[:MAX_PROGRESS_CHARACTERS],
            }
            body = lean_json.dumps(news).encode("utf-8", "replace")
        except (TypeError, ValueError):
            return  # a percent that is no number; news are not worth a failed run
        if self._client.call_once("POST", "progress", body, PROGRESS_PATIENCE_SECONDS) is None:
            self._next_progress = now + 50 * PROGRESS_PAUSE_SECONDS  # it does not answer: let it be for a while


def _texts(headers: dict[str, str] | None) -> dict[str, str]:
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers are text by name, not {type(value).__name__} by {type(name).__name__}")
    return dict(headers or {})
