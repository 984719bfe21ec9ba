"""A disk that is full or may not be written: the run ends in words, the engine goes on.

A small file system is mounted for it, which only root may do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from invoker.result import Reason, State
from tests.conformance.engine_suite import run
from tests.conformance.local_world import LocalWorld, engine_world
from trigger.plan import Code, InputMode, Limits, OutputMode

__all__ = ["engine_world"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small file system needs root on Linux"
)


def system(*command: str | Path) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def small_disk(engine_world: LocalWorld) -> Iterator[Path]:
    """The folder of the work folders, on a file system of 128 KiB and 20 files."""
    work = engine_world.state / "work"
    system("mount", "-t", "tmpfs", "-o", "size=128k,nr_inodes=20,mode=700", "invoker-test", work)
    yield work
    system("umount", "--lazy", work)


def fill(folder: Path, *, files: bool) -> list[Path]:
    """Use up the file system's room, or its number of files."""
    made = []
    try:
        while True:
            made.append(folder / f"filler-{len(made)}")
            made[-1].write_bytes(b"" if files else bytes(4096))
    except OSError:
        return made


def free(made: list[Path]) -> None:
    for path in made:
        path.unlink(missing_ok=True)


async def test_no_room_for_a_work_folder(engine_world: LocalWorld, small_disk: Path) -> None:
    made = fill(small_disk, files=True)
    _, end = await run(engine_world, engine_world.plan("exit 0", limits=Limits(backoff_limit=3)))
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "cannot be made: No space left on device (ENOSPC)" in end.message
    free(made)
    _, end = await run(engine_world, engine_world.plan("exit 0"))
    assert end.state is State.SUCCEEDED


async def test_no_room_for_the_input(engine_world: LocalWorld, small_disk: Path) -> None:
    plan = engine_world.plan("exit 0", input=InputMode.FILE)
    engine_world.give_input(plan.run_id, bytes(500_000))
    _, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "its input cannot be written: No space left on device (ENOSPC)" in end.message


async def test_no_room_for_the_output(engine_world: LocalWorld, small_disk: Path) -> None:
    plan = engine_world.plan("head -c 500000 /dev/zero", output=OutputMode.STDOUT)
    _, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "its output cannot be kept in" in end.message
    assert "No space left on device" in end.message


async def test_a_function_that_fills_the_disk_fails_by_itself(engine_world: LocalWorld, small_disk: Path) -> None:
    _, end = await run(engine_world, engine_world.plan("head -c 500000 /dev/zero > file"))
    assert (end.state, end.reason) == (State.FAILED, Reason.ERROR)
    assert "No space left on device" in end.message


async def test_a_work_folder_that_may_not_be_written(engine_world: LocalWorld, small_disk: Path) -> None:
    system("mount", "-o", "remount,ro", small_disk)
    _, end = await run(engine_world, engine_world.plan("exit 0"))
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert "cannot be made: Read-only file system (EROFS)" in end.message
    system("mount", "-o", "remount,rw", small_disk)


async def test_no_room_for_the_code(engine_world: LocalWorld, tmp_path: Path) -> None:
    code = engine_world.state / "code"
    system("mount", "-t", "tmpfs", "-o", "size=64k", "invoker-test", code)
    try:
        inline = "#" * 500_000
        _, end = await run(engine_world, engine_world.code(Code(runtime="python", inline=inline)))
    finally:
        system("umount", "--lazy", code)
    assert (end.state, end.reason) == (State.FAILED, Reason.ENGINE)
    assert "the code of work cannot be copied: No space left on device (ENOSPC)" in end.message
