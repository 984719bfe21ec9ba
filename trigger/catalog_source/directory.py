"""The catalog in a folder: every `function.yaml` below it, and every other YAML file that says it is ours.

Loading is synchronous and meant for a thread. Watching compares stats, which is cheap, and gives a new catalog only
when content has changed. Trouble with the folder after the first load keeps the last good catalog.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path, PurePosixPath

from invoker.errors import ServerUnreachableError, SettingsError
from trigger.catalog import BrokenFunction, Catalog, LoadedFunctions, merge
from trigger.catalog_source.snapshot import Contents, Snapshot, take_snapshot
from trigger.function import Function
from trigger.function_code import FileContent, FunctionFolder
from trigger.function_file import MAX_FILE_BYTES, read_functions

FUNCTION_FILES = ("function.yaml", "function.yml")
SETTLE_SECONDS = 0.1
"""A folder is loaded when two looks this far apart agree: an editor or a copy may be in the middle of its work."""
SETTLE_LIMIT_SECONDS = 1.2
"""A folder that never comes to rest is loaded all the same; what is half written is refused, and read again."""
CONSISTENT_TRIES = 5

_OURS = re.compile(rb"""^["']?apiVersion["']?[ \t]*:[ \t]*["']?invoker\.dev/""", re.MULTILINE)


class DirectorySource:
    """Loads and watches the catalog in one folder. One `watch` at a time; `poke` and `reload` are for its loop."""

    def __init__(self, root: Path, interval_seconds: float = 0.5, *, setting: str = "INVOKER_CATALOG") -> None:
        """`setting` is the name that a refusal of the folder itself begins with."""
        # Not resolved: where a link is swapped to deploy (git-sync, ConfigMaps), the old target soon disappears.
        self._root = root.absolute()
        self._interval_seconds = interval_seconds
        self._setting = setting
        self._contents = Contents()
        self._loaded: Snapshot | None = None
        self._poked = asyncio.Event()
        self._waiting: list[asyncio.Future[Catalog]] = []
        self._watching = False

    def load(self, previous: Catalog | None = None) -> Catalog:
        """All functions of the folder, read as of one moment.

        Without `previous`, raises `SettingsError` when the folder does not exist or cannot be read; with it, that is
        a broken entry `.` beside the functions as they last were. Blocks: call it in a thread.
        """
        try:
            snapshot, loaded = self._load_consistently()
        except OSError as error:
            sentence = f"{self._setting}: the catalog folder {self._root} cannot be read: {_said(error)}"
            if previous is None:
                raise SettingsError(sentence, hint="name an existing folder with function files") from error
            self._loaded = None
            return _unreadable(previous, sentence)
        self._loaded = snapshot
        catalog = merge(previous, loaded)
        _ = catalog.matcher  # built here, in the thread, and not when the first event asks for it on the loop
        return catalog

    async def watch(self, previous: Catalog) -> AsyncIterator[Catalog]:
        """A new catalog each time the content differs from the last one given; ends only when it is closed."""
        current = previous
        forced = False
        self._watching = True
        try:
            while True:
                waiting, self._waiting = self._waiting, []
                self._poked.clear()
                if forced or waiting or await asyncio.to_thread(self._has_changed):
                    await self._settle()
                    found = await asyncio.to_thread(self.load, current)
                    if _differs(found, current):
                        current = found
                        yield current
                # After the yield, so that whoever asked for a reload finds it in use.
                for future in waiting:
                    if not future.done():
                        future.set_result(current)
                forced = await self._pause()
        finally:
            self._watching = False
            for future in [*waiting, *self._waiting]:
                if not future.done():
                    future.set_exception(_not_watching())
            self._waiting = []

    def poke(self) -> None:
        """Look at the folder now, whatever its stats say. Safe to repeat; for signal handlers on the loop."""
        self._poked.set()

    async def reload(self) -> Catalog:
        """Look at the folder now; returns the catalog once the watcher's consumer has it.

        Raises `ServerUnreachableError` when nobody watches, or stops watching meanwhile.
        """
        if not self._watching:
            raise _not_watching()
        future: asyncio.Future[Catalog] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._poked.set()
        return await future

    async def _pause(self) -> bool:
        """Wait for the interval's end or a poke; whether it was a poke."""
        try:
            await asyncio.wait_for(self._poked.wait(), self._interval_seconds)
        except TimeoutError:
            return False
        return True

    def _has_changed(self) -> bool:
        return self._look() != self._loaded

    def _look(self) -> Snapshot | None:
        try:
            return take_snapshot(self._root)
        except OSError:
            return None

    async def _settle(self) -> None:
        until = time.monotonic() + SETTLE_LIMIT_SECONDS
        before = await asyncio.to_thread(self._look)
        while time.monotonic() < until:
            await asyncio.sleep(SETTLE_SECONDS)
            now = await asyncio.to_thread(self._look)
            if now == before:
                return
            before = now

    def _load_consistently(self) -> tuple[Snapshot, LoadedFunctions]:
        """Read until the folder looks the same before and after, so that no catalog mixes two states of it."""
        snapshot = take_snapshot(self._root)
        for _ in range(CONSISTENT_TRIES):
            loaded = self._read(snapshot)
            after = take_snapshot(self._root)
            if after == snapshot:
                break
            snapshot = after
        return snapshot, loaded

    def _read(self, snapshot: Snapshot) -> LoadedFunctions:
        self._contents.keep_only(snapshot.files)
        contents, problems = self._read_files(snapshot)
        specs = {name: content for name, content in contents.items() if _is_spec(name, content, snapshot)}
        homes = {_parent(name) for name in specs if PurePosixPath(name).name in FUNCTION_FILES}
        functions: list[Function] = []
        broken = _broken_places(problems, {_parent(name) for name in specs})
        for name, content in specs.items():
            if content.data is None:
                broken.append(BrokenFunction(name, f"{name}: larger than {MAX_FILE_BYTES} bytes"))
                continue
            folder = _folder(self._root, _parent(name), contents, problems, homes, set(specs))
            found = read_functions(content.data, name, folder)
            functions.extend(found.functions)
            broken.extend(found.broken)
        return LoadedFunctions(tuple(functions), tuple(broken))

    def _read_files(self, snapshot: Snapshot) -> tuple[dict[str, FileContent], dict[str, str]]:
        contents, problems = {}, dict(snapshot.problems)
        for name, seen in snapshot.files.items():
            try:
                contents[name] = self._contents.read(name, seen)
            except OSError as error:
                problems[name] = f"cannot be read: {_said(error)}"
        return contents, problems


def _is_spec(name: str, content: FileContent, snapshot: Snapshot) -> bool:
    path = PurePosixPath(name)
    if path.name in FUNCTION_FILES:
        return True
    return path.suffix in (".yaml", ".yml") and content.data is not None and _OURS.search(content.data) is not None


def _broken_places(problems: dict[str, str], homes: set[str]) -> list[BrokenFunction]:
    """The problems that no function answers for: spec files themselves, and folders that may hold functions."""
    return [
        BrokenFunction(name, f"{name}: {sentence}")
        for name, sentence in problems.items()
        if PurePosixPath(name).suffix in (".yaml", ".yml") or not any(_is_below(name, home) for home in homes)
    ]


def _folder(
    root: Path,
    parent: str,
    contents: dict[str, FileContent],
    problems: dict[str, str],
    homes: set[str],
    specs: set[str],
) -> FunctionFolder:
    """The files that belong to the functions of one folder: all below it, but specs and other functions' folders."""
    inner = [home for home in homes if home != parent and _is_below(home, parent)]

    def mine(names: Iterable[str]) -> list[str]:
        return [name for name in names if _is_below(name, parent) and not any(_is_below(name, home) for home in inner)]

    problem = next((f"{name} {problems[name]}" for name in mine(problems)), None)
    files = {name[len(parent) + 1 if parent else 0 :]: contents[name] for name in mine(contents) if name not in specs}
    return FunctionFolder(root / parent, files, problem)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _differs(one: Catalog, other: Catalog) -> bool:
    return one.version != other.version or one.broken != other.broken


def _unreadable(previous: Catalog, sentence: str) -> Catalog:
    """The previous catalog with the folder's trouble beside it. Kept: nothing that was known is missing."""
    others = [broken for broken in previous.broken if broken.file != "."]
    return Catalog.of(previous.functions.values(), [*others, BrokenFunction(".", sentence, kept=True)])


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def _not_watching() -> ServerUnreachableError:
    return ServerUnreachableError("the catalog is not being watched, so it cannot be reloaded")
