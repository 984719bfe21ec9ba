"""The catalog in a real folder: what is found, what is refused, what is kept, and when a change is noticed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import pytest

from invoker.errors import ServerUnreachableError, SettingsError
from trigger.catalog import Catalog
from trigger.catalog_source import snapshot
from trigger.catalog_source.directory import DirectorySource

SOON = 60.0
"""Seconds a change may take on a busy machine; the promise is 2, and a test is no benchmark."""

HEAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec:\n"
MAIN = "def handle(event, context):\n    return event['data']\n"


def text_of(name: str, spec: str = "  runtime: python\n") -> str:
    return HEAD.format(name=name) + spec


def put(root: Path, name: str, text: str) -> Path:
    """Write a file as an editor does: whole, under another name, then moved into place."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    beside.replace(path)
    return path


def put_function(root: Path, name: str, spec: str = "  runtime: python\n", main: str = MAIN) -> Path:
    put(root, f"{name}/main.py", main)
    return put(root, f"{name}/function.yaml", text_of(name.rpartition("/")[2], spec))


def load(root: Path, previous: Catalog | None = None) -> Catalog:
    return DirectorySource(root).load(previous)


def names(catalog: Catalog) -> list[str]:
    return list(catalog.functions)


def messages(catalog: Catalog) -> list[str]:
    return [one.message for one in catalog.broken]


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


# what leads out


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
    with TemporaryDirectory() as folder:  # tmp_path is closed to everybody but its owner
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


# watching


@pytest.fixture
async def source(tmp_path: Path) -> DirectorySource:
    put_function(tmp_path, "one")
    return DirectorySource(tmp_path, interval_seconds=0.05)


async def following(catalogs: AsyncIterator[Catalog]) -> Catalog:
    async with asyncio.timeout(SOON):
        return await anext(catalogs)


async def test_every_kind_of_change_gives_a_new_catalog(source: DirectorySource, tmp_path: Path) -> None:
    async with aclosing(source.watch(source.load(None))) as catalogs:
        put_function(tmp_path, "two")
        assert names(await following(catalogs)) == ["one", "two"]

        put(tmp_path, "two/main.py", MAIN + "# changed\n")
        changed = await following(catalogs)
        assert names(changed) == ["one", "two"]

        put(tmp_path, "two/function.yaml", text_of("two", "  runtim: python\n"))
        broken = await following(catalogs)
        assert names(broken) == ["one", "two"]
        assert [one.kept for one in broken.broken] == [True]
        assert broken.version == changed.version

        put(tmp_path, "two/function.yaml", text_of("renamed"))
        assert names(await following(catalogs)) == ["one", "renamed"]

        (tmp_path / "two/function.yaml").unlink()
        assert names(await following(catalogs)) == ["one"]


async def test_a_change_that_leaves_size_and_time_as_they_were_is_noticed(
    source: DirectorySource, tmp_path: Path
) -> None:
    path = tmp_path / "one/main.py"
    loaded = source.load(None)
    async with aclosing(source.watch(loaded)) as catalogs:
        before = path.stat()
        path.write_text(MAIN.replace("data", "atad"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert (await following(catalogs)).version != loaded.version


async def test_touching_a_file_is_no_change(source: DirectorySource, tmp_path: Path) -> None:
    async with watched(source) as given:
        os.utime(tmp_path / "one/main.py")
        await source.reload()
        assert given == []
        put_function(tmp_path, "two")
        await source.reload()
        assert [names(catalog) for catalog in given] == [["one", "two"]]


@asynccontextmanager
async def watched(source: DirectorySource) -> AsyncIterator[list[Catalog]]:
    """A watcher at work, and what it has been given so far."""
    given: list[Catalog] = []

    async def collect(loaded: Catalog) -> None:
        async with aclosing(source.watch(loaded)) as catalogs:
            async for catalog in catalogs:
                given.append(catalog)

    async with asyncio.timeout(SOON):
        task = asyncio.create_task(collect(source.load(None)))
        await asyncio.sleep(0)
        yield given
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_change_between_load_and_watch_is_not_missed(source: DirectorySource, tmp_path: Path) -> None:
    loaded = source.load(None)
    put_function(tmp_path, "two")
    async with aclosing(source.watch(loaded)) as catalogs:
        assert names(await following(catalogs)) == ["one", "two"]


async def test_a_folder_that_vanishes_while_watched_is_reported_once_and_comes_back(
    source: DirectorySource, tmp_path: Path
) -> None:
    put_function(tmp_path / "c", "one")
    source = DirectorySource(tmp_path / "c", interval_seconds=0.05)
    loaded = source.load(None)
    async with aclosing(source.watch(loaded)) as catalogs:
        (tmp_path / "c").rename(tmp_path / "away")
        gone = await following(catalogs)
        assert names(gone) == ["one"]
        assert "cannot be read: No such file or directory" in messages(gone)[0]
        (tmp_path / "away").rename(tmp_path / "c")
        back = await following(catalogs)
        assert (back.version, back.broken) == (loaded.version, ())


async def test_a_copy_that_takes_a_while_is_not_loaded_in_pieces(source: DirectorySource, tmp_path: Path) -> None:
    """Each spec comes before its code here, so a catalog of a half copied function would have a refusal in it."""
    async with watched(source) as given:
        for number in range(5):
            put(tmp_path, f"copied{number}/function.yaml", text_of(f"copied{number}"))
            await asyncio.sleep(0.02)  # not waiting for anything: this is the pace of the copy
            put(tmp_path, f"copied{number}/main.py", MAIN)
        while not given or len(given[-1].functions) < 6:
            await asyncio.sleep(0.01)
        assert [catalog.broken for catalog in given] == [()] * len(given)


async def test_reload_answers_with_the_catalog_in_use(source: DirectorySource, tmp_path: Path) -> None:
    async with watched(source) as given:
        put_function(tmp_path, "two")
        answers = await asyncio.gather(source.reload(), source.reload())
        assert [names(answer) for answer in answers] == [["one", "two"], ["one", "two"]]
        assert given == [answers[0]]


async def test_reload_without_a_watcher_says_so(source: DirectorySource) -> None:
    with pytest.raises(ServerUnreachableError, match="not being watched"):
        await source.reload()


async def test_reload_is_answered_when_the_watcher_ends(source: DirectorySource) -> None:
    async def use() -> None:
        async with aclosing(source.watch(source.load(None))) as catalogs:
            async for _ in catalogs:
                pass

    async with asyncio.timeout(SOON):
        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        asking = asyncio.create_task(source.reload())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ServerUnreachableError, match="not being watched"):
            await asking


async def test_poke_looks_at_once(tmp_path: Path) -> None:
    put_function(tmp_path, "one")
    source = DirectorySource(tmp_path, interval_seconds=3600)
    async with aclosing(source.watch(source.load(None))) as catalogs:
        waiting = asyncio.ensure_future(anext(catalogs))
        await asyncio.sleep(0)
        put_function(tmp_path, "two")
        source.poke()
        source.poke()
        async with asyncio.timeout(SOON):
            assert names(await waiting) == ["one", "two"]
