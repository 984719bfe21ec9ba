"""Who dies with whom: no attempt survives its engine, and a killed spawner costs no attempt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from invoker.result import Reason, State
from tests.conformance.engine_suite import STAY, ended, run, running
from tests.conformance.local_world import LocalWorld, engine_world, processes_with
from tests.conftest import eventually
from trigger.engine import Phase
from trigger.plan import Limits

__all__ = ["engine_world"]

ROOT = Path(__file__).resolve().parents[2]

CONTROLLER = """
import asyncio, sys
from pathlib import Path
from trigger.local_engine import LocalEngine
from trigger.plan import Code, Limits, RunPlan

async def main(folder, mark, script):
    async with LocalEngine(Path(folder)) as engine:
        await engine.start(RunPlan(
            run_id="run", request_id="request", function="work", topic="topic", spec_hash="0", catalog="0",
            code=Code(command=("sh", "-c", script)), env={"MARK": mark}, limits=Limits(grace_seconds=600),
        ))
        async for line in engine.logs("run", follow=True):
            print(line.text, engine.spawner_pid, flush=True)
        print("ended", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""

CLINGING = f"""
trap '' TERM HUP INT
sleep 600 &
setsid sh -c 'trap "" TERM; sleep 600 & sleep 600' &
env -i MARK="$MARK" setsid setsid sleep 600 &
sleep 0.3
echo ready
{STAY}
"""
"""A function that holds on to life: a child, a session of its own with children, a daemon without our mark."""


class OtherController:
    """A process with a local engine in which one run clings to life."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"clinging-{uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, str(folder), self.mark, CLINGING],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self.process.stdout is not None
        word, pid = self.process.stdout.readline().split()
        assert word == "ready"
        self.keeper = int(pid)

    @property
    def spawner(self) -> int:
        return int(Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split()[0])

    def living(self) -> list[int]:
        return processes_with(f"MARK={self.mark}")

    async def clings(self) -> None:
        """When this returns all of them are there: the function says that it is ready after a while, not after them."""

        async def all_there() -> bool:
            return len(self.living()) >= 5

        await eventually(all_there, what="every process of the run")

    async def nothing_lives(self) -> None:
        async def gone() -> bool:
            return not self.living() and not Path(f"/proc/{self.keeper}").exists()

        await eventually(gone, what="the end of every process of the run")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
async def controller(tmp_path: Path) -> OtherController:
    """Ends by itself when a test leaves it alive: that is what is tested."""
    other = OtherController(tmp_path)
    await other.clings()
    return other


async def test_nothing_survives_a_killed_controller(controller: OtherController) -> None:
    controller.close()
    await controller.nothing_lives()


async def test_nothing_survives_a_controller_killed_with_its_spawner(controller: OtherController) -> None:
    os.kill(controller.spawner, signal.SIGKILL)
    controller.close()
    await controller.nothing_lives()


async def test_nothing_survives_a_controller_killed_with_its_keeper(controller: OtherController) -> None:
    os.kill(controller.keeper, signal.SIGKILL)
    controller.close()
    await controller.nothing_lives()


async def test_a_stopped_spawner_does_not_keep_anything_alive(controller: OtherController) -> None:
    """It cannot see that the engine is gone; the keeper does."""
    os.kill(controller.spawner, signal.SIGSTOP)
    controller.close()
    await controller.nothing_lives()


async def test_a_killed_spawner_takes_its_attempts_along(controller: OtherController) -> None:
    os.kill(controller.spawner, signal.SIGKILL)

    async def only_the_new_one() -> bool:
        return not Path(f"/proc/{controller.keeper}").exists()

    before = set(controller.living())
    await eventually(only_the_new_one, what="the keeper's end")
    assert not before & set(controller.living())
    controller.close()

    async def gone() -> bool:
        return not controller.living()

    await eventually(gone, what="the end of every process of the run")


def spawner_below(keeper: int | None) -> int:
    return int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])


@pytest.mark.parametrize("victim", ["spawner", "keeper", "both"])
async def test_an_attempt_lost_with_the_spawner_is_begun_again_and_not_counted(
    engine_world: LocalWorld, victim: str
) -> None:
    marks = engine_world.folder / "marks"
    script = f'echo "$INVOKER_ATTEMPT_NUMBER" >> {marks}; test $(wc -l < {marks}) -gt 1 && exit 0; echo ready; {STAY}'
    plan = engine_world.plan(script)
    await running(engine_world, plan)
    keeper = engine_world.engine.spawner_pid
    assert keeper is not None
    victims = {"spawner": [spawner_below(keeper)], "keeper": [keeper], "both": [keeper, spawner_below(keeper)]}
    for pid in victims[victim]:
        os.kill(pid, signal.SIGKILL)
    status, end = await ended(engine_world, plan.run_id)
    assert end.state is State.SUCCEEDED
    assert [one.number for one in status.attempts] == [1]
    assert marks.read_text().split() == ["1", "1"]


async def test_a_run_whose_process_is_lost_again_and_again_is_lost(engine_world: LocalWorld) -> None:
    plan = engine_world.plan("echo ready; " + STAY, limits=Limits(backoff_limit=5))
    await engine_world.engine.start(plan)
    for number in range(1, 4):

        async def begun(number: int = number) -> bool:
            return engine_world.count(plan.run_id, Phase.RUNNING) >= number

        await eventually(begun, what=f"start number {number}")
        os.kill(spawner_below(engine_world.engine.spawner_pid), signal.SIGKILL)
    _, end = await ended(engine_world, plan.run_id)
    assert (end.state, end.reason) == (State.LOST, Reason.ENGINE)
    assert "lost 3 times" in end.message


async def test_a_run_that_is_being_stopped_is_not_begun_again(engine_world: LocalWorld) -> None:
    plan = engine_world.plan(f"trap '' TERM; echo ready; {STAY}", limits=Limits(grace_seconds=600))
    await running(engine_world, plan)
    await engine_world.engine.stop(plan.run_id, "cancelled")
    os.kill(spawner_below(engine_world.engine.spawner_pid), signal.SIGKILL)
    _, end = await ended(engine_world, plan.run_id)
    assert end.state is State.CANCELLED


async def test_the_engine_works_on_after_its_spawner_was_killed(engine_world: LocalWorld) -> None:
    await run(engine_world, engine_world.plan("exit 0"))
    keeper = engine_world.engine.spawner_pid
    os.kill(spawner_below(keeper), signal.SIGKILL)

    async def gone() -> bool:
        return not Path(f"/proc/{keeper}/task/{keeper}/children").exists() or _is_zombie(keeper)

    await eventually(gone, what="the keeper's end")
    _, end = await run(engine_world, engine_world.plan("exit 0"))
    assert end.state is State.SUCCEEDED


def _is_zombie(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_an_attempt_that_kills_its_parent_is_given_up_and_the_engine_works_on(engine_world: LocalWorld) -> None:
    """The worst a function can do to the spawner."""
    _, end = await run(engine_world, engine_world.plan("kill -9 $PPID; " + STAY))
    assert (end.state, end.reason) == (State.LOST, Reason.ENGINE)
    _, end = await run(engine_world, engine_world.plan("exit 0"))
    assert end.state is State.SUCCEEDED


async def test_the_spawner_sees_nothing_of_the_controllers_environment(engine_world: LocalWorld) -> None:
    keeper = engine_world.engine.spawner_pid
    for pid in (keeper, spawner_below(keeper)):
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""


async def test_a_function_finds_no_descriptor_of_the_controller(engine_world: LocalWorld) -> None:
    secret = engine_world.folder / "secret"
    with secret.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        _, end = await run(engine_world, engine_world.plan("ls -l /proc/self/fd"))
    assert end.state is State.SUCCEEDED
    assert b"secret" not in end.log_tail
    assert b"socket" not in end.log_tail
