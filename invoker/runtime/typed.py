"""Validating an input against a handler's annotation, before the handler runs. Loaded for typed handlers only.

A pydantic model validates itself. A dataclass is validated here, recursively, with the standard library: str, int,
float, bool, None, Any, list, tuple, set, dict, Optional and unions, Literal, enums, date and datetime, and dataclasses
or models within. Unknown keys are ignored, as pydantic does; nothing is converted but int to float and text to dates.
"""

from __future__ import annotations

import datetime
import enum
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from .event import Input, InvalidInputError

MAX_ERRORS = 20
MAX_DETAIL_CHARACTERS = 300


class _MisfitError(Exception):
    """The places that do not fit."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        self.errors = errors


def validated(model: type, given: Input) -> Any:
    """An instance of the model from the input's JSON. Raises `InvalidInputError` that names the fields."""
    if hasattr(model, "model_validate_json"):
        return _pydantic(model, given.raw())
    try:
        return _built(model, given.parsed(), "")
    except _MisfitError as refused:
        raise _invalid(model, refused.errors) from None


def _pydantic(model: Any, data: bytes) -> Any:
    try:
        return model.model_validate_json(data)
    except ValueError as error:
        listed = getattr(error, "errors", None)
        if listed is None:
            raise
        errors = [{"pointer": pointer(*one["loc"]), "detail": _shortened(one["msg"])} for one in listed()]
        raise _invalid(model, errors) from None


def pointer(*parts: object) -> str:
    """An RFC 6901 pointer from its parts."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _invalid(model: type, errors: list[dict[str, str]]) -> InvalidInputError:
    words = "; ".join(f"{one['pointer'] or '(the whole)'}: {one['detail']}" for one in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return InvalidInputError(f"the input is no {model.__name__}: {words}{more}", errors[:MAX_ERRORS])


def _built(model: Any, value: Any, at: str) -> Any:
    """An instance of a dataclass from a JSON object; collects every field's problem before it raises."""
    if not isinstance(value, dict):
        raise _refused(at, f"must be an object, is {_name(value)}")
    hints = typing.get_type_hints(model)
    found, errors = {}, []
    for field in fields(model):
        if not field.init:
            continue
        place = at + pointer(field.name)
        if field.name not in value:
            if field.default is MISSING and field.default_factory is MISSING:
                errors.append({"pointer": place, "detail": "is missing"})
            continue
        try:
            found[field.name] = _fitted(hints[field.name], value[field.name], place)
        except _MisfitError as refused:
            errors += refused.errors
    if errors:
        raise _MisfitError(errors)
    try:
        return model(**found)
    except (ValueError, TypeError) as error:  # the dataclass's own checks in __post_init__
        raise _refused(at, str(error)) from error


def _fitted(kind: Any, value: Any, at: str) -> Any:
    if kind is Any or kind is object:
        return value
    origin = typing.get_origin(kind)
    if origin is not None:
        return _generic(kind, origin, value, at)
    if is_dataclass(kind):
        return _built(kind, value, at)
    if hasattr(kind, "model_validate"):
        return _model(kind, value, at)
    return _plain(kind, value, at)


def _plain(kind: Any, value: Any, at: str) -> Any:
    if kind is None or kind is type(None):
        return _when(value is None, value, at, "null")
    if kind is bool:
        return _when(isinstance(value, bool), value, at, "true or false")
    if kind is int:
        return _when(isinstance(value, int) and not isinstance(value, bool), value, at, "a whole number")
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_when(fits, value, at, "a number"))
    if kind is str:
        return _when(isinstance(value, str), value, at, "a text")
    if kind in (list, dict):
        return _when(isinstance(value, kind), value, at, "a list" if kind is list else "an object")
    if kind in (datetime.datetime, datetime.date):
        return _date(kind, value, at)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, value, at)
    raise TypeError(f"{at}: the runtime cannot check a field of type {getattr(kind, '__name__', kind)}; use pydantic")


def _generic(kind: Any, origin: Any, value: Any, at: str) -> Any:
    inner = typing.get_args(kind)
    if origin is typing.Annotated:
        return _fitted(inner[0], value, at)
    if origin is typing.Literal:
        same = any(value == one and type(value) is type(one) for one in inner)
        return _when(same, value, at, f"one of {', '.join(map(repr, inner))}")
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, at)
    if origin in (list, set, frozenset, tuple):
        return _several(origin, inner, value, at)
    if origin is dict:
        _when(isinstance(value, dict), value, at, "an object")
        return {key: _fitted(inner[1], one, at + pointer(key)) for key, one in value.items()}
    raise TypeError(f"{at}: the runtime cannot check a field of type {kind}; use pydantic")


def _several(origin: Any, inner: tuple[Any, ...], value: Any, at: str) -> Any:
    _when(isinstance(value, list), value, at, "a list")
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        _when(len(value) == len(inner), value, at, f"a list of {len(inner)}")
        kinds: typing.Iterable[Any] = inner
    else:
        kinds = (inner[0] for _ in value)
    found, errors = [], []
    for place, (kind, one) in enumerate(zip(kinds, value, strict=True)):
        try:
            found.append(_fitted(kind, one, at + pointer(place)))
        except _MisfitError as refused:
            errors += refused.errors
    if errors:
        raise _MisfitError(errors)
    return origin(found)


def _one_of(inner: tuple[Any, ...], value: Any, at: str) -> Any:
    refusals = []
    for kind in inner:
        try:
            return _fitted(kind, value, at)
        except _MisfitError as refused:
            refusals.append(refused)
    if type(None) in inner and len(inner) == 2:
        # Optional[X]: what X says is what helps; "must be null" is not.
        raise refusals[0 if inner[1] is type(None) else 1]
    raise _refused(at, f"fits none of {', '.join(getattr(one, '__name__', str(one)) for one in inner)}")


def _model(kind: Any, value: Any, at: str) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:
        listed = getattr(error, "errors", None)
        if listed is None:
            raise
        raise _MisfitError(
            [{"pointer": at + pointer(*one["loc"]), "detail": _shortened(one["msg"])} for one in listed()]
        ) from None


def _date(kind: Any, value: Any, at: str) -> Any:
    try:
        return kind.fromisoformat(value)
    except (TypeError, ValueError):
        raise _refused(at, f"must be an ISO 8601 {kind.__name__}") from None


def _member(kind: type[enum.Enum], value: Any, at: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise _refused(at, f"must be one of {', '.join(repr(one.value) for one in kind)}") from None


def _when(fits: bool, value: Any, at: str, wanted: str) -> Any:
    if not fits:
        raise _refused(at, f"must be {wanted}, is {_name(value)}")
    return value


def _refused(at: str, detail: str) -> _MisfitError:
    return _MisfitError([{"pointer": at, "detail": _shortened(detail)}])


def _name(value: Any) -> str:
    names: dict[type, str] = {
        type(None): "null", bool: "a boolean", int: "a whole number", float: "a number", str: "a text",
        list: "a list", dict: "an object",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARACTERS else f"{text[: MAX_DETAIL_CHARACTERS - 1]}…"
