"""Everything an engine reports, kept for tests that wait for a level or count them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable

from trigger.engine import Engine, Phase, RunStatus


class Reports:
    """What one watch of an engine said, from its beginning on."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._reports: dict[str, list[RunStatus]] = defaultdict(list)
        self._counts: Counter[tuple[str, Phase]] = Counter()
        self._news = asyncio.Condition()

    async def follow(self, engine: Engine) -> None:
        async for status in engine.watch():
            async with self._news:
                self._reports[status.run_id].append(status)
                self._counts[status.run_id, status.phase] += 1
                self._news.notify_all()

    async def status(self, run_id: str, fits: Callable[[RunStatus], bool]) -> RunStatus:
        def found() -> RunStatus | None:
            return next((one for one in reversed(self._reports[run_id]) if fits(one)), None)

        async with asyncio.timeout(self._patience_seconds), self._news:
            await self._news.wait_for(lambda: found() is not None)
        status = found()
        assert status is not None
        return status

    def count(self, run_id: str, phase: Phase) -> int:
        return self._counts[run_id, phase]
