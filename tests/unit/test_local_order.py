"""From a plan to what the spawner is told; and the two small books of the engine: removals and code versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invoker import runtime
from invoker.errors import StartRefusedError
from tests.conftest import eventually
from trigger.function_pod import PodFields
from trigger.local_engine import order
from trigger.local_engine.order import Interpreter, Prepared, Programs, check_startable, make_order
from trigger.local_engine.removal import Removals
from trigger.local_engine.snapshots import Snapshots
from trigger.plan import Code, InputMode, Limits, OutputMode, RunPlan

INTERPRETER = Interpreter.at("/opt/python/bin/python")


def plan(code: Code, **fields: Any) -> RunPlan:
    return RunPlan(
        run_id="run",
        request_id="request",
        function="work",
        topic="topic",
        spec_hash="0",
        catalog="0",
        code=code,
        env=fields.pop("env", {}),
        **fields,
    )


def order_of(one: RunPlan, prepared: Prepared | None = None, program: str | None = "/bin/true") -> order.Order:
    return make_order(one, 2, prepared or Prepared(INTERPRETER), program=program, folder="/state/work/run/2", uid="uid")


def test_the_environment_is_small_and_ours_wins() -> None:
    env = order_of(plan(Code(command=("true",)), env={"LANG": "de", "INVOKER_WORKDIR": "/etc", "X": "1"})).env
    assert env == {
        "PATH": f"/opt/python/bin:{order.SYSTEM_PATH}",
        "HOME": "/state/work/run/2",
        "TMPDIR": "/state/work/run/2",
        "LANG": "de",
        "X": "1",
        "INVOKER_WORKDIR": "/state/work/run/2",
        "INVOKER_POD_UID": "uid",
        "INVOKER_ATTEMPT_NUMBER": "2",
        "INVOKER_TERMINATION_FILE": "/state/work/run/2.termination",
    }


def test_modes_and_code_are_told() -> None:
    one = plan(
        Code(runtime="python", handler="main.handle", args=("-x",)),
        input=InputMode.FILE,
        output=OutputMode.STDOUT,
        limits=Limits(output_bytes=7, memory_bytes=9, log_tail_bytes=0),
    )
    told = order_of(one, Prepared(INTERPRETER, Path("/state/code/work-0"), folder_exists=True), None)
    assert told.argv == ["/opt/python/bin/python", "-I", "-u", runtime.ENTRY, "-x"]
    assert told.path == told.argv[0]
    assert told.env["INVOKER_INPUT_FILE"].startswith("/state/work/run/2/")
    assert told.env["INVOKER_CODE_DIR"] == "/state/code/work-0"
    assert told.env["INVOKER_HANDLER"] == "main.handle"
    assert told.env["INVOKER_OUTPUT_MODE"] == "stdout"
    assert (told.output_bytes, told.memory_bytes, told.make_folder, told.log_bytes) == (7, 9, False, 1)
    assert f"{told.mark.partition('=')[0]}={told.env['INVOKER_POD_UID']}" == told.mark


def test_a_program_beside_the_functions_file_is_taken_from_the_copy(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    copy.mkdir()
    (copy / "run.sh").write_text("#!/bin/sh\n")
    (copy / "run.sh").chmod(0o755)
    one = plan(Code(command=(str(source / "run.sh"), "a"), args=("b",), folder=source))
    assert order_of(one, Prepared(INTERPRETER, copy)).argv == [str(copy / "run.sh"), "a", "b"]
    (copy / "run.sh").unlink()
    with pytest.raises(StartRefusedError, match="does not exist"):
        order_of(one, Prepared(INTERPRETER, copy))


def test_programs_are_looked_for_where_the_function_says(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    programs = Programs(INTERPRETER)
    with pytest.raises(StartRefusedError, match=r"'tool', which is not installed here \(looked in /opt/python/bin"):
        programs.of(plan(Code(command=("tool",))))
    one = plan(Code(command=("tool",)), env={"PATH": str(tmp_path)})
    assert programs.of(one) == programs.of(one) == str(tool)
    tool.chmod(0o644)
    with pytest.raises(StartRefusedError, match="not installed here"):
        Programs(INTERPRETER).of(one)
    assert programs.of(plan(Code(runtime="python"))) is None


@pytest.mark.parametrize(
    ("code", "pod", "message"),
    [
        (Code(), {}, "neither runtime nor command"),
        (Code(command=()), {}, "an empty command"),
        (Code(image="x"), {}, "only names an image"),
        (Code(), {"job": {}}, "whole Job"),
        (Code(runtime="python"), {"job": {"template": {}}}, "has job, which only pods have"),
        *(
            (
                Code(command=("true",)),
                {"settings": {"labels": {"a": "b"}, key: [{"name": "x"}]}},
                f"has pod.{key}, which",
            )
            for key in ("envFrom", "volumes", "volumeMounts", "initContainers", "sidecars", "whateverComesNext")
        ),
    ],
)
def test_what_cannot_start_here(code: Code, pod: dict[str, Any], message: str) -> None:
    with pytest.raises(StartRefusedError, match=message):
        check_startable(plan(code, pod=pod))


def test_an_image_beside_a_command_is_no_obstacle() -> None:
    check_startable(plan(Code(image="x", command=("true",)), pod={"resources": {}, "volume": {"size": "1Gi"}}))


def test_where_and_as_whom_a_pod_runs_is_no_obstacle_and_every_setting_is_decided_about() -> None:
    ignored: dict[str, Any] = {key: {"some": "thing"} for key in order.IGNORED_POD_SETTINGS}
    check_startable(plan(Code(command=("true",)), pod={"settings": ignored | {"volumes": []}, "keepPod": True}))
    refused = {"envFrom", "volumes", "volumeMounts", "initContainers", "sidecars"}
    keys = {str(one.alias) for one in PodFields.model_fields.values()}
    assert keys == order.IGNORED_POD_SETTINGS | refused
    assert not order.IGNORED_POD_SETTINGS & refused


# removals


async def test_folders_go_when_their_time_has_come_and_in_that_order() -> None:
    gone: list[str] = []
    removals = Removals(gone.append)
    removals.add("late", 0.05)
    removals.add("early", 0.01)
    removals.add("now", 0)
    assert gone == ["now"]
    assert {name for name in ("early", "late", "now", "never") if name in removals} == {"early", "late", "now"}

    async def all_gone() -> bool:
        return gone == ["now", "early", "late"]

    await eventually(all_gone)
    assert "late" in removals, "its name is free a moment later"

    async def all_free() -> bool:
        return not any(name in removals for name in ("early", "late", "now"))

    await eventually(all_free)
    removals.close()


async def test_closed_removals_remove_nothing() -> None:
    gone: list[str] = []
    removals = Removals(gone.append)
    removals.add("folder", 0.01)
    removals.close()
    await asyncio.sleep(0.03)  # the time at which it would have gone
    assert gone == []


# code versions


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "state" / "code").mkdir(parents=True)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "main.py").write_text("one")
    (source / "sub" / "data").write_text("data")
    return source


def snapshots_in(tmp_path: Path, remove: Callable[[str], None]) -> Snapshots:
    return Snapshots(tmp_path / "state", remove)


async def test_a_version_is_copied_once(tmp_path: Path, source: Path) -> None:
    snapshots = snapshots_in(tmp_path, lambda folder: None)
    assert snapshots.use("f", "f-1", held=None) is None
    folders = await asyncio.gather(*(snapshots.make("f", "f-1", source, None, held=None) for _ in range(5)))
    assert len(set(folders)) == 1
    (source / "main.py").write_text("two")
    assert (folders[0] / "main.py").read_text() == "one"
    assert (folders[0] / "sub" / "data").read_text() == "data"
    assert snapshots.use("f", "f-1", held=None) == folders[0]
    assert [path.name for path in (tmp_path / "state" / "code").iterdir()] == ["f-1"]


async def test_an_old_version_goes_with_its_last_run(tmp_path: Path, source: Path) -> None:
    gone: list[str] = []
    snapshots = snapshots_in(tmp_path, gone.append)
    first = await snapshots.make("f", "f-1", source, None, held=None)
    snapshots.use("f", "f-1", held=None)
    snapshots.use("f", "f-1", held="f-1")  # another attempt of the second run
    await snapshots.make("f", "f-2", source, None, held=None)
    snapshots.leave("f", "f-1")
    assert gone == []
    snapshots.leave("f", "f-1")
    assert gone == [str(first)]


async def test_the_newest_version_stays_without_runs(tmp_path: Path, source: Path) -> None:
    gone: list[str] = []
    snapshots = snapshots_in(tmp_path, gone.append)
    first = await snapshots.make("f", "f-1", source, None, held=None)
    snapshots.leave("f", "f-1")
    assert gone == []
    second = await snapshots.make("f", "f-2", None, "inline", held=None)
    assert gone == [str(first)]
    assert (second / "main.py").read_text() == "inline"


async def test_a_copy_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path, source: Path) -> None:
    snapshots = snapshots_in(tmp_path, lambda folder: None)
    (source / "dangling").symlink_to("nowhere")
    with pytest.raises(OSError, match="dangling"):
        await snapshots.make("f", "f-1", source, None, held=None)
    assert list((tmp_path / "state" / "code").iterdir()) == []
    (source / "dangling").unlink()
    assert (await snapshots.make("f", "f-1", source, None, held=None)).exists()
