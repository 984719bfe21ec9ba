"""The spec of a function as it is written in YAML: every key, its type and its bounds.

Pure. These models only say what may be written; `trigger.function` makes the value that the controller works with.
Keys are spelled as Kubernetes spells them (`backoffLimit`). Types are strict: `"2"` is no number, `yes` is no text.
"""

from __future__ import annotations

import difflib
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from invoker import wire
from invoker.errors import TopicError
from trigger.plan import InputMode, OutputMode

API_VERSION = "invoker.dev/v1alpha1"
KIND = "Function"
RUNTIMES = ("python",)
MAX_SECONDS = 30 * 86_400
MAX_ENV_VALUE_BYTES = 64 * 1024
RESERVED_ENV_PREFIX = "INVOKER_"

_QUANTITY = re.compile(r"([+]?[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_SCALE = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_PARAMETER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def parse_quantity(text: str | int | float) -> Decimal:
    """A Kubernetes quantity (`250m`, `1.5Gi`, `2e3`, 4) as a number; raises `ValueError` when it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{str(text)[:40]!r} is no quantity such as 100m, 0.5, 256Mi or 2Gi")
    number, suffix, exponent = Decimal(match[1]), match[2], match[3]
    if suffix in _BINARY:
        return number * Decimal(2 ** _BINARY[suffix])
    return number.scaleb(_SCALE.get(suffix, 0) if suffix else int(exponent or 0))


def _fully(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text[:80]!a} is no legal {what}")
        return text

    return AfterValidator(check)


def _sentence(check: Any) -> AfterValidator:
    """A check of `invoker.wire` as a validator: its sentence, without its exception."""

    def run(text: str) -> str:
        try:
            return str(check(text))
        except TopicError as error:
            raise ValueError(error.message) from error

    return AfterValidator(run)


def _env_name(name: str) -> str:
    if name.upper().startswith(RESERVED_ENV_PREFIX):
        raise ValueError(f"names that begin with {RESERVED_ENV_PREFIX} are Invoker's own")
    return name


def _quantity(text: str | int | float) -> str:
    value = parse_quantity(text)
    if value < 0:
        raise ValueError(f"{text} is negative")
    return str(text)


def _env_value(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL character, which no environment can hold")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ENV_VALUE_BYTES:
        raise ValueError(f"is longer than {MAX_ENV_VALUE_BYTES} bytes")
    return text


Topic = Annotated[str, _sentence(wire.check_topic)]
TopicPattern = Annotated[str, _sentence(wire.check_pattern)]
FunctionName = Annotated[str, _sentence(wire.check_function_name)]
ParameterName = Annotated[str, _fully(_PARAMETER_NAME, "parameter name (a letter, then up to 62 of a-z A-Z 0-9 _ -)")]
EnvName = Annotated[str, _fully(_ENV_NAME, "environment variable name"), AfterValidator(_env_name)]
EnvValue = Annotated[str, AfterValidator(_env_value)]
Quantity = Annotated[str | int | float, AfterValidator(_quantity)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
ExitCode = Annotated[int, Field(ge=1, le=255)]
LabelKey = Annotated[str, _fully(_LABEL_KEY, "label key")]
LabelValue = Annotated[str, _fully(_LABEL_VALUE, "label value (at most 63 of a-z A-Z 0-9 - _ .)")]
Text = Annotated[str, Field(max_length=64 * 1024)]
SchemaField = dict[str, Any] | str


class Fields(BaseModel):
    """A mapping whose keys are all known; an unknown one is refused with the key that was probably meant."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=lambda name: _camel(name), validate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise PydanticCustomError("not_a_mapping", "must be a mapping of keys, not {what}", {"what": spoken(value)})
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in value:
            if key not in known:
                raise PydanticCustomError("unknown_key", "{sentence}", {"sentence": unknown(key, known), "key": key})
        return value


def _camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.title() for part in rest)


def unknown(key: str, known: list[str]) -> str:
    """The sentence about a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    meant = next((name for name in known if near and name.lower() == near[0]), None)
    hint = f"; did you mean {meant!r}?" if meant else "."
    return f"unknown key {key[:60]!a}{hint} Allowed here: {', '.join(known)}"


def spoken(value: Any) -> str:
    """What kind of YAML value this is, in words."""
    if value is None:
        return "nothing"
    words = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return words.get(type(value), type(value).__name__)


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


class EnvFields(Fields):
    """A Kubernetes EnvVar: a name with either a value or a reference."""

    name: EnvName
    value: EnvValue | None = None
    value_from: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _value_or_reference(self) -> EnvFields:
        if self.value is not None and self.value_from is not None:
            raise ValueError("has both value and valueFrom; only one is allowed")
        return self


class ResourceFields(Fields):
    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class VolumeFields(Fields):
    size: Quantity
    mount_path: Annotated[str, Field(pattern=r"^/[^:]*$")]
    storage_class: Text | None = None


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
    job: dict[str, Any] | None = None
    parameters: Annotated[list[ParameterFields], Field(max_length=100)] = Field(default_factory=list)
    input: InputFields = Field(default_factory=InputFields)
    output: OutputFields = Field(default_factory=OutputFields)
    env: Annotated[list[EnvFields], Field(max_length=500)] = Field(default_factory=list)
    resources: ResourceFields = Field(default_factory=ResourceFields)
    volume: VolumeFields | None = None
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
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, Text] = Field(default_factory=dict)


class FunctionFields(Fields):
    api_version: Literal["invoker.dev/v1alpha1"]
    kind: Literal["Function"]
    metadata: MetadataFields
    spec: SpecFields
