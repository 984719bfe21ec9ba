"""The local engine's attempts as processes of this machine: how they end, and what they leave behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from invoker.result import Reason, State
from tests.conformance.engine_suite import STAY, ended, run, running
from tests.conformance.local_world import LocalWorld, engine_world, processes_with, world
from tests.conftest import eventually
from trigger.engine import Phase
from trigger.plan import Limits, OutputMode

__all__ = ["engine_world", "world"]

MIB = 1024 * 1024


# how processes end


async def test_a_kill_from_outside_is_named_and_not_ours(world: LocalWorld) -> None:
    plan = world.plan("echo ready; exec sleep 600")
    await running(world, plan)

    async def asleep() -> list[int]:
        """While it becomes `sleep` it has no environment to be found by."""
        return processes_with(f"INVOKER_RUN_ID={plan.run_id}")

    (pid,) = await eventually(asleep, what="the process")
    os.kill(pid, signal.SIGKILL)
    status, end = await ended(world, plan.run_id)
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert end.message == "was killed by signal 9 (SIGKILL) in attempt 1 of 1 (not by Invoker)"
    assert status.attempts[0].exit_code == 137


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_violent_end_under_a_memory_limit_is_out_of_memory(world: LocalWorld, number: int) -> None:
    plan = world.plan(f"kill -{int(number)} $$", limits=Limits(memory_bytes=512 * MIB, backoff_limit=1))
    status, end = await run(world, plan)
    assert end.reason is Reason.OUT_OF_MEMORY
    assert end.message == "used more than its 512 MiB in attempt 2 of 2"
    assert len(status.attempts) == 2


async def test_the_memory_limit_cannot_be_lifted_by_the_function(world: LocalWorld) -> None:
    code = f"import resource\nhard = resource.getrlimit(resource.RLIMIT_AS)[1]\nassert hard == {256 * MIB}, hard\n"
    _, end = await run(world, world.python(code, limits=Limits(memory_bytes=256 * MIB)))
    assert end.state is State.SUCCEEDED, end


async def test_a_note_of_a_memory_error_is_out_of_memory_without_a_limit(world: LocalWorld) -> None:
    script = """printf '{"type": "MemoryError", "message": ""}' > "$INVOKER_TERMINATION_FILE"; exit 1"""
    _, end = await run(world, world.plan(script))
    assert (end.reason, end.message) == (Reason.OUT_OF_MEMORY, "ran out of memory in attempt 1 of 1")


async def test_our_own_kill_under_a_memory_limit_is_a_timeout(world: LocalWorld) -> None:
    limits = Limits(memory_bytes=256 * MIB, timeout_seconds=0.3, grace_seconds=0.1)
    _, end = await run(world, world.plan(f"trap '' TERM; {STAY}", limits=limits))
    assert end.reason is Reason.TIMEOUT


async def test_what_the_process_said_last_is_in_the_message(world: LocalWorld) -> None:
    _, end = await run(world, world.plan("echo first >&2; echo 'cannot open the file' >&2; exit 2"))
    assert end.message == "ended with exit code 2 in attempt 1 of 1: cannot open the file"


async def test_the_first_signal_comes_at_once_and_only_then_the_kill(world: LocalWorld) -> None:
    """With a grace of minutes, a process that hears SIGTERM ends long before."""
    plan = world.plan("echo ready; exec sleep 600", limits=Limits(grace_seconds=300))
    await running(world, plan)
    await world.engine.stop(plan.run_id, "cancelled")
    status, _ = await ended(world, plan.run_id)
    assert status.attempts[0].exit_code == 128 + signal.SIGTERM


# what an attempt leaves behind


async def test_a_daemon_that_empties_its_environment_ends_with_its_attempt(world: LocalWorld) -> None:
    mark = f"daemon-of-{world.folder.name}"
    script = f"env -i MARK={mark} setsid sh -c 'sleep 600 & sleep 600' & sleep 0.2; exit 0"
    _, end = await run(world, world.plan(script))
    assert end.state is State.SUCCEEDED
    assert processes_with(f"MARK={mark}") == []


async def test_a_daemon_of_a_living_attempt_is_left_alone(world: LocalWorld) -> None:
    """Another attempt's end must not take it along."""
    script = f"setsid sh -c 'sleep 600 & echo ready' & wait; {STAY}"
    plan = world.plan(script)
    await running(world, plan)
    for _ in range(3):
        await run(world, world.plan("sleep 0 & exit 0"))
    assert len(processes_with(f"INVOKER_RUN_ID={plan.run_id}")) >= 2
    await world.engine.stop(plan.run_id, "cancelled")
    await ended(world, plan.run_id)
    assert not await world.alive(plan.run_id)


async def test_an_attempt_begins_in_its_own_empty_private_folder(world: LocalWorld) -> None:
    script = 'pwd; echo "$INVOKER_WORKDIR"; stat -c %a .; ls -A | wc -l; echo "$HOME" "$TMPDIR"'
    plan = world.plan(script, output=OutputMode.STDOUT)
    _, end = await run(world, plan)
    folder = str(world.state / "work" / plan.run_id / "1")
    assert end.output is not None
    assert end.output.decode().splitlines() == [folder, folder, "700", "0", f"{folder} {folder}"]


async def test_signals_and_descriptors_are_those_of_a_fresh_process(world: LocalWorld) -> None:
    code = (
        "import os, signal\n"
        "assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL\n"
        "blocked = [line for line in open('/proc/self/status') if line.startswith(('SigBlk', 'SigIgn'))]\n"
        "print(blocked, sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid(), os.read(0, 1))\n"
    )
    _, end = await run(world, world.command(sys.executable, "-I", "-c", code, output=OutputMode.STDOUT))
    assert end.output is not None
    text = end.output.decode()
    assert "'SigBlk:\\t0000000000000000" in text
    assert "['0', '1', '2', '3'] True b''" in text, "3 is the listing's own"


async def test_the_folder_goes_some_time_after_the_end(world: LocalWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=5)  # in which it is looked at
    plan = world.plan("mkdir sub; seq 500 > sub/numbers; cd sub; seq 200 | xargs touch; chmod 500 .", limits=limits)
    _, end = await run(world, plan)
    assert end.state is State.SUCCEEDED, end
    folder = world.state / "work" / plan.run_id
    assert (folder / "1" / "sub" / "200").exists()

    async def gone() -> bool:
        return not folder.exists()

    await eventually(gone, what="the removal of the work folder")


async def test_a_folder_that_is_used_again_is_as_fresh_as_a_new_one(world: LocalWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=0)
    scripts = ["exit 0", "touch file", "chmod 777 .", "exit 0", "touch ../beside", "mkdir -p ../2", "exit 0", "exit 0"]
    for script in scripts:
        look = f"ls -A . ..; stat -c %a . ..; {script}"
        plan = world.plan(look, limits=limits, output=OutputMode.STDOUT)
        _, end = await run(world, plan)
        assert end.output == b".:\n\n..:\n1\n700\n700\n"

        async def gone(folder: Path = world.state / "work" / plan.run_id) -> bool:
            return not folder.exists()

        await eventually(gone, what="the removal of the work folder")


async def test_a_run_begun_anew_does_not_lose_its_folder_to_the_old_ones_removal(world: LocalWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=0.3)
    plan = world.plan("exit 0", limits=limits, run_id="same")
    await run(world, plan)
    await world.engine.release("same")
    again = world.plan('sleep 0.6; test -d "$INVOKER_WORKDIR" || exit 9; exit 0', limits=limits, run_id="same")
    await world.engine.start(again)
    status = await world.status("same", lambda one: one.attempts != () and one.attempts[0].exit_code == 0)
    await world.status("same", lambda one: one.end is not None and one.attempts != status.attempts)
    (second,) = (await world.status("same", lambda one: one.end is not None)).attempts
    assert second.exit_code == 0


async def test_a_run_can_be_begun_anew_at_once(world: LocalWorld) -> None:
    limits = Limits(ttl_seconds_after_finished=0)
    for number in range(1, 6):
        plan = world.plan(
            'sleep 0.1; test -d "$INVOKER_WORKDIR" && touch "$INVOKER_WORKDIR/file"', run_id="same", limits=limits
        )
        await world.engine.start(plan)

        async def over(number: int = number) -> bool:
            return world.count("same", Phase.ENDED) == number

        await eventually(over)
        status = await world.status("same", lambda one: one.end is not None)
        assert status.attempts[0].exit_code == 0
        await world.engine.release("same")
