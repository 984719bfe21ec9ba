"""requirements.txt beside a handler: installed once per content, and a failure is the function's visible status.

Everything is installed from a folder of wheels made here; nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from invoker.result import Reason, State
from tests.conformance.engine_suite import ended, run
from tests.conformance.local_world import LocalWorld, engine_world, processes_with
from tests.conftest import eventually
from trigger.engine import Phase
from trigger.local_engine import LocalEngine
from trigger.local_engine.processes import Processes
from trigger.local_engine.requirements import Environments, InstallError
from trigger.plan import Code, Limits, RunPlan

__all__ = ["engine_world"]


def make_wheel(folder: Path, name: str, version: str, code: str) -> None:
    """A wheel with one module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """A requirements.txt for `greeting`, to be had from a folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "greeting", "1.0", "WORD = 'hello'\ndef main(): print(WORD)\n")
    function = tmp_path / "function"
    function.mkdir()
    file = function / "requirements.txt"
    file.write_text(f"--no-index\n--find-links {wheels}\ngreeting==1.0\n")
    (function / "main.py").write_text("import greeting\n\ndef handle(event, context):\n    return greeting.WORD\n")
    return file


def function_plan(world: LocalWorld, requirements: Path, **fields: object) -> RunPlan:
    code = Code(runtime="python", handler="main.handle", folder=requirements.parent, requirements=requirements)
    return world.code(code, **fields)


def environments(world: LocalWorld) -> list[Path]:
    return sorted(path for path in (world.state / "environments").iterdir() if path.is_symlink())


async def test_the_runtime_is_started_in_the_environment(engine_world: LocalWorld, requirements: Path) -> None:
    """The run API does not answer, so the runtime stays and can be looked at."""
    env = {"INVOKER_RUN_URL": "http://127.0.0.1:9/run", "INVOKER_RUN_TOKEN": "t", "INVOKER_RETRY_SECONDS": "600"}
    plan = function_plan(engine_world, requirements, env=env)
    await engine_world.engine.start(plan)
    await engine_world.status(plan.run_id, lambda one: one.phase is Phase.RUNNING)
    (environment,) = environments(engine_world)
    (pid,) = processes_with(f"INVOKER_RUN_ID={plan.run_id}")
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert words[0] == bytes(environment / "bin" / "python")
    assert said([words[0].decode(), "-c", "import greeting; print(greeting.WORD)"]) == b"hello\n"
    assert said([str(environment / "bin" / "greeting")]) == b"hello\n", "its scripts find their python"
    await engine_world.engine.stop(plan.run_id, "cancelled")


def said(command: list[str]) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


async def test_equal_requirements_are_installed_once(engine_world: LocalWorld, requirements: Path) -> None:
    plans = [function_plan(engine_world, requirements) for _ in range(4)]
    await asyncio.gather(*(run(engine_world, plan) for plan in plans))
    (environment,) = environments(engine_world)
    made = (environment / "pyvenv.cfg").stat().st_mtime_ns
    await run(engine_world, function_plan(engine_world, requirements))
    assert (environment / "pyvenv.cfg").stat().st_mtime_ns == made
    assert len(list((engine_world.state / "environments").iterdir())) == 2, "one environment and its name"


async def test_a_stopped_run_does_not_end_the_install_that_another_one_waits_for(
    engine_world: LocalWorld, requirements: Path
) -> None:
    first, second = function_plan(engine_world, requirements), function_plan(engine_world, requirements)
    await engine_world.engine.start(first)
    await engine_world.engine.start(second)

    async def installing() -> bool:
        return bool(list((engine_world.state / "environments").iterdir()))

    await eventually(installing)
    await engine_world.engine.stop(first.run_id, "cancelled")
    _, end = await ended(engine_world, first.run_id)
    assert end.state is State.CANCELLED
    status, _ = await ended(engine_world, second.run_id)
    assert len(status.attempts) == 1, "its process was started, so its environment was there"


async def test_a_failing_install_is_the_runs_reason_and_the_functions_status(
    engine_world: LocalWorld, requirements: Path
) -> None:
    good = requirements.read_text()
    requirements.write_text(good.replace("greeting==1.0", "no-such-package==9"))
    status, end = await run(engine_world, function_plan(engine_world, requirements, limits=Limits(backoff_limit=2)))
    assert (end.state, end.reason) == (State.FAILED, Reason.CONFIG)
    assert end.message.startswith("requirements.txt cannot be installed: ERROR: ")
    assert "no-such-package==9" in end.message
    assert "\n" not in end.message
    assert status.attempts == ()
    assert engine_world.engine.environment_problem("work") == end.message
    assert engine_world.problems == [("work", end.message)]

    requirements.write_text(good)
    await run(engine_world, function_plan(engine_world, requirements))
    assert engine_world.engine.environment_problem("work") is None
    assert engine_world.problems[1:] == [("work", None)]


async def test_a_failing_build_of_a_package_is_told_in_its_words(engine_world: LocalWorld, requirements: Path) -> None:
    source = requirements.parent / "source"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('this package needs a compiler')\n")
    requirements.write_text("--no-index\n--no-build-isolation\n./source\n")
    _, end = await run(engine_world, function_plan(engine_world, requirements))
    assert end.reason is Reason.CONFIG
    assert len(end.message) < 2000


async def test_waiting_for_an_install_counts_as_pending(engine_world: LocalWorld, requirements: Path) -> None:
    source = requirements.parent / "source"
    source.mkdir()
    (source / "setup.py").write_text("import time\ntime.sleep(600)\n")
    requirements.write_text("--no-index\n--no-build-isolation\n./source\n")
    plan = function_plan(engine_world, requirements, limits=Limits(pending_timeout_seconds=0.5))
    _, end = await run(engine_world, plan)
    assert (end.state, end.reason) == (State.FAILED, Reason.PENDING_TIMEOUT)

    other = function_plan(engine_world, requirements)
    await engine_world.engine.start(other)
    await engine_world.engine.stop(other.run_id, "cancelled")
    _, end = await ended(engine_world, other.run_id)
    assert end.state is State.CANCELLED


async def test_a_requirements_file_that_is_gone_is_named(engine_world: LocalWorld, requirements: Path) -> None:
    requirements.unlink()
    _, end = await run(engine_world, function_plan(engine_world, requirements))
    assert end.reason is Reason.CONFIG
    assert "No such file" in end.message


async def test_a_failure_is_remembered_for_a_minute_or_until_the_content_changes(
    tmp_path: Path, requirements: Path
) -> None:
    clock = [0.0]
    processes = Processes(sys.executable, tmp_path / "log")
    folder = tmp_path / "environments"
    folder.mkdir()
    await processes.open()
    cache = Environments(folder, sys.executable, processes, {}, lambda: clock[0])
    wheels = tmp_path / "wheels"
    (wheel,) = wheels.iterdir()
    hidden = tmp_path / wheel.name
    wheel.rename(hidden)
    with pytest.raises(InstallError):
        await cache.python_for(requirements)
    hidden.rename(wheel)
    with pytest.raises(InstallError):
        await cache.python_for(requirements)
    clock[0] = 61.0
    assert (await cache.python_for(requirements)).exists()
    assert not [path for path in folder.iterdir() if path.name.endswith(".link")]

    async def one_environment() -> bool:
        return len([path for path in folder.iterdir() if not path.is_symlink()]) == 1

    await eventually(one_environment, what="the removal of the failed one")
    await processes.close()


async def test_half_an_environment_of_a_killed_engine_is_removed(tmp_path: Path, requirements: Path) -> None:
    folder = tmp_path / "state" / "environments"
    for name in ("whole.1", "half.2"):
        (folder / name / "bin").mkdir(parents=True)
    (folder / "whole").symlink_to("whole.1")
    async with LocalEngine(tmp_path / "state"):
        assert sorted(path.name for path in folder.iterdir()) == ["whole", "whole.1"]
