"""docs/function.schema.json: what editors know of a function's file."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from invoker.cli.scaffold import files_of
from scripts.docs import field_meanings, function_schema
from tests.docs.transcript import ROOT
from tests.unit.test_function_pod import EVERY_SETTING

SCHEMA = json.loads((ROOT / "docs/function.schema.json").read_text())
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)
HEAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: hello}\nspec:\n"


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_the_file_is_what_the_code_says() -> None:
    page = (ROOT / "docs/functions.md").read_text()
    assert (ROOT / "docs/function.schema.json").read_text() == function_schema(page), "behind the code; run: make docs"


@pytest.mark.parametrize("path", sorted((ROOT / "functions").rglob("function.yaml")), ids=lambda path: path.parent.name)
def test_the_samples_fit(path: Path) -> None:
    assert errors(path.read_text()) == []


def test_what_a_new_function_begins_with_fits(tmp_path: Path) -> None:
    (text,) = (text for name, text in files_of("hello", tmp_path).items() if name.endswith("function.yaml"))
    assert errors(text) == []


def test_every_setting_of_a_pod_fits() -> None:
    assert errors(HEAD + "  runtime: python\n  pod: " + json.dumps(EVERY_SETTING)) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("  runtim: python\n", "runtim"),
        ("  runtime: nodejs\n", "'python' was expected"),
        ("  image: x\n  backoffLimit: '2'\n", "'2'"),
        ("  image: x\n  backoffLimit: -1\n", "-1"),
        ("  image: x\n  input: {as: stdin}\n", "stdin"),
        ("  image: x\n  volume: {size: 1Gi}\n", "mountPath"),
        ("  image: x\n  pod: {hostNetwork: true}\n", "hostNetwork"),
    ],
)
def test_a_mistake_is_seen(spec: str, words: str) -> None:
    assert any(words in message.replace('"', "'") for message in errors(HEAD + spec)), errors(HEAD + spec)


def test_every_field_is_described_as_on_the_page() -> None:
    def described(path: str) -> str | None:
        here = SCHEMA
        for key in path.split("."):
            place = here["properties"][key.removesuffix("[]")]
            here = place["items"] if key.endswith("[]") else place
        return str(place["description"])

    told = field_meanings((ROOT / "docs/functions.md").read_text())
    assert len(told) > 50
    assert {path: described(path) for path in told} == told
