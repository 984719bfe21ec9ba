"""A function's source: each document of a file by itself, and without what only operators should see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker.schema_secrets import without_given_secrets
from trigger.function import Function
from trigger.function_code import FileContent, FunctionFolder
from trigger.function_file import read_functions
from trigger.function_source import MAX_SOURCE_BYTES, describe_source

FILE = """\
# the first of two
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: first}
spec:
  runtime: python
  env: [{name: PASSWORD, value: hunter2}]  # was hunter1
  concurrency: 3
  parameters: [{name: pin, schema: {type: string, format: password}, default: "4711"}]
  input:
    schema: {type: object, properties: {token: {type: string, x-secret: true, default: t0ken}}, default: {token: wh0le}}

---
# the second: secret of the second
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: second}
spec:
  runtime: python
  code: |
    def handle(event, context):
        return "---"
"""
SECRETS = ("hunter2", "hunter1", "4711", "t0ken", "wh0le", "the first of two")


def functions(text: str = FILE, **files: bytes) -> dict[str, Function]:
    folder = FunctionFolder(Path("/x"), {f"{name}.py": FileContent(name, data) for name, data in files.items()})
    loaded = read_functions(text.encode(), "two.yaml", folder)
    return {one.name: one for one in loaded.functions}


def source(name: str, *, masked: bool, code: bytes = b"def handle(event, context): ...") -> dict[str, Any]:
    return describe_source(functions(FILE, main=code)[name], masked=masked)


def test_each_function_of_a_file_has_its_own_document_and_nothing_of_its_neighbours() -> None:
    first, second = source("first", masked=False), source("second", masked=False)
    assert first["text"] + second["text"] == FILE
    assert second["text"].startswith("---\n# the second")
    assert (first["line"], second["line"]) == (1, FILE[: FILE.index("---")].count("\n") + 1)


def test_who_may_not_operate_sees_no_values_of_variables_no_secrets_and_no_comments() -> None:
    whole, masked = source("first", masked=False), source("first", masked=True)
    for secret in SECRETS:
        assert secret in whole["text"]
        assert secret not in masked["text"]
    assert "PASSWORD" in masked["text"]
    assert masked["line"] is None
    assert yaml.safe_load(masked["text"])["spec"]["env"] == [{"name": "PASSWORD", "value": "•••"}]
    assert "def handle(event, context):\n" in source("second", masked=True)["text"]


@pytest.mark.parametrize("anchored", ["env: [{name: A, value: &v hunter2}, {name: B, value: *v}]"])
def test_a_repeated_value_is_masked_wherever_it_is_a_variables(anchored: str) -> None:
    found = functions(
        FILE.split("---")[0].replace("env: [{name: PASSWORD, value: hunter2}]", anchored), main=b"def handle(): ..."
    )
    assert "hunter2" not in describe_source(found["first"], masked=True)["text"]


def test_variables_of_a_job_are_masked_too() -> None:
    text = """\
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: first}
spec:
  job: {template: {spec: {containers: [{name: f, image: "x:1", env: [{name: A, value: hunter2}]}]}}}
"""
    assert "hunter2" not in describe_source(functions(text)["first"], masked=True)["text"]


def test_settings_say_what_the_file_gives_and_what_is_a_default() -> None:
    settings = {one["name"]: (one["value"], one["given"]) for one in source("first", masked=True)["settings"]}
    assert settings["concurrency"] == (3, True)
    assert settings["backoffLimit"] == (0, False)
    assert settings["input.as"] == ("api", False)


def test_the_handlers_file_is_there_and_inline_code_is_in_the_text() -> None:
    assert (source("first", masked=True)["code_file"], source("first", masked=True)["code"]) == (
        "main.py", "def handle(event, context): ...",
    )  # fmt: skip
    assert source("second", masked=True)["code_file"] is None


def test_text_and_code_are_bounded_together() -> None:
    found = source("first", masked=False, code=b"def handle(): ...\n" + b"# \xc3\xa4\n" * 100_000)
    assert found["code_truncated"]
    assert not found["truncated"]
    assert len((found["text"] + found["code"]).encode()) <= MAX_SOURCE_BYTES


def test_a_field_named_as_a_keyword_is_a_field() -> None:
    schema = {"properties": {"default": {"type": "string"}, "pin": {"writeOnly": True, "examples": ["1"]}}}
    assert without_given_secrets(schema)["properties"] == {
        "default": {"type": "string"}, "pin": {"writeOnly": True, "examples": "•••"},
    }  # fmt: skip
    assert without_given_secrets({"default": 1, "enum": [1]}) == {"default": 1, "enum": [1]}
