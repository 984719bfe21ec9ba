"""The values of a process's settings: environment over file over defaults, and what is wrong with them in words.

Shared by the controller and the gateway, whose settings are models of their own. Values are returned as they stand;
the model checks them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from invoker.errors import SettingsError

PREFIX = "INVOKER_"
TABLES = ("gateway",)
"""Tables of the settings file; what stands in none of them is the controller's, or shared."""


def setting_values(model: type[BaseModel], environ: Mapping[str, str], *, table: str | None = None) -> dict[str, Any]:
    """The values that environment and file give for the fields of a model, the environment's winning.

    A variable is `INVOKER_` and the field in capitals; with `_FILE` behind, it names a file that holds the value. The
    file named by `INVOKER_CONFIG` is TOML: keys as the fields, those of `table` within it and without its name in
    front. Raises `SettingsError` for files that cannot be read and for unknown keys.
    """
    return _file_values(model, environ, table) | _environment_values(model, environ)


def explained(error: ValidationError, secrets: Collection[str] = ()) -> str:
    """Every unusable value with its setting's name; values of secrets are not repeated."""
    lines = []
    for problem in error.errors():
        if problem["type"] == "default_factory_not_called":
            continue  # it only follows from another one
        name = "_".join(str(part) for part in problem["loc"][:1])
        message = problem["msg"].removeprefix("Value error, ")
        if not name:
            lines.append(message)
            continue
        shown = "" if name in secrets else f" (it is {problem['input']!r})"
        lines.append(f"{PREFIX}{name.upper()}: {message}{shown}")
    return "; ".join(lines)


def _environment_values(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, text in environ.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name.endswith("_FILE") and name.removesuffix("_FILE").lower() in model.model_fields:
            values.setdefault(name.removesuffix("_FILE").lower(), _secret(key, text))
        elif name.lower() in model.model_fields:
            values[name.lower()] = text
    return values


def _secret(key: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{key}: {path} cannot be read: {error.strerror}") from error


def _file_values(model: type[BaseModel], environ: Mapping[str, str], table: str | None) -> dict[str, Any]:
    path = environ.get(f"{PREFIX}CONFIG")
    if not path:
        return {}
    try:
        document = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise SettingsError(f"INVOKER_CONFIG: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"INVOKER_CONFIG: {path} is not TOML: {error}") from error
    outside = {key: value for key, value in document.items() if key not in TABLES}
    if table is None:
        _refuse_unknown(path, set(outside) - set(model.model_fields))
        return outside
    inside = document.get(table, {})
    if not isinstance(inside, dict):
        raise SettingsError(f"INVOKER_CONFIG: {path}: [{table}] is not a table")
    named = {f"{table}_{key}": value for key, value in inside.items()}
    _refuse_unknown(path, {f"[{table}] {key}" for key in inside if f"{table}_{key}" not in model.model_fields})
    # What stands outside of the table is the controller's as well; its keys are checked there.
    return {key: value for key, value in outside.items() if key in model.model_fields} | named


def _refuse_unknown(path: str, unknown: Collection[str]) -> None:
    if unknown:
        raise SettingsError(f"INVOKER_CONFIG: {path}: unknown setting {', '.join(sorted(unknown))}")
