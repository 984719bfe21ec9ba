"""The samples' folders: what function.yaml declares is what the code does, and each folder stands alone."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker.schema import Schema
from tests.sample_functions import SAMPLES, load
from trigger.catalog_source.directory import DirectorySource
from trigger.filter import EventAttributes
from trigger.function import typed_value

NAMES = ("collect", "uncompress", "convert")


def spec_of(name: str) -> dict[str, Any]:
    document = yaml.safe_load((SAMPLES / name / "function.yaml").read_text())
    assert document["metadata"]["name"] == name
    spec: dict[str, Any] = document["spec"]
    return spec


@pytest.mark.parametrize("name", NAMES)
def test_declared_defaults_are_those_of_the_code_and_fit_their_schema(name: str) -> None:
    declared = {one["name"]: one for one in spec_of(name)["parameters"]}
    assert {key: one["default"] for key, one in declared.items()} == load(name).DEFAULTS
    for one in declared.values():
        schema = Schema(one["schema"])
        assert schema.problems(one["default"]) == []
        text = one["default"] if isinstance(one["default"], str) else json.dumps(one["default"])
        assert typed_value(one["schema"], text) == one["default"]


@pytest.mark.parametrize("name", NAMES)
def test_handler_exists_and_every_file_has_its_place(name: str) -> None:
    module, function = spec_of(name)["handler"].split(".")
    assert module == "main"
    assert callable(getattr(load(name), function))
    assert (SAMPLES / name / "README.md").stat().st_size > 500
    assert len(list((SAMPLES / name).glob("event.*"))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_only_the_standard_library_is_imported(name: str) -> None:
    folder = SAMPLES / name
    allowed = sys.stdlib_module_names | {file.stem for file in folder.glob("*.py")} | {"pyarrow"}
    for file in folder.glob("*.py"):
        assert imported(file) <= allowed
        assert "pyarrow" not in imported_at_the_top(file)


def imported(file: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(file.read_text())) for name in names_of(node)}


def imported_at_the_top(file: Path) -> set[str]:
    return {name for node in ast.parse(file.read_text()).body for name in names_of(node)}


def names_of(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").split(".")[0]}
    return set()


def test_what_two_folders_share_is_the_same_text() -> None:
    collect, uncompress, convert = (load(name) for name in NAMES)
    for name in ("kind_of", "is_tar"):
        assert inspect.getsource(getattr(collect, name)) == inspect.getsource(getattr(uncompress, name))
    assert collect.MAGIC.pattern == uncompress.MAGIC.pattern
    assert collect.TEXT_KINDS == uncompress.TEXT_KINDS == convert.SUFFIXES
    for name in ("input_file", "header"):
        assert inspect.getsource(getattr(convert, name)) == inspect.getsource(getattr(uncompress, name))


def test_the_catalog_takes_them_as_they_are() -> None:
    catalog = DirectorySource(SAMPLES).load()
    assert catalog.broken == ()
    assert set(catalog.functions) == set(NAMES)


@pytest.mark.parametrize(
    ("topic", "function"),
    [
        ("demo.collect", "collect"),
        ("collect", "collect"),
        *[(f"collected.{kind}", "uncompress") for kind in ("gz", "bz2", "xz", "zip", "tar")],
        *[
            (f"{stage}.{kind}", "convert")
            for stage in ("collected", "uncompressed")
            for kind in load("convert").READERS
        ],
        ("collected.binary", None),
        ("uncompressed.gz", None),
        ("converted.jsonl", None),
        ("failures", None),
    ],
)
def test_topics_join_them(topic: str, function: str | None) -> None:
    catalog = DirectorySource(SAMPLES).load()
    matched = catalog.matcher.match(EventAttributes(topic=topic))
    assert list(matched) == ([function] if function else [])


def test_the_data_is_made_by_its_script(tmp_path: Path) -> None:
    """From the tables in the committed archives the script makes archives with the same tables, twice the same."""
    script, committed = SAMPLES / "collect" / "data" / "make.py", SAMPLES / "collect" / "data" / "tzdata"
    tables = tmp_path / "tables"
    tables.mkdir()
    unpack_all(committed, tables)
    for target in ("one", "two"):
        command = [sys.executable, str(script), "--from", str(tables), "--to", str(tmp_path / target)]
        subprocess.run(command, check=True, capture_output=True)
    made = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()}
    assert set(made) == {file.name for file in committed.iterdir()}
    again = tmp_path / "again"
    again.mkdir()
    unpack_all(tmp_path / "one", again)
    assert contents(again) == contents(tables)
    assert sum(file.stat().st_size for file in committed.iterdir()) < 64 * 1024


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def unpack_all(archives: Path, target: Path) -> None:
    import gzip
    import tarfile
    import zipfile

    for file in archives.iterdir():
        if file.suffix == ".gz":
            (target / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        elif file.suffix == ".zip":
            with zipfile.ZipFile(file) as zipped:
                zipped.extractall(target)
        else:
            with tarfile.open(file) as tar:
                for info in tar:
                    opened = tar.extractfile(info)
                    assert opened is not None
                    (target / info.name).write_bytes(opened.read())


def test_the_script_names_the_table_that_is_missing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SAMPLES / "collect" / "data" / "make.py"),
        "--from",
        str(tmp_path),
        "--to",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path}/zone1970.tab: No such file or directory\n"
