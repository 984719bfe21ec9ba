"""What goes into a run and comes out of it: input, output, environment and log."""

from __future__ import annotations

import json

from invoker.result import Reason, State
from tests.conformance.engine_suite.any_engine import STAY, EngineWorld, ended, printed, run
from trigger.engine import Phase
from trigger.plan import InputMode, Limits, OutputMode

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
