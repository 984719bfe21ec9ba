"""The form for publishing an event, as it is drawn: fields with what was typed into them and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from invoker.gateway.dashboard.schema_form import (
    REQUIRED,
    FormField,
    as_json,
    field_at,
    fields_of,
    parameter_field,
    texts_of,
    value_of,
)
from invoker.schema import Problem, parse_json
from invoker.schema_secrets import without_given_secrets
from invoker.views import FunctionInfo

FIELD, PARAMETER = "f:", "p:"
"""What names of fields in the form begin with: those of the input, and parameters."""
JSON, TEXT = "application/json", "text/plain"
CONTENT_TYPES = (JSON, TEXT, "text/csv", "application/xml", "application/octet-stream")

Mode = Literal["fields", "raw"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is published to: a function that is called, or a topic. `listeners` are the functions that may run."""

    topic: str
    function: str | None
    listeners: tuple[FunctionInfo, ...] = ()

    @property
    def checked(self) -> FunctionInfo | None:
        """The one function whose schemas the form is made of and checked against, None when there is no such one."""
        return self.listeners[0] if len(self.listeners) == 1 else None

    @property
    def name(self) -> str:
        return self.function or self.topic


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field with its text and its problems. `sent` is its name in the form."""

    field: FormField
    sent: str
    text: str
    problems: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        return self.field.kind in ("lines", "json") or "\n" in self.text

    @property
    def is_set(self) -> bool:
        """Whether the text is one of the choices: another one must be drawn as well, or it were lost."""
        return any(self.text == sent for sent, _ in self.field.choices)


@dataclass(frozen=True, slots=True)
class PublishForm:
    """The whole form. `fields` is None where there is nothing to make them of; `problems` are of no single field."""

    target: Target
    mode: Mode
    fields: tuple[ShownField, ...] | None
    parameters: tuple[ShownField, ...]
    raw: str
    content_type: str
    problems: tuple[str, ...] = ()
    raw_problems: tuple[str, ...] = ()

    @property
    def is_wrong(self) -> bool:
        shown = (*(self.fields or ()), *self.parameters)
        return bool(self.problems or self.raw_problems or any(one.problems for one in shown))


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed into a form: texts of the input's fields and of parameters, the raw text and its type."""

    mode: Mode
    fields: Mapping[str, str]
    parameters: Mapping[str, str]
    raw: str
    content_type: str

    @property
    def params(self) -> dict[str, str]:
        """The parameters that are given: an empty field is not."""
        return {name: text for name, text in self.parameters.items() if text}


def empty_form(target: Target) -> PublishForm:
    """The form as it is drawn at first, with the defaults of the schemas."""
    fields, parameters = _input_fields(target), parameter_fields(target)
    schema = target.checked.input_schema if target.checked is not None else None
    typed = Typed(
        "fields" if fields is not None else "raw",
        {one.name: one.initial for one in fields or ()},
        {one.name: one.initial for one in parameters},
        "",
        JSON if schema is not None else TEXT,
    )
    return shown_form(target, typed)


def shown_form(
    target: Target,
    typed: Typed,
    *,
    of_input: Iterable[Problem] = (),
    of_parameters: Iterable[Problem] = (),
    notes: Sequence[str] = (),
) -> PublishForm:
    """The form with what was typed, and each problem beside its field; those of no field, and `notes`, above."""
    fields = _input_fields(target)
    mode: Mode = typed.mode if fields is not None else "raw"
    shown = [] if fields is None else [_shown(one, FIELD, typed.fields) for one in fields]
    named = [_shown(one, PARAMETER, typed.parameters) for one in parameter_fields(target)]
    pointed = [(field_at(one["pointer"]), one) for one in of_input]
    shown, others = _placed(shown, pointed) if mode == "fields" else (shown, [one for _, one in pointed])
    named, more = _placed(named, [(field_at(one["pointer"].removeprefix("/params")), one) for one in of_parameters])
    said = [f"{one['pointer']}: {one['detail']}" if one["pointer"] else one["detail"] for one in others]
    return PublishForm(
        target,
        mode,
        None if fields is None else tuple(shown),
        tuple(named),
        typed.raw,
        typed.content_type,
        problems=(*notes, *(one["detail"] for one in more), *(said if mode == "fields" else ())),
        raw_problems=tuple(said) if mode == "raw" else (),
    )


def switched(target: Target, typed: Typed, mode: Mode) -> PublishForm:
    """The form in the other mode, with the same event in it. Nothing that was typed is lost: what the other mode
    cannot say stays as it is, with the reason."""
    fields = _input_fields(target)
    if fields is None or mode == typed.mode:
        return shown_form(target, typed)
    if mode == "raw":
        value, problems = value_of(fields, typed.fields)
        if [one for one in problems if one["detail"] != REQUIRED]:
            return shown_form(target, typed, of_input=problems)
        return shown_form(target, replace(typed, mode="raw", raw=as_json(value, 2), content_type=JSON))
    try:
        texts = texts_of(fields, parse_json(typed.raw.encode())) if typed.raw.strip() else {}
    except ValueError as error:
        return shown_form(target, typed, of_input=[{"pointer": "", "detail": str(error)}])
    if texts is None:
        words = "the fields cannot say all of this; what they cannot say is sent as text only"
        return shown_form(target, typed, of_input=[{"pointer": "", "detail": words}])
    return shown_form(target, replace(typed, mode="fields", fields=texts))


def read_typed(target: Target, sent: Mapping[str, str]) -> Typed:
    """What a form brought: its fields, whatever of them there is."""
    fields = _input_fields(target)
    return Typed(
        "fields" if sent.get("mode") == "fields" and fields is not None else "raw",
        {one.name: sent.get(FIELD + one.name, "") for one in fields or ()},
        {one.name: sent.get(PARAMETER + one.name, "").replace("\r\n", "\n") for one in parameter_fields(target)},
        sent.get("raw", "").replace("\r\n", "\n"),
        sent.get("type", "").strip(),
    )


def typed_event(target: Target, typed: Typed) -> tuple[bytes, str | None, list[Problem]]:
    """The bytes of the event, its content type, and which fields cannot be read."""
    fields = _input_fields(target)
    if typed.mode == "raw" or fields is None:
        return typed.raw.encode(), typed.content_type or None, []
    value, problems = value_of(fields, typed.fields)
    return as_json(value).encode(), JSON, problems


def together(unread: list[Problem], found: list[Problem]) -> list[Problem]:
    """What cannot be read, and what the schema says about the other fields."""
    names = {field_at(one["pointer"]) for one in unread}
    return found if not unread else [*unread, *(one for one in found if field_at(one["pointer"]) not in {None, *names})]


def parameter_fields(target: Target) -> list[FormField]:
    """The parameters of all functions that may run; of several with one name the first one's."""
    found: dict[str, FormField] = {}
    for function in target.listeners:
        for one in function.parameters:
            schema = without_given_secrets(one.schema_ or {})
            default = without_given_secrets({"schema": schema, "default": one.default})["default"]
            field = parameter_field(
                one.name, schema, required=one.required, default=default, description=one.description
            )
            found.setdefault(one.name.lower(), field)
    return list(found.values())


def _input_fields(target: Target) -> tuple[FormField, ...] | None:
    schema: Any = target.checked.input_schema if target.checked is not None else None
    return None if schema is None else fields_of(without_given_secrets(schema))


def _shown(field: FormField, prefix: str, texts: Mapping[str, str]) -> ShownField:
    return ShownField(field, prefix + field.name, texts.get(field.name, ""))


def _placed(
    fields: Sequence[ShownField], problems: Iterable[tuple[str | None, Problem]]
) -> tuple[list[ShownField], list[Problem]]:
    """The fields with the problems of each, and those of none."""
    words: dict[str, list[str]] = {one.field.name: [] for one in fields}
    others: list[Problem] = []
    for name, problem in problems:
        if name in words:
            words[name].append(problem["detail"])
        else:
            others.append(problem)
    return [replace(one, problems=tuple(words[one.field.name])) for one in fields], others
