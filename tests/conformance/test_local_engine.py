"""The local engine: the suite of all engines, and what only runs on this machine can do or be refused."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from invoker.errors import (
    ClaimCheckError,
    EngineUnavailableError,
    RunFinishedError,
    ServerUnreachableError,
    StartRefusedError,
)
from invoker.result import Reason, State
from tests.conformance.engine_suite import *  # noqa: F403 -- the suite is the point of this module
from tests.conformance.engine_suite import STAY, ended, printed, run, running
from tests.conformance.local_world import LocalWorld, engine_world, processes_with
from tests.conftest import eventually
from trigger.engine import Phase
from trigger.local_engine import LocalEngine
from trigger.plan import Code, InputMode, Limits, OutputMode

__all__ = ["engine_world"]

MIB = 1024 * 1024


@pytest.fixture
def world(engine_world: LocalWorld) -> LocalWorld:
    """The same world under a shorter name, with its own type."""
    return engine_world


# refused at the start


async def test_an_image_alone_is_refused_with_what_would_run_it(world: LocalWorld) -> None:
    with pytest.raises(StartRefusedError, match=r"function work only names an image \(app:1\).*--engine kubernetes"):
        await world.engine.start(world.code(Code(image="app:1")))


async def test_a_job_template_alone_is_refused(world: LocalWorld) -> None:
    with pytest.raises(StartRefusedError, match="whole Job; the kubernetes engine"):
        await world.engine.start(world.code(Code(), pod={"job": {"spec": {}}}))


async def test_references_to_secrets_are_refused_by_name(world: LocalWorld) -> None:
    pod = {"env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}
    with pytest.raises(StartRefusedError, match="PASSWORD") as caught:
        await world.engine.start(replace(world.plan("exit 0"), pod=pod))
    assert caught.value.fields["reason"] == Reason.CONFIG


async def test_an_unknown_runtime_is_refused(world: LocalWorld) -> None:
    with pytest.raises(StartRefusedError, match=r"runtime 'cobol'; the local engine knows python"):
        await world.engine.start(world.code(Code(runtime="cobol")))


async def test_a_file_that_is_not_executable_is_refused(world: LocalWorld) -> None:
    file = world.folder / "tool"
    file.write_text("#!/bin/sh\n")
    with pytest.raises(StartRefusedError, match="not an executable file") as caught:
        await world.engine.start(world.command(str(file)))
    assert caught.value.fields["reason"] == Reason.CONFIG


async def test_a_missing_interpreter_ends_the_run_in_words(world: LocalWorld) -> None:
    file = world.folder / "tool"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    status, end = await run(world, world.command(str(file), limits=Limits(backoff_limit=3)))
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert "cannot be started: No such file or directory (ENOENT); is the interpreter" in end.message
    assert status.attempts == ()


async def test_a_refused_run_is_not_known(world: LocalWorld) -> None:
    plan = world.missing_program()
    with pytest.raises(StartRefusedError):
        await world.engine.start(plan)
    await world.engine.stop(plan.run_id, "cancelled")
    assert (await world.status(plan.run_id, lambda one: True)).end is None


# how processes end


async def test_a_kill_from_outside_is_named_and_not_ours(world: LocalWorld) -> None:
    plan = world.plan("echo ready; exec sleep 600")
    await running(world, plan)
    (pid,) = processes_with(f"INVOKER_RUN_ID={plan.run_id}")
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
    limits = Limits(ttl_seconds_after_finished=0.5)
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


# the engine itself


async def test_a_closed_engine_takes_nothing_and_leaves_nothing(world: LocalWorld) -> None:
    plan = world.plan(f"trap '' TERM; echo ready; {STAY}")
    await running(world, plan)
    await world.engine.__aexit__(None, None, None)
    assert not await world.alive(plan.run_id)
    with pytest.raises(EngineUnavailableError):
        await world.engine.start(world.plan("exit 0"))
    await world.engine.__aenter__()  # the fixture leaves it once more


async def test_what_an_earlier_engine_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "work" / "run" / "1"
    left.mkdir(parents=True)
    (left / "file").write_text("x")
    async with LocalEngine(tmp_path):

        async def gone() -> bool:
            return not list(tmp_path.glob("old-*")) and not (tmp_path / "work" / "run").exists()

        await eventually(gone, what="the removal of what was left")


async def test_a_state_folder_is_one_engines_at_a_time(world: LocalWorld) -> None:
    with pytest.raises(EngineUnavailableError, match="in use by another engine"):
        async with LocalEngine(world.state):
            pass


async def test_a_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailableError, match=r"state folder .*/file/state cannot be used: Not a directory"):
        async with LocalEngine(tmp_path / "file" / "state"):
            pass


async def test_a_work_folder_that_cannot_be_made_ends_the_run_and_not_the_engine(world: LocalWorld) -> None:
    work = world.state / "work"
    work.rmdir()
    work.write_text("in the way")
    _, end = await run(world, world.plan("exit 0", limits=Limits(backoff_limit=2)))
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "work folder" in end.message
    assert "Not a directory (ENOTDIR)" in end.message
    work.unlink()
    work.mkdir()
    _, end = await run(world, world.plan("exit 0"))
    assert end.state is State.SUCCEEDED


async def test_releasing_a_living_run_ends_and_forgets_it(world: LocalWorld) -> None:
    plan = world.plan("echo ready; " + STAY)
    await running(world, plan)
    await world.engine.release(plan.run_id)
    await ended(world, plan.run_id)
    assert not await world.alive(plan.run_id)
    assert await printed(world, plan.run_id) == []


async def test_the_engine_has_few_threads(world: LocalWorld) -> None:
    plans = [world.plan("echo ready; " + STAY) for _ in range(30)]
    await asyncio.gather(*(running(world, plan) for plan in plans))
    threads = len(os.listdir("/proc/self/task"))
    assert threads <= 2 + (os.cpu_count() or 1) + 4, "asyncio's own pool at most"
    for plan in plans:
        await world.engine.stop(plan.run_id, "cancelled")
        await ended(world, plan.run_id)
    mode = stat.S_IMODE(os.stat(world.state / "work").st_mode)
    assert mode == 0o700


async def test_a_python_that_cannot_start_the_spawner_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'this is no python' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(EngineUnavailableError, match=r"spawner \(.*/python\) did not come up: this is no python"):
        async with LocalEngine(tmp_path / "state", python=str(broken)):
            pass
    with pytest.raises(EngineUnavailableError, match=r"cannot be started: .*No such file"):
        async with LocalEngine(tmp_path / "state", python=str(tmp_path / "nothing")):
            pass


async def test_many_open_files_are_the_spawners_business_only(world: LocalWorld) -> None:
    """It may open as many as the system allows, and its attempts have the limit that we have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, 64)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        async with LocalEngine(world.folder / "other") as engine:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            other = LocalWorld(world.folder, engine)
            following = asyncio.create_task(other.follow())
            plans = [other.plan("echo ready; " + STAY) for _ in range(30)]
            await asyncio.gather(*(running(other, plan) for plan in plans))
            _, end = await run(other, other.plan("sleep 0.2; ulimit -Sn; ulimit -Hn", output=OutputMode.STDOUT))
            assert end.output == f"{lower}\n{'unlimited' if hard < 0 else hard}\n".encode()
            following.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
