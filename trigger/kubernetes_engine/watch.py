"""A mirror of one kind of object: list, then watch, and list again when the watch has lost its place.

What is told are levels. An object may be told twice; one that vanished while nobody watched is told as missing after
the next list, and whoever hears that asks for it once more before believing it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from trigger.kubernetes_engine.api import Api, Kind
from trigger.kubernetes_engine.failures import ApiFailure, no_answer, sentence

log = structlog.get_logger(component="kubernetes")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
SHORT_WATCH_SECONDS = 1.0
"""A watch that ends sooner, and told nothing, is no watch: somebody in between ends them all."""
GONE = 410


def pause_after(pause: float, watched_seconds: float) -> float:
    """Seconds to wait after trouble, where `pause` has grown through the troubles before it and the watch that was cut
    had been open for `watched_seconds` (0: there was none). One that lasted was well: in a quiet cluster what ends it
    is a connection that somebody in between finds idle, every minute maybe, and no reason to look away for longer."""
    return FIRST_PAUSE_SECONDS if watched_seconds >= LONGEST_PAUSE_SECONDS else pause


class Seen(Protocol):
    """Told of every object: that it is there in this state, or `is_gone` and this was its last one."""

    def __call__(self, item: dict[str, Any], *, is_gone: bool = False) -> None: ...


class Mirror:
    """Follows one kind of object until cancelled. `problem` says in words why it cannot at the moment.

    `listed` is told the names of all objects that a whole list had: others that are known may be gone. `has_listed` is
    set after the first such list, `has_tried` also when it met trouble.
    """

    def __init__(self, api: Api, kind: Kind, selector: str, seen: Seen, listed: Callable[[set[str]], None]) -> None:
        self._api = api
        self._kind = kind
        self._selector = selector
        self._seen = seen
        self._listed = listed
        self._version = ""
        self._pause = FIRST_PAUSE_SECONDS
        self._opened_at: float | None = None
        self.has_listed = asyncio.Event()
        self.has_tried = asyncio.Event()
        self.problem: str | None = f"{kind.value[1]} have not been listed yet"

    async def follow(self) -> None:
        """List and watch, for ever; trouble is waited out with growing pauses."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiFailure as failure:
                if failure.status == GONE:
                    self._version = ""  # too far behind: everything is read anew
                else:
                    await self._wait(failure)
            except Exception:
                # A bug met by one object must not blind the engine to all others.
                log.exception("the watch is begun anew", kind=self._kind.value[1])
                self._version = ""
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)

    async def _list(self) -> None:
        listing = self._api.list(self._kind, self._selector)
        names = set()
        async for item in listing:
            names.add(str(item.get("metadata", {}).get("name", "")))
            self._seen(item)
        self._listed(names)
        self._version = listing.resource_version
        self._pause = FIRST_PAUSE_SECONDS
        self.problem = None
        self.has_listed.set()
        self.has_tried.set()

    async def _watch(self) -> None:
        began, version_before = asyncio.get_running_loop().time(), self._version
        await self._watch_once()
        lasted = asyncio.get_running_loop().time() - began
        if lasted < SHORT_WATCH_SECONDS and self._version == version_before:
            raise no_answer(f"the watch was ended after {lasted:.1f} s without a word")
        self._pause = FIRST_PAUSE_SECONDS

    async def _watch_once(self) -> None:
        async for event in self._api.watch(self._kind, self._selector, self._version, self._opened):
            version = event.object.get("metadata", {}).get("resourceVersion")
            if event.type in ("ADDED", "MODIFIED"):
                self._seen(event.object)
            elif event.type == "DELETED":
                self._seen(event.object, is_gone=True)
            if version:
                self._version = version
            self._pause = FIRST_PAUSE_SECONDS

    def _opened(self) -> None:
        # Well from here on, and not from the first event: in a quiet cluster that is a bookmark, a minute later.
        self.problem = None
        self._opened_at = asyncio.get_running_loop().time()

    async def _wait(self, failure: ApiFailure) -> None:
        self.problem = sentence(failure, f"watching {self._kind.value[1]}")
        self.has_tried.set()
        log.warning("the watch is taken up again", kind=self._kind.value[1], error_message=self.problem)
        now, opened_at, self._opened_at = asyncio.get_running_loop().time(), self._opened_at, None
        self._pause = pause_after(self._pause, 0.0 if opened_at is None else now - opened_at)
        seconds = failure.retry_after_seconds or self._pause * random.uniform(0.5, 1.0)
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        await asyncio.sleep(seconds)
