"""The owner of a controller's tasks: a task group that can be ended for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

AGAIN_SECONDS = 0.2


class TaskOwner(asyncio.TaskGroup):
    """A `TaskGroup` whose tasks `end` cancels until every one of them is over.

    Why again and again: until Python 3.12 `asyncio.wait_for`, on which every wait of nats-py rests, loses a
    cancellation that arrives in the same moment as what it waited for. The group itself asks once, and then waits for
    ever for a loop that never heard of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._owned: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)
        return task

    async def end(self) -> None:
        """When this returns no task of the group runs any more. Safe to repeat."""
        while self._owned:
            for task in self._owned:
                task.cancel()
            await asyncio.wait(set(self._owned), timeout=AGAIN_SECONDS)
