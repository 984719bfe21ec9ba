"""Links in the catalog's folder: what leads out or in a circle is refused, what stays within or is mounted is read."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from shutil import rmtree

import pytest

from invoker.errors import SettingsError
from tests.unit.catalog_folder import MAIN, following, load, messages, names, put, put_function, text_of
from trigger.catalog import Catalog
from trigger.catalog_source import snapshot
from trigger.catalog_source.directory import DirectorySource


def outside(tmp_path: Path) -> tuple[Path, Path]:
    root, secret = tmp_path / "catalog", tmp_path / "outside"
    root.mkdir()
    secret.mkdir()
    (secret / "main.py").write_text(MAIN)
    (secret / "function.yaml").write_text(text_of("stolen", "  command: cat\n"))
    return root, secret


def test_a_function_file_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    root, secret = outside(tmp_path)
    (root / "x").mkdir()
    (root / "x/function.yaml").symlink_to(secret / "function.yaml")
    catalog = load(root)
    assert names(catalog) == []
    assert messages(catalog) == [
        "x/function.yaml: is a link that leads out of the catalog's folder, so it is not followed"
    ]
    assert not catalog.complete


def test_a_folder_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    root, secret = outside(tmp_path)
    (root / "x").symlink_to(secret)
    catalog = load(root)
    assert names(catalog) == []
    assert messages(catalog) == ["x: is a link that leads out of the catalog's folder, so it is not followed"]


@pytest.mark.parametrize(
    "target", ["../outside/main.py", "../../outside/main.py", "/etc/passwd", "/dev/zero", "/proc/self/environ"]
)
def test_code_that_is_a_link_out_refuses_its_function_only(tmp_path: Path, target: str) -> None:
    root, _ = outside(tmp_path)
    put_function(root, "good")
    put(root, "bad/function.yaml", text_of("bad"))
    (root / "bad/main.py").symlink_to(target)
    catalog = load(root)
    assert names(catalog) == ["good"]
    [message] = messages(catalog)
    assert message.startswith("bad/function.yaml:4: spec.handler: bad/main.py is a link ")


def test_any_link_out_in_a_function_folder_refuses_the_function(tmp_path: Path) -> None:
    root, secret = outside(tmp_path)
    put_function(root, "bad")
    (root / "bad/data").symlink_to(secret)
    assert "bad/data is a link that leads out of the catalog's folder" in messages(load(root))[0]


def test_a_sibling_whose_name_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    root, _ = outside(tmp_path)
    put(tmp_path, "catalog-secret/main.py", MAIN)
    put(root, "bad/function.yaml", text_of("bad"))
    (root / "bad/main.py").symlink_to(tmp_path / "catalog-secret/main.py")
    assert "leads out of the catalog's folder" in messages(load(root))[0]


def test_links_within_the_catalog_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "shared/lib.py", MAIN)
    put(tmp_path, "one/function.yaml", text_of("one"))
    (tmp_path / "one/main.py").symlink_to("../shared/lib.py")
    (tmp_path / "one/more").symlink_to("../shared")
    before = load(tmp_path)
    assert names(before) == ["one"]
    put(tmp_path, "shared/lib.py", MAIN + "# changed\n")
    assert load(tmp_path).functions["one"].spec_hash != before.functions["one"].spec_hash


def test_mounted_configuration_is_read_through_its_links(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a hidden folder, and swaps that folder for a change."""
    put(tmp_path, "..2026_1/hello.yaml", text_of("hello", "  command: cat\n"))
    put(tmp_path, "..2026_2/hello.yaml", text_of("hello", "  command: tac\n"))
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "hello.yaml").symlink_to("..data/hello.yaml")
    before = load(tmp_path)
    assert before.functions["hello"].code.command == ("cat",)
    (tmp_path / "..new").symlink_to("..2026_2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert load(tmp_path).functions["hello"].code.command == ("tac",)


def mount(root: Path, version: int, functions: int = 3) -> None:
    """As a kubelet mounts a ConfigMap whose keys have paths: a new hidden folder, one link swapped."""
    old, new = root / f"..v{version - 1}", root / f"..v{version}"
    for number in range(functions):
        put(new, f"f{number}/function.yaml", text_of(f"f{number}", f"  description: v{version}\n  runtime: python\n"))
        put(new, f"f{number}/main.py", f"V = {version}\n{MAIN}")
        if not (root / f"f{number}").is_symlink():
            (root / f"f{number}").symlink_to(f"..data/f{number}")
    (root / "..data_tmp").symlink_to(new.name)
    (root / "..data_tmp").rename(root / "..data")
    if old.exists():
        rmtree(old)


def test_functions_with_folders_of_their_own_in_mounted_configuration(tmp_path: Path) -> None:
    mount(tmp_path / "values", 1)
    before = load(tmp_path)
    assert (names(before), messages(before)) == (["f0", "f1", "f2"], [])
    mount(tmp_path / "values", 2)
    after = load(tmp_path, before)
    assert {function.description for function in after.functions.values()} == {"v2"}
    hashes = {name: function.spec_hash for name, function in before.functions.items()}
    assert all(function.spec_hash != hashes[name] for name, function in after.functions.items())


async def test_an_update_of_mounted_configuration_is_seen_whole(tmp_path: Path) -> None:
    """However often it is swapped while it is read: a catalog is one version of it, never two halves."""
    mount(tmp_path / "values", 1, 12)
    source = DirectorySource(tmp_path, 0.01)
    async with aclosing(source.watch(source.load(None))) as catalogs:
        swapping = asyncio.gather(asyncio.to_thread(mount, tmp_path / "values", 2, 12))
        seen = ""
        for version in range(3, 9):
            seen = _one_version(await following(catalogs))
            await swapping
            swapping = asyncio.gather(asyncio.to_thread(mount, tmp_path / "values", version, 12))
        while seen != "v8":
            seen = _one_version(await following(catalogs))


def _one_version(catalog: Catalog) -> str:
    assert messages(catalog) == []
    assert len(catalog.functions) == 12
    (version,) = {function.description for function in catalog.functions.values()}
    return version


def test_a_root_that_is_a_swapped_link_keeps_its_own_path(tmp_path: Path) -> None:
    put_function(tmp_path / "rev1", "one")
    (tmp_path / "current").symlink_to("rev1")
    assert load(tmp_path / "current").functions["one"].code.folder == tmp_path / "current/one"


def test_a_linked_folder_declares_nothing_twice(tmp_path: Path) -> None:
    put_function(tmp_path, "real/one")
    (tmp_path / "alias").symlink_to("real")
    catalog = load(tmp_path)
    assert (names(catalog), messages(catalog)) == (["one"], [])


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put_function(tmp_path, "one")
    put_function(tmp_path, "two")
    (tmp_path / "one/again").symlink_to("..")
    (tmp_path / "two/self").symlink_to("self")
    catalog = load(tmp_path)
    assert names(catalog) == []
    assert [message.partition("spec.handler: ")[2] for message in messages(catalog)] == [
        "one/again leads back to a folder above it",
        "two/self cannot be read: Too many levels of symbolic links",
    ]


def test_links_that_multiply_folders_are_given_up(tmp_path: Path) -> None:
    """Twelve empty folders that link to each other are 12! ways; the look must end, and soon."""
    for one in range(12):
        (tmp_path / f"f{one}").mkdir()
        for other in range(12):
            (tmp_path / f"f{one}/l{other}").symlink_to(f"../f{other}")
    with pytest.raises(SettingsError, match="there are more than 500 folders behind links in it"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["new\nline", "bell\x07", "escape\x1b[31m", b"\xff".decode("utf-8", "surrogateescape")]
)
def test_names_that_cannot_be_printed_reach_no_message(tmp_path: Path, name: str) -> None:
    put_function(tmp_path, "good")
    put_function(tmp_path, "bad")
    (tmp_path / "bad" / name).write_text("x")
    (tmp_path / name).mkdir()
    catalog = load(tmp_path)
    assert names(catalog) == ["good"]
    assert len(messages(catalog)) == 2
    for message in messages(catalog):
        assert message.isprintable()
        assert "has a name that cannot be printed, so it is left out" in message
    assert len(catalog.version) == 12


def test_the_hash_of_a_root_function_and_a_link_out_elsewhere(tmp_path: Path) -> None:
    """A function at the root answers for the whole folder, so there is one refusal, and it is the function's."""
    root, secret = outside(tmp_path)
    put(root, "function.yaml", text_of("solo"))
    put(root, "main.py", MAIN)
    (root / "x").symlink_to(secret)
    assert messages(load(root)) == [
        "function.yaml:4: spec.handler: x is a link that leads out of the catalog's folder, so it is not followed"
    ]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    put(tmp_path, "one/function.yaml", text_of("one"))
    (tmp_path / "one/main.py").symlink_to("gone.py")
    assert "one/main.py is a link to a file that does not exist" in messages(load(tmp_path))[0]


def test_pipes_and_the_like_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    os.mkfifo(tmp_path / "one/function.yaml")
    assert messages(load(tmp_path)) == ["one/function.yaml: is no file and no folder"]


def test_a_file_that_became_a_pipe_or_a_link_since_the_look_is_not_opened(tmp_path: Path) -> None:
    path = put(tmp_path, "one.yaml", text_of("one"))
    seen = snapshot.take_snapshot(tmp_path).files["one.yaml"]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no ordinary file"):
        snapshot.Contents().read("one.yaml", seen)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError):  # noqa: PT011 -- the words are the system's
        snapshot.Contents().read("one.yaml", seen)
