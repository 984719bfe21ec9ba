"""`invoker functions schema`: the JSON Schemas that a handler's own types say, to be put into its spec."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoker.errors import CatalogError

if TYPE_CHECKING:
    from trigger.function import Function

IMPORT_SECONDS = 60.0


def handler_schemas(function: Function) -> dict[str, Any]:
    """The parts of a spec that the handler's types say: `input` and `output`, each with its `schema`.

    The handler's module is imported, in a process of its own. Raises `CatalogError` when the function has no Python
    handler, when the module cannot be imported, when there are no types, or when a schema could not be used.
    """
    code = function.code
    if code.runtime != "python" or not code.handler:
        raise CatalogError(
            f"{function.name} has no Python handler whose types could be read",
            hint="write input.schema and output.schema by hand",
        )
    with tempfile.TemporaryDirectory(prefix="invoker-schema-") as folder:
        if code.inline is not None:
            (Path(folder) / f"{code.handler.partition('.')[0]}.py").write_text(code.inline)
        place = folder if code.inline is not None or code.folder is None else str(code.folder.resolve())
        found = _asked(function.name, code.handler, place)
    if "error" in found:
        raise CatalogError(
            f"{function.name}: {found['error']}", hint="packages of requirements.txt must be installed here, too"
        )
    parts = {part: {"schema": schema} for part, schema in found.items() if schema is not None}
    if not parts:
        raise CatalogError(
            f"{code.handler} of {function.name} says nothing about its data: annotate its first parameter, or what it "
            "returns, with a pydantic model or a dataclass",
            hint="def handle(order: Order, context) -> Receipt: …",
        )
    for part, spec in parts.items():
        _check(function.name, part, spec["schema"])
    return parts


def _asked(name: str, handler: str, place: str) -> dict[str, Any]:
    # Beside the code, and without the folder that the command was given in: only the function's own modules count.
    command = [sys.executable, "-P", "-m", "invoker.cli.handler_models", handler, place]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=IMPORT_SECONDS, check=False, cwd=place)
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise CatalogError(f"{name}: importing {handler} took more than {IMPORT_SECONDS:g} s") from None
    except ValueError:
        raise CatalogError(f"{name}: importing {handler} ended the process with {done.returncode}") from None
    return answer


def _check(name: str, part: str, schema: Any) -> None:
    from invoker.schema import Schema, SchemaError

    try:
        Schema(schema)
    except SchemaError as error:
        raise CatalogError(f"{name}: the schema of its {part} cannot be used: {error}") from error
