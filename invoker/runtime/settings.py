"""What the runtime is told, all of it in the environment: the contract with planning and the engines.

Set by planning: INVOKER_HANDLER (`module.function`), INVOKER_RUN_URL, INVOKER_RUN_TOKEN, INVOKER_RUN_ID,
INVOKER_REQUEST_ID, INVOKER_FUNCTION, INVOKER_TOPIC, INVOKER_PARAMS (JSON object), INVOKER_DEADLINE (ISO 8601, of the
whole run), INVOKER_TIMEOUT_SECONDS (of one attempt), INVOKER_MEMORY_LIMIT (bytes), INVOKER_OUTPUT_MODE (`api`,
`stdout`, `termination`; api when absent), INVOKER_INPUT_BASE64 (`input.as: env`), TRACEPARENT and TRACESTATE (the run's
span, where it has one).
Set by the engine: INVOKER_CODE_DIR, INVOKER_WORKDIR, INVOKER_POD_UID, INVOKER_ATTEMPT_NUMBER (when it counts attempts
by itself), INVOKER_TERMINATION_FILE, INVOKER_INPUT_FILE (`input.as: file`).
For operators: INVOKER_RETRY_SECONDS (60), how long a run API that does not answer is asked again.
"""

from __future__ import annotations

import os
import sys

from .note import AttemptFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_RETRY_SECONDS = 60.0


class RunApiSettings:
    """How to talk to the run API. Raises `AttemptFailedError` naming the variable that is missing or unusable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.run_url = self._wanted("INVOKER_RUN_URL")
        self.run_token = self._wanted("INVOKER_RUN_TOKEN")
        self.pod_uid = environ.get("INVOKER_POD_UID", "")
        self.attempt_number = environ.get("INVOKER_ATTEMPT_NUMBER")
        self.retry_seconds = self._number("INVOKER_RETRY_SECONDS", DEFAULT_RETRY_SECONDS) or 0.0

    def headers(self) -> dict[str, str]:
        """What every call carries: whose run this is, and which attempt of it."""
        headers = {"Authorization": f"Bearer {self.run_token}", "Invoker-Pod-Uid": self.pod_uid}
        if self.attempt_number:
            headers["Invoker-Attempt"] = self.attempt_number
        return headers

    def _wanted(self, name: str) -> str:
        value = self._environ.get(name)
        if not value:
            raise AttemptFailedError(
                "SettingsError", f"{name} is not set: this program is started by an engine of Invoker"
            )
        return value

    def _number(self, name: str, default: float | None) -> float | None:
        text = self._environ.get(name)
        try:
            return float(text) if text else default
        except ValueError:
            raise AttemptFailedError("SettingsError", f"{name} is no number: {text!r}") from None


class FetchSettings(RunApiSettings):
    """What the program that fetches the input is told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.input_file = self._wanted("INVOKER_INPUT_FILE")


class Settings(RunApiSettings):
    """What the program that runs the handler is told: the environment, read once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.handler = self._wanted("INVOKER_HANDLER")
        super().__init__(environ)
        self.code_dir = environ.get("INVOKER_CODE_DIR")
        self.workdir = environ.get("INVOKER_WORKDIR") or environ.get("TMPDIR") or "/tmp"
        self.run_id = environ.get("INVOKER_RUN_ID", "")
        self.request_id = environ.get("INVOKER_REQUEST_ID", "")
        self.function = environ.get("INVOKER_FUNCTION", "")
        self.topic = environ.get("INVOKER_TOPIC")
        self.params = environ.get("INVOKER_PARAMS")
        self.input_base64 = environ.get("INVOKER_INPUT_BASE64")
        self.input_file = environ.get("INVOKER_INPUT_FILE")
        self.output_mode = environ.get("INVOKER_OUTPUT_MODE", "api")
        self.deadline = environ.get("INVOKER_DEADLINE")
        self.timeout_text = environ.get("INVOKER_TIMEOUT_SECONDS")
        self.timeout_seconds = self._number("INVOKER_TIMEOUT_SECONDS", None)
        self.memory_limit = environ.get("INVOKER_MEMORY_LIMIT")
        self.traceparent = environ.get("TRACEPARENT")
        self.tracestate = environ.get("TRACESTATE")
        if self.output_mode not in ("api", "stdout", "termination"):
            raise AttemptFailedError("SettingsError", f"INVOKER_OUTPUT_MODE is {self.output_mode!r}")


def environment() -> Mapping[str, str]:
    """The process's environment; the only place of the runtime that reads it."""
    return os.environ  # noqa: TID251 -- the settings module of the runtime


def termination_file() -> str | None:
    """Where a note about a failure goes: known before anything else can fail."""
    return environment().get("INVOKER_TERMINATION_FILE")


RUNTIME_NAME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
