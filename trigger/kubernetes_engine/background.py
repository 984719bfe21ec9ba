"""Work that goes on behind the seam: owned by one object, repeated until it is done, ended with the engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog

from trigger.kubernetes_engine.failures import ApiFailure, sentence

log = structlog.get_logger(component="kubernetes")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0

Step = Callable[[], Awaitable[Any]]


class Background:
    """The tasks of one engine."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def insist(self, step: Step, about: Mapping[str, str]) -> None:
        """Do a step that may be repeated, however often it takes. `about`: whose it is, for the log."""
        self.spawn(until_done(step, about))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that nobody waits for; raises nothing that is not logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self, *, patience_seconds: float) -> None:
        """What is under way may end by itself for so long; the rest is cancelled, and another engine does it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work on a run failed", exc_info=error)


async def until_done(step: Step, about: Mapping[str, str]) -> None:
    """The step, however often it takes: a cluster that is away comes back, and a right that is missing is said."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            await step()
            return
        except ApiFailure as failure:
            words = sentence(failure, "looking after a run")
            log.warning("trying again", **about, error_message=words, pause_seconds=pause)
            jitter = pause * random.uniform(0.5, 1.0)
            await asyncio.sleep(failure.retry_after_seconds or jitter)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
