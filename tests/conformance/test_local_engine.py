"""The local engine: the suite of all engines, what it refuses at the start, and its own beginning and end."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from invoker.ending import cancelled
from invoker.errors import EngineUnavailableError, StartRefusedError
from invoker.result import Reason, State
from tests.conformance.engine_suite import *  # noqa: F403 -- the suite is the point of this module
from tests.conformance.engine_suite import STAY, ended, printed, run, running
from tests.conformance.local_world import LocalWorld, engine_world, world
from tests.conftest import eventually
from trigger.local_engine import LocalEngine
from trigger.plan import Code, Limits, OutputMode

__all__ = ["engine_world", "world"]


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


async def test_references_are_read_anew_from_a_folder_for_every_attempt(tmp_path: Path) -> None:
    key = tmp_path / "secrets" / "db" / "password"
    key.parent.mkdir(parents=True)
    key.write_text("s3cret\n")
    entry = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    engine = LocalEngine(tmp_path / "engine", secrets_dir=tmp_path / "secrets", first_pause_seconds=LocalWorld.pause)
    async with engine:
        world = LocalWorld(tmp_path, engine)
        following = asyncio.create_task(world.follow())
        renews = f'printf "<%s>" "$PASSWORD"; echo renewed > {key}; test "$PASSWORD" = renewed'
        plan = world.plan(renews, pod={"env": [entry]}, output=OutputMode.STDOUT, limits=Limits(backoff_limit=1))
        status, end = await run(world, plan)
        assert (end.state, len(status.attempts)) == (State.SUCCEEDED, 2)
        assert end.output == b"<renewed>"
        key.unlink()
        _, end = await run(world, world.plan("exit 0", pod={"env": [entry]}))
        assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
        assert end.message == f"key 'password' of the Secret 'db' is not there: no file {key}"
        await cancelled(following)


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
        # At its end, and not when one that hangs would be given up.
        await asyncio.wait_for(LocalEngine(tmp_path / "state", python=str(broken)).__aenter__(), 20)
    with pytest.raises(EngineUnavailableError, match=r"cannot be started: .*No such file"):
        async with LocalEngine(tmp_path / "state", python=str(tmp_path / "nothing")):
            pass


async def test_many_open_files_are_the_spawners_business_only(world: LocalWorld) -> None:
    """It may open as many as the system allows, and its attempts have the limit that we have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As few as this process has open, which other tests may have left some of, and some for the engine itself.
    lower = min(soft, max(int(number) for number in os.listdir("/proc/self/fd")) + 48)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        async with LocalEngine(world.folder / "other") as engine:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            other = LocalWorld(world.folder, engine)
            following = asyncio.create_task(other.follow())
            plans = [other.plan("echo ready; " + STAY) for _ in range(max(30, lower // 4 + 8))]  # four descriptors each
            await asyncio.gather(*(running(other, plan) for plan in plans))
            _, end = await run(other, other.plan("sleep 0.2; ulimit -Sn; ulimit -Hn", output=OutputMode.STDOUT))
            assert end.output == f"{lower}\n{'unlimited' if hard < 0 else hard}\n".encode()
            following.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
