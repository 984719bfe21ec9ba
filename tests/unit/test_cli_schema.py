"""`invoker functions schema`: what a handler's types say, as it goes into the spec and is enforced from there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker.cli.rendering import catalog_function
from invoker.cli.schemas import handler_schemas
from invoker.errors import CatalogError
from trigger.function import Function

TYPES = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from pydantic import BaseModel, Field
if TYPE_CHECKING:
    from somewhere import Context
print("the module talks while it is imported")

class Item(BaseModel):
    sku: str = Field(min_length=2)

class Order(BaseModel):
    number: int = Field(ge=1)
    items: list[Item] = []

@dataclass
class Receipt:
    total: float
    note: str | None = None
"""


def written(root: Path, code: str, handler: str = "main.handle", **spec: Any) -> Function:
    folder = root / "order"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(code)
    document = {
        "apiVersion": "invoker.dev/v1alpha1", "kind": "Function", "metadata": {"name": "order"},
        "spec": {"subscriptions": [{"topic": "orders"}], "runtime": "python", "handler": handler} | spec,
    }  # fmt: skip
    (folder / "function.yaml").write_text(json.dumps(document))
    return catalog_function("order", root)


@pytest.mark.parametrize(
    "signature",
    ["order: Order, context", "event, data: Order", "order: Order, context: Context"],
)
def test_the_schema_of_the_typed_parameter_is_enforced_from_the_spec(tmp_path: Path, signature: str) -> None:
    parts = handler_schemas(written(tmp_path, f"{TYPES}\ndef handle({signature}):\n    return b''\n"))
    assert list(parts) == ["input"]
    function = written(tmp_path, "def handle(event, context): ...", **parts)
    assert function.check_input(b'{"number": 1, "items": [{"sku": "ab"}]}') == []
    problems = function.check_input(b'{"number": 0, "items": [{"sku": "a"}]}')
    assert sorted(one["pointer"] for one in problems) == ["/items/0/sku", "/number"]


def test_a_dataclass_that_is_returned_is_the_output(tmp_path: Path) -> None:
    parts = handler_schemas(written(tmp_path, f"{TYPES}\nasync def handle(event) -> Receipt: ...\n"))
    assert list(parts) == ["output"]
    function = written(tmp_path, "def handle(event, context): ...", **parts)
    assert function.check_output(b'{"total": 1.5}') == []
    assert [one["pointer"] for one in function.check_output(b'{"total": "x"}')] == ["/total"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def handle(event, context) -> bytes: ...", "says nothing about its data"),
        ("import nothing_of_that_name\ndef handle(event): ...", "nothing_of_that_name"),
        ("raise RuntimeError('at import')\ndef handle(event): ...", "at import"),
        ("def handle(:", "line 1"),
        ("import os; os._exit(3)\ndef handle(event): ...", "ended the process with 3"),
        (f"{TYPES}\nclass Odd(Order):\n    f: type(print)\ndef handle(order: Odd): ...", ""),
        (f"{TYPES}\nclass Odd(Order):\n    f: str = Field(pattern='(?=a)')\ndef handle(order: Odd): ...", ""),
    ],
)
def test_what_gives_no_schema_is_told_in_words(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(CatalogError) as refused:
        handler_schemas(written(tmp_path, code))
    assert words in refused.value.message
    assert refused.value.message.startswith(("order", "main.handle"))


def test_the_command_prints_what_a_spec_takes(tmp_path: Path) -> None:
    written(tmp_path, f"{TYPES}\ndef handle(order: Order) -> Receipt: ...\n")
    command = [sys.executable, "-m", "invoker", "functions", "schema", "order", "--catalog", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parts = yaml.safe_load(done.stdout)
    assert list(parts) == ["input", "output"]
    assert json.loads(subprocess.run([*command, "-o", "json"], capture_output=True, check=True).stdout) == parts
    assert written(tmp_path, "def handle(event): ...", **parts).input_schema is not None
