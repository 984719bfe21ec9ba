"""Fields that a schema declares secret, and the schema without the values that it gives for them. Pure.

A field is secret when its schema says `writeOnly: true`, `format: password` or `x-secret: true`.
"""

from __future__ import annotations

from typing import Any

CONCEALED = "•••"
_GIVEN = ("default", "const", "enum", "example", "examples")


def is_declared_secret(schema: Any) -> bool:
    """Whether this very schema says that nobody but the function should see the value."""
    if not isinstance(schema, dict):
        return False
    return schema.get("writeOnly") is True or schema.get("x-secret") is True or schema.get("format") == "password"


def without_given_secrets(document: Any) -> Any:
    """The document with `•••` for every default, constant and example that is, or holds, the value of a secret field.

    The document is a schema, or anything that has schemas in it: a parameter's default is that of its `schema`.
    """
    return _walked(document)[0]


def _walked(value: Any) -> tuple[Any, bool]:
    """The value without secrets, and whether a schema within it declares any."""
    if isinstance(value, list):
        parts = [_walked(one) for one in value]
        return [one for one, _ in parts], any(marked for _, marked in parts)
    if not isinstance(value, dict):
        return value, False
    named = {name: _walked(one) for name, one in value.items()}
    marked = is_declared_secret(value) or any(within for _, within in named.values())
    found = {name: one for name, (one, _) in named.items()}
    if marked:
        found |= {name: CONCEALED for name in _GIVEN if name in found and not _is_schema(value, name)}
    return found, marked


def _is_schema(value: dict[str, Any], name: str) -> bool:
    """Whether that is a field of such a name in a list of properties, and no keyword."""
    return isinstance(value[name], dict) and all(isinstance(one, dict) for one in value.values())
