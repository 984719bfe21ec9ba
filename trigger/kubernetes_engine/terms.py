"""What a Job carries along of its plan, so that any controller can judge it: limits, modes, what to keep. Pure.

A controller that finds a Job of one that has died knows no plan. Runs of one version share their terms, so they are
kept as text once per version (`read` remembers) and not once per run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trigger.plan import OutputMode, RunPlan

VERSION = 1
MAX_INT32, MAX_INT64 = 2**31 - 1, 2**63 - 1
"""What Kubernetes takes as a number of seconds or attempts, and as a size."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds and bytes; None means no bound. `runtime`: which of our runtimes runs the function, if one does;
    `mounts` names the secrets and configuration that its volumes need, for a sentence."""

    function: str = ""
    backoff_limit: int = 0
    timeout_seconds: float | None = None
    pending_timeout_seconds: float = 600.0
    ttl_seconds: int = 60
    memory_bytes: int | None = None
    output: OutputMode = OutputMode.API
    output_bytes: int = 16 * 1024 * 1024
    log_tail_bytes: int = 64 * 1024
    runtime: str | None = None
    keep_log: bool = False
    keep_pod: bool = False
    has_volume: bool = False
    code: str | None = None
    mounts: str = ""

    @property
    def attempts_allowed(self) -> int:
        return self.backoff_limit + 1


def terms_of(plan: RunPlan, code: str | None) -> Terms:
    """The terms of a plan; `code` names the ConfigMap that its pods mount."""
    limits = plan.limits
    return Terms(
        function=plan.function,
        backoff_limit=limits.backoff_limit,
        timeout_seconds=limits.timeout_seconds,
        pending_timeout_seconds=limits.pending_timeout_seconds,
        ttl_seconds=max(0, round(limits.ttl_seconds_after_finished)),
        memory_bytes=limits.memory_bytes,
        output=plan.output,
        output_bytes=limits.output_bytes,
        log_tail_bytes=limits.log_tail_bytes,
        runtime=plan.code.runtime,
        keep_log=plan.keep_log,
        keep_pod=bool(plan.pod.get("keepPod")),
        has_volume="volume" in plan.pod,
        code=code,
        mounts=", ".join(
            [
                *([f"ConfigMap {code}"] if code is not None else []),
                *_mounted(plan.pod.get("settings")),
                *_mounted(_pod_of(plan.pod.get("job"))),
            ]
        ),
    )


def _pod_of(job: Any) -> Any:
    """The pod of a function's own Job."""
    for name in ("template", "spec"):
        job = job.get(name) if isinstance(job, Mapping) else None
    return job


def _mounted(settings: Any) -> list[str]:
    volumes = settings.get("volumes") if isinstance(settings, Mapping) else None
    kinds = (("secret", "secretName", "Secret"), ("configMap", "name", "ConfigMap"))
    found = [
        (word, one[key].get(name))
        for one in (volumes if isinstance(volumes, list | tuple) else ())
        for key, name, word in kinds
        if isinstance(one, Mapping) and isinstance(one.get(key), Mapping)
    ]
    return [f"{word} {name}" for word, name in found if isinstance(name, str) and name]


def write(terms: Terms) -> str:
    """The terms as an annotation: JSON, only what differs from the defaults."""
    fields = {name: getattr(terms, name) for name in Terms.__dataclass_fields__}
    changed = {name: value for name, value in fields.items() if value != getattr(_DEFAULTS, name)}
    return json.dumps({"version": VERSION} | changed, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def read(text: str) -> Terms:
    """The terms of an annotation. What somebody broke by hand falls back to the defaults, field by field."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return _DEFAULTS
    if not isinstance(given, dict):
        return _DEFAULTS
    return Terms(**{name: value for name, value in given.items() if _fits(name, value)} | _output(given))


def _fits(name: str, value: Any) -> bool:
    match name:
        case "backoff_limit" | "ttl_seconds":
            return _is_number(value) and isinstance(value, int) and value <= MAX_INT32
        case "output_bytes" | "log_tail_bytes":
            return _is_number(value) and isinstance(value, int)
        case "timeout_seconds" | "pending_timeout_seconds" | "memory_bytes":
            return _is_number(value)
        case "keep_log" | "keep_pod" | "has_volume":
            return isinstance(value, bool)
        case "function" | "code" | "mounts" | "runtime":
            return isinstance(value, str)
        case _:
            return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_INT64


def _output(given: dict[str, Any]) -> dict[str, OutputMode]:
    try:
        return {"output": OutputMode(given.get("output", OutputMode.API))}
    except ValueError:
        return {}


_DEFAULTS = Terms()
