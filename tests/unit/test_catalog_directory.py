"""The catalog in a real folder: what is found, what is refused, and what is kept when there is trouble."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from invoker.errors import SettingsError
from tests.unit.catalog_folder import MAIN, load, messages, names, put, put_function, text_of
from trigger.catalog import Catalog
from trigger.catalog_source import snapshot
from trigger.catalog_source.directory import DirectorySource

# what is found


def test_an_empty_folder_is_an_empty_catalog(tmp_path: Path) -> None:
    assert load(tmp_path).functions == {}
    assert load(tmp_path).complete


def test_functions_are_found_wherever_they_are(tmp_path: Path) -> None:
    put_function(tmp_path, "one")
    put_function(tmp_path, "two")
    put(tmp_path, "deep/er/three/function.yml", text_of("three", "  command: cat\n"))
    put(
        tmp_path,
        "flat.yaml",
        "---\n" + text_of("four", "  command: cat\n") + "---\n" + text_of("five", "  command: tac\n"),
    )
    catalog = load(tmp_path)
    assert names(catalog) == ["five", "four", "one", "three", "two"]
    assert catalog.functions["three"].file == "deep/er/three/function.yml"
    assert catalog.functions["four"].file == "flat.yaml"
    assert catalog.functions["one"].code.folder == tmp_path / "one"
    assert catalog.complete


def test_the_root_itself_may_be_a_functions_folder(tmp_path: Path) -> None:
    put(tmp_path, "function.yaml", text_of("solo"))
    put(tmp_path, "main.py", MAIN)
    assert load(tmp_path).functions["solo"].code.folder == tmp_path


def test_yaml_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "docker-compose.yaml", "services: {x: {image: y}}\n")
    put(tmp_path, "broken.yaml", "a: [")
    put(tmp_path, "deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n")
    put(tmp_path, "notes.txt", text_of("no"))
    assert load(tmp_path) == Catalog.empty()


BRACED = {
    "kind": "Function",
    "metadata": {"name": "a"},
    "spec": {"command": ["cat"]},
    "apiVersion": "invoker.dev/v1alpha1",
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(BRACED),
        json.dumps(BRACED, indent=2),
        f"# made by a program\n--- {json.dumps(BRACED)}\n",
        f"\n  {json.dumps(BRACED, indent=1)}",
        "{kind: Function, metadata: {name: a}, spec: {command: [cat]}, apiVersion: invoker.dev/v1alpha1}",
    ],
    ids=["one line", "indented", "behind dashes", "behind space", "no JSON"],
)
def test_a_function_in_braces_is_one(tmp_path: Path, text: str) -> None:
    """As a program writes it, under a name of its own."""
    put(tmp_path, "made.yaml", text)
    catalog = load(tmp_path)
    assert (names(catalog), messages(catalog)) == (["a"], [])


def test_a_broken_function_in_braces_is_told_and_others_objects_are_not(tmp_path: Path) -> None:
    inside = {"kind": "ConfigMap", "apiVersion": "v1", "data": {"a.yaml": text_of("a"), "b": json.dumps(BRACED)}}
    put(tmp_path, "others.yaml", json.dumps(inside))
    put(tmp_path, "values.yaml", f"{{functions: {{a: {{}}}}}}\n# {json.dumps({'kind': 'x'})}\n")
    put(tmp_path, "broken.yaml", json.dumps(BRACED)[:-1])
    put(tmp_path, "wrong.yaml", json.dumps(BRACED | {"kind": "Preset"}))
    catalog = load(tmp_path)
    assert names(catalog) == []
    assert sorted(one.file for one in catalog.broken) == ["broken.yaml", "wrong.yaml"]


def test_yaml_that_says_it_is_ours_is_refused_when_it_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, "x.yaml", '"apiVersion": "invoker.dev/v1alpha1"\nkind: Preset\n')
    put(tmp_path, "y.yaml", "apiVersion: invoker.dev/v2\nkind: Function\n")
    assert messages(load(tmp_path)) == [
        "x.yaml:2: kind: kind 'Preset' is not supported; supported is Function",
        "y.yaml:1: apiVersion: 'invoker.dev/v2' is not supported; write invoker.dev/v1alpha1",
    ]


@pytest.mark.parametrize("skipped", [".git", "__pycache__", "node_modules", ".venv", "venv"])
def test_hidden_folders_caches_and_environments_are_not_looked_into(tmp_path: Path, skipped: str) -> None:
    put(tmp_path, f"{skipped}/x/function.yaml", "a: [")
    put_function(tmp_path, "one")
    before = load(tmp_path).functions["one"].spec_hash
    put(tmp_path, f"one/{skipped}/cached", "changes all the time")
    catalog = load(tmp_path)
    assert names(catalog) == ["one"]
    assert catalog.broken == ()
    assert catalog.functions["one"].spec_hash == before


def test_the_hash_is_of_the_functions_own_folder_and_not_of_one_below(tmp_path: Path) -> None:
    put(tmp_path, "function.yaml", text_of("outer"))
    put(tmp_path, "main.py", MAIN)
    put_function(tmp_path, "inner")
    before = load(tmp_path)
    put(tmp_path, "inner/main.py", MAIN + "# changed\n")
    put(tmp_path, "inner/data/table.csv", "1")
    after = load(tmp_path)
    assert after.functions["outer"].spec_hash == before.functions["outer"].spec_hash
    assert after.functions["inner"].spec_hash != before.functions["inner"].spec_hash
    put(tmp_path, "lib/shared.py", "x = 1\n")
    assert load(tmp_path).functions["outer"].spec_hash != before.functions["outer"].spec_hash


def test_equal_folders_make_equal_catalogs_wherever_they_are(tmp_path: Path) -> None:
    for place in ("a", "b"):
        put_function(tmp_path / place, "one")
    assert load(tmp_path / "a").version == load(tmp_path / "b").version


def test_a_name_used_twice_is_refused_and_names_the_other_file(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", text_of("same", "  command: cat\n"))
    put(tmp_path, "b.yaml", text_of("same", "  command: tac\n"))
    catalog = load(tmp_path)
    assert catalog.functions["same"].file == "a.yaml"
    assert messages(catalog) == ["b.yaml: metadata.name: the name 'same' is used already in a.yaml"]


# trouble


def test_oversized_files_are_refused_as_specs_and_hashed_as_data(tmp_path: Path) -> None:
    put(tmp_path, "big/function.yaml", "x" * (snapshot.MAX_SOURCE_BYTES + 1))
    put_function(tmp_path, "one")
    put(tmp_path, "one/model.bin", "x" * (snapshot.MAX_SOURCE_BYTES + 1))
    before = load(tmp_path)
    assert messages(before) == [f"big/function.yaml: larger than {snapshot.MAX_SOURCE_BYTES} bytes"]
    put(tmp_path, "one/model.bin", "x" * snapshot.MAX_SOURCE_BYTES + "y")
    assert load(tmp_path).functions["one"].spec_hash != before.functions["one"].spec_hash


def test_a_missing_folder_is_a_setting_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        DirectorySource(tmp_path / "nowhere", setting="--catalog").load(None)
    expected = f"--catalog: the catalog folder {tmp_path}/nowhere cannot be read: No such file or directory"
    assert refused.value.message == expected
    assert refused.value.hint


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="Not a directory"):
        load(tmp_path / "file")


def test_a_folder_that_vanishes_keeps_everything(tmp_path: Path) -> None:
    put_function(tmp_path / "c", "one")
    source = DirectorySource(tmp_path / "c")
    before = source.load(None)
    (tmp_path / "c").rename(tmp_path / "away")
    after = source.load(before)
    assert after.functions == before.functions
    assert [(one.file, one.kept) for one in after.broken] == [(".", True)]
    assert after.complete
    (tmp_path / "away").rename(tmp_path / "c")
    back = source.load(after)
    assert (back.version, back.broken) == (before.version, ())


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root reads everything, so for a moment it is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file_refuses_its_function() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:  # tmp_path, and what else TMPDIR may name, is closed to others
        root = Path(folder)
        root.chmod(0o755)
        put_function(root, "one")
        assert names(load(root)) == ["one"]  # also loads what of Python only root may be able to read
        (root / "one/main.py").chmod(0)
        with as_an_ordinary_user():
            found = messages(load(root))
        assert "one/main.py cannot be read: Permission denied" in found[0]


def test_the_last_good_version_stays_while_the_file_is_broken(tmp_path: Path) -> None:
    put_function(tmp_path, "one")
    put_function(tmp_path, "two")
    before = load(tmp_path)
    put(tmp_path, "one/function.yaml", "a: [")
    put(tmp_path, "two/main.py", "def handle(:\n")
    after = load(tmp_path, before)
    assert after.functions == before.functions
    assert [(one.file, one.name, one.kept) for one in after.broken] == [
        ("one/function.yaml", None, True),
        ("two/function.yaml", "two", True),
    ]
    assert load(tmp_path).functions == {}
