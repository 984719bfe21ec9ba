"""A function as the controller works with it: one frozen value per declared function, checked when it was made.

Pure. `trigger.function_file` makes these values from the YAML text and the files beside it; nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from invoker.errors import SchemaViolationError
from invoker.parameters import Parameter as Parameter
from invoker.parameters import resolved
from invoker.parameters import typed_value as typed_value
from invoker.schema import Problem, Schema
from trigger.filter import Filter
from trigger.plan import Code, InputMode, OutputMode


@dataclass(frozen=True, slots=True)
class Subscription:
    """A rule inside a function's spec: which events it runs for. `filter` None takes every event of the topic."""

    topic: str
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How the input reaches the function, and the JSON Schema it must fit (None: any bytes)."""

    mode: InputMode = InputMode.API
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Where the output comes from, and the JSON Schema it must fit (None: any bytes)."""

    mode: OutputMode = OutputMode.API
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EnvVar:
    """A Kubernetes EnvVar: `value` (placeholders not yet filled) or `value_from`, a reference only engines can read."""

    name: str
    value: str | None = None
    value_from: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes quantities as they were written; `memory_bytes` is the memory limit, None without one."""

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A generic ephemeral volume, one per attempt."""

    size: str
    mount_path: str
    storage_class: str | None = None
    access_mode: str = "ReadWriteOnce"


@dataclass(frozen=True, slots=True)
class NextTopic:
    """Where a finished run's output goes on to; with `forward_reply` the reply subject goes with it."""

    publish: str
    forward_reply: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What people wrote: the function's document, beginning with that line of its file, and the handler's file beside
    it. For people to read; nothing is decided from it."""

    text: str = ""
    line: int = 1
    code_file: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One declared function. Equal when its spec and code are: `spec_hash` is over both.

    Seconds and bytes; None means no bound of its own. `file` is relative to the catalog's root. `pod` and `job` are as
    they were written, checked, with placeholders not yet filled; at most one of them is there.
    """

    name: str
    file: str
    spec_hash: str
    code: Code
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    subscriptions: tuple[Subscription, ...] = ()
    job: Mapping[str, Any] | None = None
    pod: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    input: InputSpec = InputSpec()
    output: OutputSpec = OutputSpec()
    env: tuple[EnvVar, ...] = ()
    resources: Resources = Resources()
    volume: Volume | None = None
    backoff_limit: int = 0
    timeout_seconds: float | None = None
    pending_timeout_seconds: float = 600.0
    ttl_seconds_after_finished: float = 60.0
    concurrency: int | None = None
    on_success: NextTopic | None = None
    on_failure: NextTopic | None = None
    no_retry_exit_codes: frozenset[int] = frozenset()
    keep_log: bool = False
    keep_pod: bool = False
    input_schema: Schema | None = field(default=None, compare=False, repr=False)
    output_schema: Schema | None = field(default=None, compare=False, repr=False)
    source: Source = field(default=Source(), compare=False, repr=False)

    def check_input(self, data: bytes, content_type: str | None = None) -> list[Problem]:
        """Where the input does not fit the function's schema, as `{pointer, detail}`; empty when it fits."""
        return [] if self.input_schema is None else self.input_schema.problems_of_bytes(data, content_type)

    def check_output(self, data: bytes, content_type: str | None = None) -> list[Problem]:
        """Where the output does not fit the function's schema, as `{pointer, detail}`; empty when it fits."""
        return [] if self.output_schema is None else self.output_schema.problems_of_bytes(data, content_type)

    def resolve_parameters(self, given: Mapping[str, str]) -> dict[str, object]:
        """The declared parameters with their typed values: the given ones read by their schema, else the defaults.

        Names are compared without case (they travel as headers). Raises `SchemaViolationError` for one that is not
        declared, is required and missing, or does not fit; `fields["errors"]` lists them all.
        """
        values, problems = resolved(self.name, self.parameters, given)
        if problems:
            first = problems[0]
            raise SchemaViolationError(
                f"{first['pointer'].removeprefix('/params/')}: {first['detail']}", function=self.name, errors=problems
            )
        return values


def parameter_text(value: object) -> str:
    """A parameter's value as it appears in an environment value or an argument: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
