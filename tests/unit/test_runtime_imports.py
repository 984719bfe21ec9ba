"""What the runtime imports: the standard library only, and nothing of it that a function's start would pay for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from invoker.runtime import ENTRY

HEAVY = {
    "asyncio", "base64", "collections", "contextlib", "dataclasses", "datetime", "enum", "functools", "hashlib", "http",
    "importlib", "inspect", "json", "logging", "mimetypes", "pathlib", "re", "selectors", "signal", "socket", "ssl",
    "tempfile", "threading", "traceback", "typing", "urllib",
}  # fmt: skip

PROBE = """
import sys
before = set(sys.modules)
source = open({entry!r}).read().replace("sys.exit(main())", "")
exec(compile(source, {entry!r}, "exec"), {{"__file__": {entry!r}, "__package__": None}})
print(*sorted(set(sys.modules) - before))
"""
"""Runs the entry file as Python does, but for its last line, and tells what was imported."""


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={}, timeout=60, check=False)


def test_started_as_a_file_it_loads_nothing_heavy_and_nothing_of_ours() -> None:
    process = started("-I", "-S", "-c", PROBE.format(entry=ENTRY))
    assert process.returncode == 0, process.stderr
    loaded = set(process.stdout.split())
    assert "invoker_runtime.attempt" in loaded, "the probe looked at something else"
    others = {name for name in loaded if not name.startswith("invoker_runtime")}
    assert others & HEAVY == set()
    assert not any(name == "invoker" or name.startswith("invoker.") for name in loaded)
    assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names


def test_imported_as_a_part_of_invoker_it_loads_the_standard_library_only() -> None:
    root = str(Path(ENTRY).parents[2])
    imports = "import invoker.runtime.attempt, invoker.runtime.typed; print(*sys.modules)"
    process = started("-I", "-S", "-c", f"import sys; sys.path.insert(0, {root!r}); {imports}")
    assert process.returncode == 0, process.stderr
    loaded = set(process.stdout.split())
    ours = {name for name in loaded if name.split(".")[0] == "invoker"}
    assert {name for name in ours if not name.startswith("invoker.runtime")} <= {"invoker", "invoker.version"}
    assert {name.split(".")[0] for name in loaded - ours} <= sys.stdlib_module_names | {"__main__"}


def test_without_its_environment_it_says_what_it_is() -> None:
    for arguments in (["-I", ENTRY], ["-m", "invoker.runtime"]):
        process = started(*arguments)
        assert process.returncode == 1
        assert process.stderr == (
            "invoker: SettingsError: INVOKER_HANDLER is not set: this program is started by an engine of Invoker\n"
        )
