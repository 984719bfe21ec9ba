"""A run that is stopped ends, says why, and has heard of it first."""

from __future__ import annotations

from invoker.result import Reason, State
from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, ended, running
from trigger.engine import Phase
from trigger.plan import Limits


async def test_a_stopped_run_ends_cancelled_without_further_attempts(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY, limits=Limits(backoff_limit=3))
    await running(engine_world, plan)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    status, end = await ended(engine_world, plan.run_id)
    assert (end.state, end.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert len(status.attempts) == 1
    assert not await engine_world.alive(plan.run_id)


async def test_a_stop_says_why(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY)
    await running(engine_world, plan)
    await engine_world.engine.stop(plan.run_id, "function-removed")
    _, end = await ended(engine_world, plan.run_id)
    assert (end.state, end.reason) == (State.FAILED, Reason.FUNCTION_REMOVED)


async def test_a_stopped_run_hears_of_it_first(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(f"trap 'echo bye; exit 0' TERM; echo ready; {STAY}", limits=Limits(grace_seconds=30))
    await running(engine_world, plan)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    _, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED
    assert b"bye\n" in end.log_tail


async def test_stop_may_be_repeated(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY)
    await running(engine_world, plan)
    for _ in range(3):
        await engine_world.engine.stop(plan.run_id, "cancelled")
    _, first = await ended(engine_world, plan.run_id)
    reports = engine_world.count(plan.run_id, Phase.ENDED)
    await engine_world.engine.stop(plan.run_id, "timeout")
    again = await engine_world.status(plan.run_id, lambda one: engine_world.count(plan.run_id, Phase.ENDED) > reports)
    assert again.end == first


async def test_stopping_an_unknown_run_reports_that_it_is_over(engine_world: EngineWorld) -> None:
    await engine_world.engine.stop("never-started", "cancelled")
    status = await engine_world.status("never-started", lambda one: one.phase is Phase.ENDED)
    assert status.end is None


async def test_a_stop_between_two_attempts_ends_the_run(engine_world: EngineWorld) -> None:
    # With pauses that grow the last attempt is far away, however late the stop comes.
    plan = engine_world.plan("exit 1", limits=Limits(backoff_limit=12))
    await engine_world.engine.start(plan)
    await engine_world.status(plan.run_id, lambda one: any(each.finished_at for each in one.attempts))
    await engine_world.engine.stop(plan.run_id, "cancelled")
    status, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED
    assert len(status.attempts) < 13


async def test_a_stop_right_after_the_start_ends_the_run(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(STAY)
    await engine_world.engine.start(plan)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    _, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED
    assert not await engine_world.alive(plan.run_id)
