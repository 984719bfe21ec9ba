"""The types that the keys of a function are made of, and the strict mapping that all its parts are.

Pure. Keys are spelled as Kubernetes spells them (`backoffLimit`). Types are strict: `"2"` is no number, `yes` is no
text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from invoker import wire
from invoker.errors import TopicError
from trigger.pod_names import CONFIG_KEY, DNS_LABEL, DNS_NAME, LABEL_KEY, LABEL_VALUE

MAX_SECONDS = 30 * 86_400
MAX_ENV_VALUE_BYTES = 64 * 1024
RESERVED_ENV_PREFIX = "INVOKER_"

_QUANTITY = re.compile(r"([+]?[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_SCALE = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_PARAMETER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


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
LabelKey = Annotated[str, _fully(LABEL_KEY, "label key")]
LabelValue = Annotated[str, _fully(LABEL_VALUE, "label value (at most 63 of a-z A-Z 0-9 - _ .)")]
Text = Annotated[str, Field(max_length=64 * 1024)]
SchemaField = dict[str, Any] | str
ObjectName = Annotated[str, _fully(DNS_NAME, "name of a Kubernetes object")]
ShortName = Annotated[str, _fully(DNS_LABEL, "name (1 to 63 of a-z, 0-9 and inner -)")]
ConfigKey = Annotated[str, _fully(CONFIG_KEY, "key of a Secret or ConfigMap (a-z A-Z 0-9 - _ .)")]


class Fields(BaseModel):
    """A mapping whose keys are all known; an unknown one is refused with the key that was probably meant.

    `REFUSED` says of keys that people will try, because Kubernetes has them, why a function may not have them.
    """

    REFUSED: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=lambda name: _camel(name), validate_by_name=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _only_known_keys(cls, value: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            raise PydanticCustomError("not_a_mapping", "must be a mapping of keys, not {what}", {"what": spoken(value)})
        known = [field.alias or name for name, field in cls.model_fields.items()]
        strangers = [key for key in value if key not in known]
        if not strangers:
            return validated(value)
        found = [cls._stranger(key, known, value) for key in strangers]
        try:
            validated({key: given for key, given in value.items() if key in known})
        except ValidationError as error:
            # What is missing, or does not go together, probably stands under the wrong key.
            inner = [one for one in error.errors() if one["loc"] and (len(one["loc"]) > 1 or one["type"] != "missing")]
            found += [_again(one) for one in inner]
        raise ValidationError.from_exception_data(cls.__name__, found)

    @classmethod
    def _stranger(cls, key: Any, known: list[str], value: Any) -> InitErrorDetails:
        why = cls.REFUSED.get(key)
        sentence = unknown(key, known) if why is None else f"is not allowed: {why}"
        custom = PydanticCustomError("unknown_key", "{sentence}", {"sentence": sentence, "key": key})
        return InitErrorDetails(type=custom, loc=(), input=value)


def _again(detail: ErrorDetails) -> InitErrorDetails:
    """What pydantic found, to be told once more beside other findings."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind not in ("unknown_key", "not_a_mapping"):
        return InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"], ctx=context)
    template = "{sentence}" if kind == "unknown_key" else "must be a mapping of keys, not {what}"
    return InitErrorDetails(type=PydanticCustomError(kind, template, context), loc=detail["loc"], input=detail["input"])


class KubernetesFields(Fields):
    """Part of an object as Kubernetes has it: its keys are documented there, the ones that are allowed stand here."""


def only(value: Any, why: str) -> AfterValidator:
    """For a key that may only say what holds anyway."""

    def check(given: Any) -> Any:
        if type(given) is not type(value) or given != value:
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ValueError(f"must be {shown} or left out: {why}")
        return given

    return AfterValidator(check)


def clear_of(problem: Callable[[str], str | None]) -> AfterValidator:
    """For a text about which `problem` says nothing."""

    def check(text: str) -> str:
        sentence = problem(text)
        if sentence is not None:
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def key_clear_of(problem: Callable[[str], str | None]) -> AfterValidator:
    """For a free key, as of labels: the sentence names the key."""
    return clear_of(lambda key: None if (found := problem(key)) is None else f"{key[:80]!a} {found}")


def exactly_one(model: BaseModel, *names: str) -> None:
    """Raise `ValueError` unless one of these keys is there, by the name it has in YAML."""
    fields = type(model).model_fields
    given = [fields[name].alias or name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        known = ", ".join(fields[name].alias or name for name in names)
        raise ValueError(f"must have exactly one of {known}" + (f", not {' and '.join(given)}" if given else ""))


def _camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.title() for part in rest)


def unknown(key: str, known: list[str]) -> str:
    """The sentence about a key that does not exist, with the nearest one that does, or all where none is near."""
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    meant = next((name for name in known if near and name.lower() == near[0]), None)
    hint = f"; did you mean {meant!r}?" if meant else f". Allowed here: {', '.join(known)}"
    return f"unknown key {key[:60]!a}{hint}"


def spoken(value: Any) -> str:
    """What kind of YAML value this is, in words."""
    if value is None:
        return "nothing"
    words = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return words.get(type(value), type(value).__name__)
