"""A run is started once, watched by anybody, adopted by who comes later, and forgotten when it is released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, ended, printed, run, running
from trigger.engine import Phase, RunStatus
from trigger.plan import OutputMode


async def test_starting_twice_is_one_run(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo once")
    await asyncio.gather(*(engine_world.engine.start(plan) for _ in range(3)))
    status, _ = await ended(engine_world, plan.run_id)
    await engine_world.engine.start(plan)  # ended, not released: left alone
    assert len(status.attempts) == 1
    assert [line.text for line in await printed(engine_world, plan.run_id)] == ["once"]


async def test_a_watch_begins_with_what_is_there(engine_world: EngineWorld) -> None:
    over, live = engine_world.plan("exit 0"), engine_world.plan("echo ready; " + STAY)
    await run(engine_world, over)
    await running(engine_world, live)
    seen: dict[str, RunStatus] = {}
    watch = engine_world.engine.watch()
    while {over.run_id, live.run_id} - seen.keys():
        status = await anext(watch)
        seen[status.run_id] = status
    await close_watch(watch)
    assert seen[over.run_id].phase is Phase.ENDED
    assert seen[over.run_id].end is not None
    assert seen[live.run_id].phase is Phase.RUNNING
    await engine_world.engine.stop(live.run_id, "cancelled")


async def test_every_watcher_gets_the_last_status(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 3")
    watches = [engine_world.engine.watch() for _ in range(3)]

    async def last(watch: AsyncIterator[RunStatus]) -> RunStatus:
        async for status in watch:
            if status.run_id == plan.run_id and status.phase is Phase.ENDED:
                await close_watch(watch)
                return status
        raise AssertionError("a watch ends only when it is cancelled")

    waiting = [asyncio.create_task(last(watch)) for watch in watches]
    await engine_world.engine.start(plan)
    for status in await asyncio.gather(*waiting):
        assert status.end is not None
        assert status.attempts[0].exit_code == 3


async def test_a_watcher_that_was_away_gets_the_last_status(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 3")
    watch = engine_world.engine.watch()
    other = engine_world.plan("exit 0")
    await run(engine_world, other)
    while (await anext(watch)).run_id != other.run_id:
        pass
    await run(engine_world, plan)  # nobody reads that watch meanwhile
    while (status := await anext(watch)).run_id != plan.run_id or status.phase is not Phase.ENDED:
        pass
    await close_watch(watch)
    assert status.end is not None


async def close_watch(watch: AsyncIterator[RunStatus]) -> None:
    close = getattr(watch, "aclose", None)
    if close is not None:
        await close()


async def test_release_may_be_repeated_and_forgets_the_run(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 0")
    await run(engine_world, plan)
    await engine_world.engine.release(plan.run_id)
    await engine_world.engine.release(plan.run_id)
    await engine_world.engine.release("never-started")
    reports = engine_world.count(plan.run_id, Phase.ENDED)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    await engine_world.status(plan.run_id, lambda one: engine_world.count(plan.run_id, Phase.ENDED) > reports)
    unknown = await engine_world.status(plan.run_id, lambda one: one.phase is Phase.ENDED and one.end is None)
    assert unknown.attempts == ()


async def test_a_run_that_goes_on_is_adopted_with_what_it_was_started_with(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY, spec_hash="fedcba9876543210", output=OutputMode.TERMINATION)
    before = datetime.now(UTC).replace(microsecond=0)  # a cluster tells it in whole seconds
    await running(engine_world, plan)
    reports = engine_world.count(plan.run_id, Phase.RUNNING)
    adopted, now = await engine_world.engine.adopt(plan.run_id), datetime.now(UTC)
    assert adopted is not None
    assert (adopted.spec_hash, adopted.output, adopted.runtime) == ("fedcba9876543210", OutputMode.TERMINATION, None)
    assert before <= adopted.dispatched_at <= now
    assert engine_world.count(plan.run_id, Phase.ENDED) == 0
    await engine_world.engine.stop(plan.run_id, "cancelled")
    await ended(engine_world, plan.run_id)
    assert engine_world.count(plan.run_id, Phase.RUNNING) >= reports


async def test_an_ended_run_that_is_adopted_tells_its_end_again(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 3")
    await run(engine_world, plan)
    reports = engine_world.count(plan.run_id, Phase.ENDED)
    assert await engine_world.engine.adopt(plan.run_id) is not None
    await engine_world.status(plan.run_id, lambda one: engine_world.count(plan.run_id, Phase.ENDED) > reports)


async def test_a_settled_engine_knows_its_runs_and_may_be_asked_again(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 0")
    await run(engine_world, plan)
    for _ in range(2):
        await engine_world.engine.settle()
        assert await engine_world.engine.adopt(plan.run_id) is not None


async def test_nobody_adopts_a_run_that_is_unknown_or_released(engine_world: EngineWorld) -> None:
    assert await engine_world.engine.adopt("never-started") is None
    plan = engine_world.plan("exit 0")
    await run(engine_world, plan)
    await engine_world.engine.release(plan.run_id)
    assert await engine_world.engine.adopt(plan.run_id) is None
