"""The catalog in a real folder while it is watched: when a change is noticed, and what is never seen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from invoker.errors import ServerUnreachableError
from tests.unit.catalog_folder import MAIN, SOON, following, messages, names, put, put_function, text_of
from trigger.catalog import Catalog
from trigger.catalog_source.directory import DirectorySource


@pytest.fixture
async def source(tmp_path: Path) -> DirectorySource:
    put_function(tmp_path, "one")
    return DirectorySource(tmp_path, interval_seconds=0.05)


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
