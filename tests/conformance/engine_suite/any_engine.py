"""What the suite needs of an engine and around it, and how its tests start runs and wait for their ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from trigger.engine import Engine, LogLine, Phase, RunEnd, RunStatus
from trigger.plan import RunPlan

STAY = "while :; do sleep 0.05; done"
"""A script that does not end by itself, and hears signals soon."""


class EngineWorld(Protocol):
    """An engine and what the tests need around it.

    `second` is how long "a moment" is there, in seconds: small for processes, larger for pods; `pause` how many pass at
    least between two attempts. `secret` is a value in the environment of the engine's own process.
    """

    engine: Engine
    second: float
    pause: float
    secret: str

    def plan(self, script: str, **fields: object) -> RunPlan:
        """A plan with a run id of its own for a POSIX shell script; `fields` are those of `RunPlan`, and
        `deadline_in`, a timedelta from now."""
        ...

    def python(self, code: str, **fields: object) -> RunPlan:
        """The same for a Python program."""
        ...

    def missing_program(self) -> RunPlan:
        """A plan whose command, `no-such-program`, is not there."""
        ...

    def failing(self, times: int) -> str:
        """A script line that fails the first `times` attempts with exit code 1, and later does nothing."""
        ...

    def give_input(self, run_id: str, data: bytes) -> None:
        """What the run finds in its input file."""
        ...

    async def status(self, run_id: str, fits: Callable[[RunStatus], bool]) -> RunStatus:
        """The first status reported for the run, from the world's beginning on, that fits; waits for it."""
        ...

    def count(self, run_id: str, phase: Phase) -> int:
        """How many statuses of that phase were reported for the run."""
        ...

    async def alive(self, run_id: str) -> bool:
        """Whether a process of the run lives."""
        ...


async def ended(world: EngineWorld, run_id: str) -> tuple[RunStatus, RunEnd]:
    """The status with the run's end."""
    status = await world.status(run_id, lambda one: one.phase is Phase.ENDED)
    assert status.end is not None, "the engine ended a run that it knows nothing of"
    return status, status.end


async def run(world: EngineWorld, plan: RunPlan) -> tuple[RunStatus, RunEnd]:
    await world.engine.start(plan)
    return await ended(world, plan.run_id)


async def running(world: EngineWorld, plan: RunPlan, line: str = "ready") -> None:
    """Start a run and wait until it has printed a line."""
    await world.engine.start(plan)
    await world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
    async with closing(world.engine.logs(plan.run_id, follow=True)) as lines:
        async for one in lines:
            if one.text == line:
                return
    pytest.fail(f"the run ended without printing {line!r}")


@asynccontextmanager
async def closing(lines: AsyncIterator[LogLine]) -> AsyncIterator[AsyncIterator[LogLine]]:
    """Close an iterator that is left early."""
    try:
        yield lines
    finally:
        close = getattr(lines, "aclose", None)
        if close is not None:
            await close()


async def printed(world: EngineWorld, run_id: str, *, follow: bool = False) -> list[LogLine]:
    return [line async for line in world.engine.logs(run_id, follow)]
