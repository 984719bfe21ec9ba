"""The spec of a function as it is written in YAML: every key, its type and its bounds.

Pure. These models only say what may be written; `trigger.function` makes the value that the controller works with.
What is Kubernetes' own stands in `function_container`, `function_volume`, `function_pod` and `function_job`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trigger.field_types import (
    ExitCode,
    Fields,
    FunctionName,
    LabelKey,
    LabelValue,
    ParameterName,
    PositiveSeconds,
    Quantity,
    SchemaField,
    Seconds,
    Text,
    Topic,
    TopicPattern,
    clear_of,
    key_clear_of,
)
from trigger.function_container import EnvFields, ResourceFields
from trigger.function_job import JobFields
from trigger.function_pod import PodFields
from trigger.plan import InputMode, OutputMode
from trigger.pod_names import problem_of_function_label, problem_of_work_path

API_VERSION = "invoker.dev/v1alpha1"
KIND = "Function"
RUNTIMES = ("python",)


class SubscriptionFields(Fields):
    topic: TopicPattern
    filter: dict[str, Any] | None = None


class ParameterFields(Fields):
    name: ParameterName
    schema_: dict[str, Any] = Field(default_factory=lambda: {"type": "string"})
    default: Any = None
    required: bool = False
    description: Text = ""


class InputFields(Fields):
    schema_: SchemaField | None = None
    as_: Literal["api", "env", "file"] = InputMode.API.value


class OutputFields(Fields):
    schema_: SchemaField | None = None
    from_: Literal["api", "stdout", "termination"] = OutputMode.API.value


class VolumeFields(Fields):
    size: Quantity
    mount_path: Annotated[str, clear_of(problem_of_work_path)]
    storage_class: Text | None = None
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"


class NextFields(Fields):
    publish: Topic
    forward_reply: bool = False


class SpecFields(Fields):
    description: Text = ""
    subscriptions: Annotated[list[SubscriptionFields], Field(max_length=1000)] = Field(default_factory=list)
    runtime: Literal["python"] | None = None
    handler: Text | None = None
    code: Annotated[str, Field(max_length=256 * 1024)] | None = None
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^\S+$")] | None = None
    command: str | list[Text] | None = None
    args: list[Text] = Field(default_factory=list)
    job: JobFields | None = None
    parameters: Annotated[list[ParameterFields], Field(max_length=100)] = Field(default_factory=list)
    input: InputFields = Field(default_factory=InputFields)
    output: OutputFields = Field(default_factory=OutputFields)
    env: Annotated[list[EnvFields], Field(max_length=500)] = Field(default_factory=list)
    resources: ResourceFields = Field(default_factory=ResourceFields)
    volume: VolumeFields | None = None
    pod: PodFields | None = None
    keep_pod: bool = False
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 0
    timeout_seconds: PositiveSeconds | None = None
    pending_timeout_seconds: PositiveSeconds = 600.0
    ttl_seconds_after_finished: Seconds = 60.0
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    on_success: NextFields | None = None
    on_failure: NextFields | None = None
    no_retry_exit_codes: Annotated[list[ExitCode], Field(max_length=255)] = Field(default_factory=list)
    keep_log: bool = False


class MetadataFields(Fields):
    name: FunctionName
    labels: dict[Annotated[LabelKey, key_clear_of(problem_of_function_label)], LabelValue] = Field(default_factory=dict)
    annotations: dict[str, Text] = Field(default_factory=dict)


class FunctionFields(Fields):
    api_version: Literal["invoker.dev/v1alpha1"]
    kind: Literal["Function"]
    metadata: MetadataFields
    spec: SpecFields
