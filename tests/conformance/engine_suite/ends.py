"""How runs end, and which attempt decides."""

from __future__ import annotations

import asyncio

from invoker.errors import StartRefusedError
from invoker.result import Reason, State
from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, ended, run, running
from trigger.engine import Phase
from trigger.plan import Limits, OutputMode


async def test_a_run_that_succeeds(engine_world: EngineWorld) -> None:
    status, end = await run(engine_world, engine_world.plan("exit 0"))
    assert (end.state, end.reason, end.output) == (State.SUCCEEDED, Reason.COMPLETED, None)
    (attempt,) = status.attempts
    assert (attempt.number, attempt.exit_code) == (1, 0)
    assert attempt.started_at is not None
    assert attempt.finished_at is not None
    assert attempt.started_at <= attempt.finished_at


async def test_a_run_goes_through_its_phases(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY)
    await running(engine_world, plan)
    assert engine_world.count(plan.run_id, Phase.PENDING) >= 1
    assert engine_world.count(plan.run_id, Phase.ENDED) == 0
    await engine_world.engine.stop(plan.run_id, "cancelled")
    await ended(engine_world, plan.run_id)


async def test_every_attempt_that_fails_counts_and_the_last_one_decides(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 7", limits=Limits(backoff_limit=2))
    status, end = await run(engine_world, plan)
    assert [(one.number, one.exit_code, one.reason) for one in status.attempts] == [
        (number, 7, Reason.ERROR) for number in (1, 2, 3)
    ]
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert "exit code 7" in end.message
    assert "attempt 3 of 3" in end.message


async def test_an_attempt_after_a_failed_one_may_succeed(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(engine_world.failing(1) + "; exit 0", limits=Limits(backoff_limit=3))
    status, end = await run(engine_world, plan)
    assert end.state is State.SUCCEEDED
    assert [one.exit_code for one in status.attempts] == [1, 0]
    assert status.attempts[0].reason is Reason.ERROR


async def test_without_backoff_there_is_one_attempt(engine_world: EngineWorld) -> None:
    status, end = await run(engine_world, engine_world.plan("exit 1"))
    assert end.state is State.FAILED
    assert len(status.attempts) == 1


async def test_an_exit_code_that_forbids_it_is_not_tried_again(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("exit 42", limits=Limits(backoff_limit=3), no_retry_exit_codes=frozenset({42}))
    status, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert [one.exit_code for one in status.attempts] == [42]


async def test_a_process_that_kills_itself_has_the_shells_exit_code(engine_world: EngineWorld) -> None:
    status, end = await run(engine_world, engine_world.plan("kill -9 $$"))
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert status.attempts[0].exit_code == 137


async def test_a_missing_program_is_the_configurations_fault(engine_world: EngineWorld) -> None:
    plan = engine_world.missing_program()
    refusal: StartRefusedError | None = None
    try:
        await engine_world.engine.start(plan)
    except StartRefusedError as error:
        refusal = error
    if refusal is not None:
        reason, message = refusal.fields["reason"], refusal.message
    else:
        _, end = await ended(engine_world, plan.run_id)
        reason, message = end.reason, end.message
    assert reason == Reason.CONFIG
    assert "no-such-program" in message


async def test_many_runs_at_once_do_not_mix(engine_world: EngineWorld) -> None:
    plans = [engine_world.plan(f"echo {number}", output=OutputMode.STDOUT) for number in range(12)]
    ends = await asyncio.gather(*(run(engine_world, plan) for plan in plans))
    assert [end.output for _, end in ends] == [f"{number}\n".encode() for number in range(12)]
