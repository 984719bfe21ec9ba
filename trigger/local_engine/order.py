"""From a plan and an attempt's number to what the spawner is told: command, environment, folders.

Pure, save that `find_program` looks at the file system.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from invoker import runtime
from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.local_engine.protocol import Order
from trigger.plan import InputMode, OutputMode, RunPlan

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUNTIMES = frozenset({"python"})
INPUT_NAME = ".invoker-input"
RUNTIME_PROGRAM = runtime.ENTRY
IGNORED_POD_SETTINGS = frozenset(
    {
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "serviceAccountName",
        "priorityClassName",
        "runtimeClassName",
        "imagePullPolicy",
        "imagePullSecrets",
        "terminationGracePeriodSeconds",
        "securityContext",
        "readOnlyRootFilesystem",
        "labels",
        "annotations",
        "queue",
    }
)
"""Where a pod runs, as whom and how it is found: a process here does the same work without."""
MAX_REMEMBERED_PROGRAMS = 1000
LOOK_AGAIN_SECONDS = 1.0


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
    """What `runtime: python` is started with, and the `PATH` that goes with it."""

    python: str
    path: str

    @classmethod
    def at(cls, python: str) -> Interpreter:
        """The interpreter in its environment: what is installed beside it is found first."""
        return cls(python, f"{os.path.dirname(python)}:{SYSTEM_PATH}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an attempt starts with. `code_folder` is its version's copy of the code, `folder_exists` says that its work
    folder was made for its input, `values` are those of the variables that refer to Secrets and ConfigMaps."""

    interpreter: Interpreter
    code_folder: Path | None = None
    folder_exists: bool = False
    values: Mapping[str, str] = field(default_factory=dict)


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
    if keys := _of_pods_only(plan.pod):
        text = f"has {', '.join(keys)}, which only pods have"
        _refuse(plan, text, hint="leave that out, or use the kubernetes engine: `invoker dev --engine kubernetes`")


def _without_command(plan: RunPlan) -> str:
    if plan.code.image is not None:
        return (
            f"only names an image ({plan.code.image}); the kubernetes engine runs images: "
            "`invoker dev --engine kubernetes`, or give runtime or command"
        )
    if "job" in plan.pod:
        return "is a whole Job; the kubernetes engine runs those: `invoker dev --engine kubernetes`"
    return "has neither runtime nor command"


def _of_pods_only(pod: Mapping[str, object]) -> list[str]:
    """What a process would miss: variables, files, containers beside it. Where and as whom a pod runs it would not."""
    settings = pod.get("settings")
    if isinstance(settings, Mapping):
        return [f"pod.{key}" for key, value in settings.items() if value and key not in IGNORED_POD_SETTINGS]
    return ["job"] if "job" in pod else []


def _refuse(plan: RunPlan, text: str, reason: Reason = Reason.CONFIG, hint: str | None = None) -> None:
    raise StartRefusedError(f"function {plan.function} {text}", hint=hint, reason=str(reason))


class Programs:
    """Finds the programs of commands, and remembers for a second where they were."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._path = interpreter.path
        self._found: dict[tuple[str, str], tuple[str, float]] = {}

    def of(self, plan: RunPlan) -> str | None:
        """The file of the plan's command, None for a runtime. Raises `StartRefusedError` when it cannot be run."""
        if plan.code.command is None:
            return None
        key = plan.code.command[0], plan.env.get("PATH", self._path)
        now = time.monotonic()
        found, looked_at = self._found.get(key, ("", 0.0))
        if now - looked_at > LOOK_AGAIN_SECONDS:
            if len(self._found) >= MAX_REMEMBERED_PROGRAMS:
                self._found.clear()
            found = find_program(plan, *key)
            self._found[key] = found, now
        return found


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


def make_order(plan: RunPlan, number: int, prepared: Prepared, *, program: str | None, folder: str, uid: str) -> Order:
    """What the spawner is told for one attempt. `program` is the file of the plan's command, as found at the start.

    Raises `StartRefusedError` when a program out of the function's own folder is not in this version's copy.
    """
    places = Places(folder)
    argv = command_of(plan, prepared, program)
    return Order(
        path=argv[0],
        argv=argv,
        env=environment(plan, number, places, uid, prepared),
        folder=folder,
        make_folder=not prepared.folder_exists,
        mark=f"INVOKER_POD_UID={uid}",
        memory_bytes=plan.limits.memory_bytes,
        log_bytes=max(1, plan.limits.log_tail_bytes),
        output_bytes=plan.limits.output_bytes if plan.output is OutputMode.STDOUT else None,
        spool=places.spool,
        termination=places.termination,
    )


def command_of(plan: RunPlan, prepared: Prepared, program: str | None) -> list[str]:
    """The command with its program's full path."""
    code = plan.code
    if code.command is None:
        return [prepared.interpreter.python, "-I", "-u", RUNTIME_PROGRAM, *code.args]
    name, *rest = code.command
    if code.folder is not None and prepared.code_folder is not None and Path(name).is_relative_to(code.folder):
        # A program beside the function's file is run from the copy of it that belongs to this version.
        program = find_program(plan, str(prepared.code_folder / Path(name).relative_to(code.folder)), "")
    assert program is not None, "found by check_program"
    return [program, *rest, *code.args]


def environment(plan: RunPlan, number: int, places: Places, uid: str, prepared: Prepared) -> dict[str, str]:
    """All the child sees: a small base, the plan's own variables, ours. Nothing of the controller's environment."""
    env = {
        "PATH": prepared.interpreter.path,
        "HOME": places.folder,
        "TMPDIR": places.folder,
        "LANG": "C.UTF-8",
        **plan.env,
        **prepared.values,
        "INVOKER_WORKDIR": places.folder,
        "INVOKER_POD_UID": uid,
        "INVOKER_ATTEMPT_NUMBER": str(number),
        "INVOKER_TERMINATION_FILE": places.termination,
    }
    if plan.output is not OutputMode.API:
        env.setdefault("INVOKER_OUTPUT_MODE", str(plan.output))
    if plan.input is InputMode.FILE:
        env["INVOKER_INPUT_FILE"] = places.input
    if prepared.code_folder is not None:
        env["INVOKER_CODE_DIR"] = str(prepared.code_folder)
    if plan.code.runtime is not None and plan.code.handler is not None:
        env["INVOKER_HANDLER"] = plan.code.handler
    return env
