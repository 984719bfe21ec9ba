"""Limits of time and memory, and that nothing of an attempt outlives it."""

from __future__ import annotations

from datetime import timedelta

from invoker.result import Reason, State
from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, run
from trigger.plan import Limits

# limits


async def test_an_attempt_that_takes_too_long_times_out_and_is_not_tried_again(engine_world: EngineWorld) -> None:
    limits = Limits(backoff_limit=2, timeout_seconds=engine_world.second)
    status, end = await run(engine_world, engine_world.plan(STAY, limits=limits))
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert [one.reason for one in status.attempts] == [Reason.TIMEOUT]
    assert not await engine_world.alive(status.run_id)


async def test_a_process_that_ignores_sigterm_is_killed(engine_world: EngineWorld) -> None:
    """Its time is long enough for it to say so first, on a busy machine too."""
    limits = Limits(timeout_seconds=max(5.0, engine_world.second), grace_seconds=engine_world.second)
    status, end = await run(engine_world, engine_world.plan(f"trap '' TERM; {STAY}", limits=limits))
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert status.attempts[0].exit_code == 137
    assert not await engine_world.alive(status.run_id)


async def test_the_timeout_is_each_attempts_own(engine_world: EngineWorld) -> None:
    """Three attempts that together take longer than one may. The limit is as far above one of them as that allows: on a
    busy machine an attempt lives for longer than its script sleeps."""
    asleep = max(2.5, engine_world.second)
    limit = 0.93 * (3 * asleep + 2 * engine_world.pause)
    plan = engine_world.plan(f"sleep {asleep}; exit 1", limits=Limits(backoff_limit=2, timeout_seconds=limit))
    status, end = await run(engine_world, plan)
    assert end.reason is Reason.ERROR
    assert len(status.attempts) == 3
    started_at, finished_at = status.attempts[0].started_at, status.attempts[-1].finished_at
    assert started_at is not None
    assert finished_at is not None
    assert (finished_at - started_at).total_seconds() > limit


async def test_a_run_is_given_up_at_its_deadline(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(STAY, deadline_in=timedelta(seconds=engine_world.second))
    _, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert "deadline" in end.message


async def test_more_memory_than_allowed(engine_world: EngineWorld) -> None:
    limits = Limits(memory_bytes=256 * 1024 * 1024)
    plan = engine_world.python("block = bytearray(1024 * 1024 * 1024)\nprint(len(block))", limits=limits)
    status, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.OUT_OF_MEMORY)
    assert "256 MiB in attempt 1 of 1" in end.message
    assert status.attempts[0].reason is Reason.OUT_OF_MEMORY


async def test_memory_within_the_limit_is_fine(engine_world: EngineWorld) -> None:
    limits = Limits(memory_bytes=256 * 1024 * 1024)
    _, end = await run(engine_world, engine_world.python("block = bytearray(50 * 1024 * 1024)", limits=limits))
    assert end.state is State.SUCCEEDED, end


# what a function leaves behind


async def test_a_forked_child_does_not_outlive_its_attempt(engine_world: EngineWorld) -> None:
    status, end = await run(engine_world, engine_world.plan(f"({STAY}) & echo forked"))
    assert end.state is State.SUCCEEDED
    assert not await engine_world.alive(status.run_id)


async def test_a_child_that_leaves_the_session_does_not_either(engine_world: EngineWorld) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    status, end = await run(engine_world, engine_world.python(code))
    assert end.state is State.SUCCEEDED
    assert not await engine_world.alive(status.run_id)


async def test_every_attempt_has_a_fresh_work_folder(engine_world: EngineWorld) -> None:
    script = 'test -z "$(ls -A "$INVOKER_WORKDIR")" || exit 9; touch "$INVOKER_WORKDIR/mine"; exit 1'
    status, _ = await run(engine_world, engine_world.plan(script, limits=Limits(backoff_limit=1)))
    assert [one.exit_code for one in status.attempts] == [1, 1]
