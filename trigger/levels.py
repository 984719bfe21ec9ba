"""Those who watch all runs of an engine: each reader gets the newest level of every run that changed."""

from __future__ import annotations

import asyncio

from trigger.engine import RunStatus

MAX_UNREAD = 100_000


class Watcher:
    """The newest level of each run that changed since one reader last looked; older levels are overwritten."""

    def __init__(self, present: list[RunStatus]) -> None:
        self._unread = {status.run_id: status for status in present}
        self._news = asyncio.Event()

    def put(self, status: RunStatus) -> None:
        self._unread[status.run_id] = status
        self._news.set()

    def forget(self, run_id: str) -> None:
        """A run was released. Its last level is kept for a reader that is behind, unless that is absurdly far."""
        if len(self._unread) > MAX_UNREAD:
            self._unread.pop(run_id, None)

    async def take(self) -> list[RunStatus]:
        """What changed; waits until something did."""
        while not self._unread:
            self._news.clear()
            await self._news.wait()
        statuses = list(self._unread.values())
        self._unread.clear()
        return statuses
