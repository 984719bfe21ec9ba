"""From a plan and an attempt's number to what the spawner is told: command, environment, folders.

Pure, save that `find_program` looks at the file system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.local_engine.protocol import Order
from trigger.plan import InputMode, OutputMode, RunPlan

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUNTIMES = frozenset({"python"})
INPUT_NAME = ".invoker-input"


@dataclass(frozen=True, slots=True)
class Places:
    """Where one attempt lives. `folder` is its work folder, the other files lie beside it so that it begins empty."""

    folder: str

    @property
    def spool(self) -> str:
        return f"{self.folder}.stdout"

    @property
    def termination(self) -> str:
        return f"{self.folder}.termination"

    @property
    def input(self) -> str:
        return f"{self.folder}/{INPUT_NAME}"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What `runtime: python` is started with: the interpreter, and the folder of its programs for `PATH`."""

    python: str
    programs: str


def check_startable(plan: RunPlan) -> None:
    """Raise `StartRefusedError`, in words for the function's owner, for a plan that cannot run as a local process.

    `fields["reason"]` is the reason the run ends with.
    """
    code = plan.code
    if code.runtime is None and code.command is None:
        _refuse(plan, _without_command(plan), Reason.REFUSED)
    if code.runtime is not None and code.runtime not in RUNTIMES:
        _refuse(plan, f"has the runtime {code.runtime!r}; the local engine knows {', '.join(sorted(RUNTIMES))}")
    if code.command is not None and not code.command:
        _refuse(plan, "has an empty command")
    if names := _references(plan.pod):
        text = f"refers to secrets or configuration that the local engine cannot read: {', '.join(names)}"
        _refuse(plan, text, hint="give the variables a plain value, or use the kubernetes engine")


def _without_command(plan: RunPlan) -> str:
    if plan.code.image is not None:
        return (
            f"only names an image ({plan.code.image}); the kubernetes engine runs images: "
            "`invoker dev --engine kubernetes`, or give runtime or command"
        )
    if "job" in plan.pod:
        return "is a whole Job; the kubernetes engine runs those: `invoker dev --engine kubernetes`"
    return "has neither runtime nor command"


def _references(pod: Mapping[str, object]) -> list[str]:
    entries = pod.get("env") or ()
    if not isinstance(entries, list | tuple):
        return []
    return [str(entry.get("name")) for entry in entries if isinstance(entry, Mapping) and entry.get("valueFrom")]


def _refuse(plan: RunPlan, text: str, reason: Reason = Reason.CONFIG, hint: str | None = None) -> None:
    raise StartRefusedError(f"function {plan.function} {text}", hint=hint, reason=str(reason))


def check_program(plan: RunPlan, interpreter: Interpreter) -> None:
    """Raise `StartRefusedError` when the command's program is not there, or cannot be run."""
    if plan.code.command is not None:
        find_program(plan, plan.code.command[0], plan.env.get("PATH", search_path(interpreter)))


def find_program(plan: RunPlan, name: str, path: str) -> str:
    """The file that `name` runs. Raises `StartRefusedError` with reason `config` when there is none that can be run."""
    found = shutil.which(name, path=path)
    if found is not None:
        return os.path.abspath(found)
    if "/" not in name:
        _refuse(plan, f"runs {name!r}, which is not installed here (looked in {path})")
    if not os.path.exists(name):
        _refuse(plan, f"runs {name}, which does not exist")
    _refuse(plan, f"runs {name}, which is not an executable file")
    raise AssertionError("unreachable: refused above")


def search_path(interpreter: Interpreter) -> str:
    return f"{interpreter.programs}:{SYSTEM_PATH}"


def make_order(
    plan: RunPlan,
    *,
    folder: str,
    uid: str,
    interpreter: Interpreter,
    runtime_program: str,
    code_folder: Path | None,
    folder_exists: bool,
) -> Order:
    """What the spawner is told for one attempt; the program is found by now (`find_program`), its words are final."""
    places = Places(folder)
    argv = command_of(plan, interpreter, runtime_program, code_folder)
    return Order(
        path=argv[0],
        argv=argv,
        env=environment(plan, places, uid, interpreter, code_folder),
        folder=folder,
        make_folder=not folder_exists,
        mark=f"INVOKER_POD_UID={uid}",
        memory_bytes=plan.limits.memory_bytes,
        log_bytes=max(1, plan.limits.log_tail_bytes),
        output_bytes=plan.limits.output_bytes if plan.output is OutputMode.STDOUT else None,
        spool=places.spool,
        termination=places.termination,
    )


def command_of(plan: RunPlan, interpreter: Interpreter, runtime_program: str, code_folder: Path | None) -> list[str]:
    """The command with its program's full path."""
    if plan.code.runtime is not None:
        return [interpreter.python, "-u", runtime_program, *plan.code.args]
    assert plan.code.command is not None, "checked by check_startable"
    name, *rest = plan.code.command
    name = _in_snapshot(name, plan.code.folder, code_folder)
    path = plan.env.get("PATH", search_path(interpreter))
    return [find_program(plan, name, path), *rest, *plan.code.args]


def _in_snapshot(name: str, source: Path | None, snapshot: Path | None) -> str:
    """A program beside the function's file is run from the copy of it that belongs to this version."""
    if source is None or snapshot is None or not Path(name).is_relative_to(source):
        return name
    return str(snapshot / Path(name).relative_to(source))


def environment(
    plan: RunPlan, places: Places, uid: str, interpreter: Interpreter, code_folder: Path | None
) -> dict[str, str]:
    """All the child sees: a small base, the plan's own variables, ours. Nothing of the controller's environment."""
    env = {
        "PATH": search_path(interpreter),
        "HOME": places.folder,
        "TMPDIR": places.folder,
        "LANG": "C.UTF-8",
        **plan.env,
        "INVOKER_WORKDIR": places.folder,
        "INVOKER_POD_UID": uid,
        "INVOKER_TERMINATION_FILE": places.termination,
    }
    if plan.input is InputMode.FILE:
        env["INVOKER_INPUT_FILE"] = places.input
    if code_folder is not None:
        env["INVOKER_CODE_DIR"] = str(code_folder)
    if plan.code.runtime is not None and plan.code.handler is not None:
        env["INVOKER_HANDLER"] = plan.code.handler
    return env
