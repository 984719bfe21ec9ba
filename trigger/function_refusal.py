"""Why a function cannot be used, as one sentence: `file:line: field: what, and what is allowed`.

Pure. Turns what pydantic found in a document into our words, at the place in the file where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from invoker.errors import CatalogError
from trigger.field_types import spoken
from trigger.yaml_document import Path, YamlDocument


def refusal_of(error: ValidationError, document: YamlDocument, file: str) -> CatalogError:
    """Everything pydantic found, first line first, in our words."""
    grouped: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(_place(detail, document), []).append(detail)
    places = [path for path in grouped if not _is_beside(path, grouped)]
    found = sorted(
        ((document.line_of(path), path, _sentence(grouped[path])) for path in places), key=lambda one: one[0]
    )
    line, path, sentence = found[0]
    if len(found) > 1:
        sentence += f" (and {len(found) - 1} more)"
    errors = [{"line": line, "field": field_name(path), "detail": detail} for line, path, detail in found]
    return refusal(file, sentence, line, path, errors)


def _place(detail: ErrorDetails, document: YamlDocument) -> Path:
    """The place in the document, without the parts that a union or a key adds to pydantic's location."""
    path: Path = ()
    for part in detail["loc"]:
        if (*path, part) in document.lines:
            path = (*path, part)
    if detail["type"] == "unknown_key":
        return (*path, detail["ctx"]["key"])
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else path


def _is_beside(path: Path, others: Iterable[Path]) -> bool:
    """Whether a deeper place is wrong too: then the other kind of value that a key may have was not meant."""
    return any(len(other) > len(path) and other[: len(path)] == path for other in others)


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _sentence(details: list[ErrorDetails]) -> str:
    first = details[0]
    kind, context = first["type"], first.get("ctx", {})
    wanted = list(dict.fromkeys(_WANTED[detail["type"]] for detail in details if detail["type"] in _WANTED))
    if wanted and len(wanted) == len({detail["type"] for detail in details}):
        quotes = "; put it in quotes" if wanted == ["text"] and isinstance(first["input"], bool | int | float) else ""
        return f"must be {' or '.join(wanted)}, not {spoken(first['input'])}{quotes}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"must be {context['expected']}, not {shown(first['input'])}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]:g}, not {shown(first['input'])}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"{shown(first['input'])} does not have the form {context['pattern']}"
    return first["msg"]


def shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def field_name(path: Path) -> str:
    """The place as people write it: `spec.subscriptions[0].topic`."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return name if name.isprintable() else ascii(name)


def refusal(
    file: str, sentence: str, line: int | None = None, path: Path = (), errors: list[dict[str, Any]] | None = None
) -> CatalogError:
    field = field_name(path)
    place = f"{file}:{line}: " if line is not None else f"{file}: "
    listed = errors if errors is not None else [{"line": line, "field": field, "detail": sentence}]
    message = place + (f"{field}: {sentence}" if field else sentence)
    return CatalogError(message, file=file, line=line, field=field, errors=listed)
