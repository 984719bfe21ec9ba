"""What goes into an attempt of the local engine and comes out of it: code, input, output and logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from invoker.errors import ClaimCheckError, RunFinishedError, ServerUnreachableError
from invoker.result import Reason, State
from tests.conformance.engine_suite import ended, printed, run
from tests.conformance.local_world import LocalWorld, engine_world, world
from tests.conftest import eventually
from trigger.engine import Phase
from trigger.plan import Code, InputMode, Limits, OutputMode

__all__ = ["engine_world", "world"]


# output and logs


async def test_fifty_megabytes_neither_block_nor_are_kept(world: LocalWorld) -> None:
    code = "import sys\nfor stream in (sys.stdout, sys.stderr) * 400:\n    stream.write('x' * 65535 + '\\n')"
    plan = world.python(code, limits=Limits(log_tail_bytes=20_000))
    before = resident_kib(os.getpid())
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED
    assert b"bytes are gone here]" in end.log_tail
    assert len(end.log_tail) < 21_000
    assert resident_kib(os.getpid()) - before < 8_000
    assert world.engine.spawner_pid is not None
    assert resident_kib(world.engine.spawner_pid) < 30_000


def resident_kib(pid: int) -> int:
    status = Path("/proc", str(pid), "status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def test_the_log_says_how_much_is_missing(world: LocalWorld) -> None:
    plan = world.plan("yes | head -c 1000000; echo the end", limits=Limits(log_tail_bytes=5_000))
    _, end = await run(world, plan)
    first, *_ = [line.text for line in await printed(world, plan.run_id)]
    assert first.startswith("[Invoker: ")
    assert first.endswith(" bytes are gone here]")
    gone = sum(int(line.split()[1]) for line in end.log_tail.decode().splitlines() if line.startswith("[Invoker"))
    kept = sum(len(line) + 1 for line in end.log_tail.decode().splitlines() if not line.startswith("[Invoker"))
    assert gone + kept == 1_000_008


async def test_a_large_output_is_whole(world: LocalWorld) -> None:
    code = "import os\nfor number in range(5000): os.write(1, number.to_bytes(2, 'big') * 500)"
    _, end = await run(world, world.python(code, output=OutputMode.STDOUT))
    assert end.output == b"".join(number.to_bytes(2, "big") * 500 for number in range(5000))


async def test_the_output_is_not_in_the_log(world: LocalWorld) -> None:
    plan = world.plan("echo data; echo news >&2", output=OutputMode.STDOUT)
    _, end = await run(world, plan)
    assert end.log_tail == b"news\n"
    assert [(line.stream, line.text) for line in await printed(world, plan.run_id)] == [("stderr", "news")]


async def test_a_termination_file_above_4_kib_is_too_large(world: LocalWorld) -> None:
    script = 'head -c 5000 /dev/zero > "$INVOKER_TERMINATION_FILE"'
    status, end = await run(world, world.plan(script, output=OutputMode.TERMINATION))
    assert (end.state, end.reason) == (State.FAILED, Reason.OUTPUT_TOO_LARGE)
    assert "4096" in end.message
    assert len(status.attempts[0].termination) == 4096


@pytest.mark.parametrize("trick", ["mkfifo", "ln -s /etc/passwd", "mkdir"])
async def test_a_termination_file_that_is_none_is_nothing(world: LocalWorld, trick: str) -> None:
    _, end = await run(world, world.plan(f'{trick} "$INVOKER_TERMINATION_FILE"', output=OutputMode.TERMINATION))
    assert (end.state, end.output) == (State.SUCCEEDED, b"")


async def test_a_stdout_left_non_blocking_is_not_handed_on(world: LocalWorld) -> None:
    """Pipes are used again; Node sets this flag, and a program that does not expect it loses output."""
    await run(world, world.python("import os; os.set_blocking(1, False); os.set_blocking(2, False)"))
    _, end = await run(world, world.python("import os; assert os.get_blocking(1) and os.get_blocking(2)"))
    assert end.state is State.SUCCEEDED, end


# input


async def test_a_run_with_a_result_is_not_started(world: LocalWorld) -> None:
    plan = world.plan("exit 0", input=InputMode.FILE, limits=Limits(backoff_limit=3))
    world.inputs[plan.run_id] = [RunFinishedError("the run is finished")]
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert "has its result already" in end.message
    assert status.attempts == ()


async def test_input_that_cannot_be_had_ends_the_run_in_words(world: LocalWorld) -> None:
    plan = world.plan("exit 0", input=InputMode.FILE)
    world.inputs[plan.run_id] = [ClaimCheckError("the object is missing")]
    _, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "the object is missing" in end.message


async def test_a_server_that_does_not_answer_is_asked_again(world: LocalWorld) -> None:
    plan = world.plan('cat "$INVOKER_INPUT_FILE"', input=InputMode.FILE, output=OutputMode.STDOUT)
    world.inputs[plan.run_id] = [ServerUnreachableError("NATS is away"), b"half", b" and half"]
    status, end = await run(world, plan)
    assert (end.state, end.output) == (State.SUCCEEDED, b"half and half")
    assert len(status.attempts) == 1


async def test_waiting_for_input_ends_with_the_pending_limit(world: LocalWorld) -> None:
    plan = world.plan("exit 0", input=InputMode.FILE, limits=Limits(pending_timeout_seconds=0.3))
    world.inputs[plan.run_id] = [ServerUnreachableError("NATS is away") for _ in range(1000)]
    status, end = await run(world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.PENDING_TIMEOUT)
    assert end.message == "could not start within its 0.3 s"
    assert status.attempts == ()


async def test_a_run_can_be_stopped_while_it_waits_for_its_input(world: LocalWorld) -> None:
    plan = world.plan("exit 0", input=InputMode.FILE)
    world.inputs[plan.run_id] = [ServerUnreachableError("NATS is away") for _ in range(1000)]
    await world.engine.start(plan)
    await world.engine.stop(plan.run_id, "cancelled")
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.message) == (State.CANCELLED, "cancelled before its first attempt")
    assert world.count(plan.run_id, Phase.RUNNING) == 0
    assert status.attempts == ()


# the code


async def test_an_edit_does_not_reach_a_run_that_has_begun(world: LocalWorld) -> None:
    source = world.folder / "function"
    source.mkdir()
    program = source / "work.sh"
    program.write_text('#!/bin/sh\necho old "$INVOKER_CODE_DIR"\nexit 1\n')
    program.chmod(0o755)
    code = Code(command=(str(program),), folder=source)
    plan = world.code(code, limits=Limits(backoff_limit=2))
    await world.engine.start(plan)
    await world.status(plan.run_id, lambda one: one.attempts != ())
    program.write_text("#!/bin/sh\necho new\nexit 0\n")
    status, _ = await ended(world, plan.run_id)
    assert [one.exit_code for one in status.attempts] == [1, 1, 1]
    folder = world.state / "code" / "work-0123456789abcdef"
    assert {line.text for line in await printed(world, plan.run_id)} == {f"old {folder}"}
    edited = world.code(code, spec_hash="fedcba9876543210")
    _, end = await run(world, edited)
    assert end.log_tail == b"new\n"

    async def gone() -> bool:
        return not folder.exists()

    await eventually(gone, what="the removal of the old version's code")


async def test_the_python_runtime_is_started_with_the_functions_code(world: LocalWorld) -> None:
    """Without a run API it can only complain, which shows that it runs, and where its complaint goes."""
    code = Code(runtime="python", handler="main.handle", inline="def handle(event, context): pass\n")
    status, end = await run(world, world.code(code, limits=Limits(backoff_limit=1), env={"INVOKER_RETRY_SECONDS": "0"}))
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert "INVOKER_RUN_URL is not set" in end.message
    assert b"INVOKER_RUN_URL" in status.attempts[-1].termination
    assert (world.state / "code" / "work-0123456789abcdef" / "main.py").read_text() == code.inline
