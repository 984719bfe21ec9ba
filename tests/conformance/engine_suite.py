"""What every engine must do: one test per promise of `trigger.engine`, for whatever engine the fixture gives.

A module that tests an engine imports all of this and defines the fixture `engine_world`, which gives an `EngineWorld`.
Nothing in here knows of processes, pods or folders; what an engine alone promises is tested beside that fixture.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol

import pytest

from invoker.errors import StartRefusedError
from invoker.result import Reason, State
from trigger.engine import Engine, LogLine, Phase, RunEnd, RunStatus
from trigger.plan import InputMode, Limits, OutputMode, RunPlan

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


# ends


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


# start, watch, release


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
    await running(engine_world, plan)
    reports = engine_world.count(plan.run_id, Phase.RUNNING)
    adopted = await engine_world.engine.adopt(plan.run_id)
    assert adopted is not None
    assert (adopted.spec_hash, adopted.output, adopted.runtime) == ("fedcba9876543210", OutputMode.TERMINATION, None)
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


# stop


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
    plan = engine_world.plan("exit 1", limits=Limits(backoff_limit=5))
    await engine_world.engine.start(plan)
    await engine_world.status(plan.run_id, lambda one: any(each.finished_at for each in one.attempts))
    await engine_world.engine.stop(plan.run_id, "cancelled")
    status, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED
    assert len(status.attempts) < 6


async def test_a_stop_right_after_the_start_ends_the_run(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(STAY)
    await engine_world.engine.start(plan)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    _, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED
    assert not await engine_world.alive(plan.run_id)


# limits


async def test_an_attempt_that_takes_too_long_times_out_and_is_not_tried_again(engine_world: EngineWorld) -> None:
    limits = Limits(backoff_limit=2, timeout_seconds=engine_world.second)
    status, end = await run(engine_world, engine_world.plan(STAY, limits=limits))
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert [one.reason for one in status.attempts] == [Reason.TIMEOUT]
    assert not await engine_world.alive(status.run_id)


async def test_a_process_that_ignores_sigterm_is_killed(engine_world: EngineWorld) -> None:
    limits = Limits(timeout_seconds=engine_world.second, grace_seconds=engine_world.second)
    status, end = await run(engine_world, engine_world.plan(f"trap '' TERM; {STAY}", limits=limits))
    assert (end.state, end.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert status.attempts[0].exit_code == 137
    assert not await engine_world.alive(status.run_id)


async def test_the_timeout_is_each_attempts_own(engine_world: EngineWorld) -> None:
    """Three attempts that together take longer than one may. The limit is as far above one of them as that allows: on a
    busy machine an attempt lives for longer than its script sleeps."""
    asleep = max(1.0, engine_world.second)
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


# input, output, environment


async def test_the_input_is_in_its_file(engine_world: EngineWorld) -> None:
    data = bytes(range(256)) * 5000
    plan = engine_world.plan('cat "$INVOKER_INPUT_FILE"', input=InputMode.FILE, output=OutputMode.STDOUT)
    engine_world.give_input(plan.run_id, data)
    _, end = await run(engine_world, plan)
    assert end.state is State.SUCCEEDED, end
    assert end.output == data


async def test_an_empty_input_is_an_empty_file(engine_world: EngineWorld) -> None:
    plan = engine_world.plan('test -f "$INVOKER_INPUT_FILE" && test ! -s "$INVOKER_INPUT_FILE"', input=InputMode.FILE)
    engine_world.give_input(plan.run_id, b"")
    _, end = await run(engine_world, plan)
    assert end.state is State.SUCCEEDED, end


async def test_stdout_is_the_output_byte_for_byte(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("printf 'a\\000b\\377\\n\\n'; echo news >&2", output=OutputMode.STDOUT)
    _, end = await run(engine_world, plan)
    assert end.output == b"a\0b\xff\n\n"


async def test_a_failed_run_has_no_output(engine_world: EngineWorld) -> None:
    _, end = await run(engine_world, engine_world.plan("echo half; exit 1", output=OutputMode.STDOUT))
    assert (end.state, end.output) == (State.FAILED, None)


async def test_an_output_above_the_limit_fails_and_names_both_sizes(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(
        "head -c 300000 /dev/zero", output=OutputMode.STDOUT, limits=Limits(output_bytes=200_000, backoff_limit=2)
    )
    status, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.OUTPUT_TOO_LARGE)
    assert "300000" in end.message
    assert "200000" in end.message
    assert len(status.attempts) == 1, "the same output would come again"


async def test_an_output_of_exactly_the_limit_passes(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("head -c 200000 /dev/zero", output=OutputMode.STDOUT, limits=Limits(output_bytes=200_000))
    _, end = await run(engine_world, plan)
    assert end.output == bytes(200_000)


async def test_the_termination_file_is_the_output(engine_world: EngineWorld) -> None:
    plan = engine_world.plan('printf done > "$INVOKER_TERMINATION_FILE"', output=OutputMode.TERMINATION)
    _, end = await run(engine_world, plan)
    assert (end.state, end.output) == (State.SUCCEEDED, b"done")


async def test_a_note_about_an_error_is_passed_on_and_its_reason_counts(engine_world: EngineWorld) -> None:
    note = json.dumps({"type": "TypeError", "message": "cannot encode a set", "reason": "invalid-output"})
    plan = engine_world.plan(f"printf '%s' '{note}' > \"$INVOKER_TERMINATION_FILE\"; exit 1")
    status, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.INVALID_OUTPUT)
    assert "cannot encode a set" in end.message
    assert status.attempts[0].termination == note.encode()


async def test_the_environment_is_the_plans_and_nothing_of_the_engines_process(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("env", env={"LEVEL": "6", "TEXT": "a  'b'"}, output=OutputMode.STDOUT)
    _, end = await run(engine_world, plan)
    assert end.output is not None
    lines = end.output.decode().splitlines()
    assert "LEVEL=6" in lines
    assert "TEXT=a  'b'" in lines
    names = {line.partition("=")[0] for line in lines}
    assert {"INVOKER_WORKDIR", "INVOKER_POD_UID", "INVOKER_TERMINATION_FILE", "PATH"} <= names
    assert engine_world.secret not in end.output.decode()


async def test_attempts_can_be_told_apart(engine_world: EngineWorld) -> None:
    plan = engine_world.plan('echo "$INVOKER_POD_UID"; exit 1', limits=Limits(backoff_limit=2))
    await run(engine_world, plan)
    assert len({line.text for line in await printed(engine_world, plan.run_id)}) == 3


# logs


async def test_the_log_has_every_line_in_order(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("echo one; echo two >&2; echo three")
    _, end = await run(engine_world, plan)
    lines = await printed(engine_world, plan.run_id)
    assert sorted(line.text for line in lines) == ["one", "three", "two"]
    assert [line.text for line in lines if line.text != "two"] == ["one", "three"]
    assert {line.attempt for line in lines} == {1}
    assert sorted(end.log_tail.split()) == [b"one", b"three", b"two"]


async def test_a_followed_log_comes_while_it_is_written_and_ends_with_the_run(engine_world: EngineWorld) -> None:
    plan = engine_world.plan(f"trap 'exit 0' TERM; echo first; {STAY}")
    await engine_world.engine.start(plan)
    await engine_world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
    texts = []
    async for line in engine_world.engine.logs(plan.run_id, follow=True):
        texts.append(line.text)
        await engine_world.engine.stop(plan.run_id, "cancelled")  # only a line that came early gets us here
    assert texts[0] == "first"  # a shell may tell of its killed child afterwards
    await ended(engine_world, plan.run_id)


async def test_the_log_of_an_unknown_run_is_empty(engine_world: EngineWorld) -> None:
    assert await printed(engine_world, "never-started", follow=True) == []


async def test_the_log_tail_is_bounded_and_keeps_the_end(engine_world: EngineWorld) -> None:
    plan = engine_world.plan("yes | head -c 5000000; echo the end", limits=Limits(log_tail_bytes=10_000))
    _, end = await run(engine_world, plan)
    assert end.log_tail.endswith(b"the end\n")
    assert len(end.log_tail) < 11_000
