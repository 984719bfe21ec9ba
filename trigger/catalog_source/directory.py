"""The catalog in a folder: every `function.yaml` below it, and every other YAML file that says it is ours.

Loading is synchronous and meant for a thread. Watching compares stats, which is cheap, and gives a new catalog only
when content has changed. Trouble with the folder after the first load keeps the last good catalog.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from invoker.errors import ServerUnreachableError, SettingsError
from trigger.catalog import BrokenFunction, Catalog, LoadedFunctions, merge
from trigger.catalog_source.layout import Spec, lay_out
from trigger.catalog_source.snapshot import Contents, Snapshot, take_snapshot
from trigger.function_code import FileContent
from trigger.function_file import MAX_FILE_BYTES, read_functions

SETTLE_SECONDS = 0.1
"""A folder is loaded when two looks this far apart agree: an editor or a copy may be in the middle of its work."""
SETTLE_LIMIT_SECONDS = 1.2
"""A folder that never comes to rest is loaded all the same; what is half written is refused, and read again."""
CONSISTENT_TRIES = 5
LOOKING_SHARE = 20
"""Looking takes at most one part in so many of the time, as long as the pauses stay below `LONGEST_PAUSE_SECONDS`."""
LONGEST_PAUSE_SECONDS = 1.0


class DirectorySource:
    """Loads and watches the catalog in one folder. One `watch` at a time; `poke` and `reload` are for its loop."""

    def __init__(self, root: Path, interval_seconds: float = 0.5, *, setting: str = "INVOKER_CATALOG") -> None:
        """`setting` is the name that a refusal of the folder itself begins with."""
        # Not resolved: where a link is swapped to deploy (git-sync, ConfigMaps), the old target soon disappears.
        self._root = root.absolute()
        self._interval_seconds = interval_seconds
        self._setting = setting
        self._contents = Contents()
        self._parsed: dict[str, tuple[Spec, LoadedFunctions]] = {}
        self._look_seconds = 0.0
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
        """Wait for the interval's end or a poke; whether it was a poke. A large folder is looked at less often."""
        seconds = max(self._interval_seconds, min(LOOKING_SHARE * self._look_seconds, LONGEST_PAUSE_SECONDS))
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            return False
        return True

    def _has_changed(self) -> bool:
        return self._look() != self._loaded

    def _look(self) -> Snapshot | None:
        started = time.monotonic()
        try:
            return take_snapshot(self._root)
        except OSError:
            return None
        finally:
            self._look_seconds = time.monotonic() - started

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
        layout = lay_out(self._root, snapshot, contents, problems)
        self._parsed = {name: self._parse(name, spec) for name, spec in layout.specs.items()}
        found = [parsed for _, parsed in self._parsed.values()]
        return LoadedFunctions(
            tuple(function for one in found for function in one.functions),
            (*layout.broken, *(broken for one in found for broken in one.broken)),
        )

    def _read_files(self, snapshot: Snapshot) -> tuple[dict[str, FileContent], dict[str, str]]:
        contents, problems = {}, dict(snapshot.problems)
        for name, seen in snapshot.files.items():
            try:
                contents[name] = self._contents.read(name, seen)
            except OSError as error:
                problems[name] = f"cannot be read: {_said(error)}"
        return contents, problems

    def _parse(self, name: str, spec: Spec) -> tuple[Spec, LoadedFunctions]:
        """What the file says; what it said the last time when neither it nor anything beside it has changed."""
        before = self._parsed.get(name)
        if before is not None and before[0] == spec:
            return before
        if spec.content.data is None:
            too_large = BrokenFunction(name, f"{name}: larger than {MAX_FILE_BYTES} bytes")
            return spec, LoadedFunctions(broken=(too_large,))
        return spec, read_functions(spec.content.data, name, spec.folder)


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
