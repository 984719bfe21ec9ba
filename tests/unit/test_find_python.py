"""scripts/find-python on machines that have other Pythons, told by programs of those names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "find-python"

REAL = f'exec {sys.executable} "$@"'
OLD = 'case "$2" in *version_info\\ \\<*) exit 1;; *) echo "Python 3.9.2";; esac'
INCOMPLETE = f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac'


def find(folder: Path, programs: dict[str, str], wanted: str | None = None) -> subprocess.CompletedProcess[str]:
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    environ = {"PATH": str(folder)} | ({"PYTHON": wanted} if wanted else {})
    return subprocess.run(["/bin/sh", str(SCRIPT)], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({"python3": REAL}, "python3"),
        ({"python3": REAL, "python3.11": REAL, "python3.12": REAL}, "python3.12"),
        ({"python3": OLD, "python3.11": REAL}, "python3.11"),
        ({"python3.13": INCOMPLETE, "python3.12": REAL}, "python3.12"),
        ({"python3.13": "exit 127", "python3": REAL}, "python3"),
    ],
)
def test_the_newest_one_that_works_is_taken(tmp_path: Path, programs: dict[str, str], found: str) -> None:
    done = find(tmp_path, programs)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / found))


def test_a_chosen_one_is_taken(tmp_path: Path) -> None:
    done = find(tmp_path, {"python3.13": REAL, "mine": REAL}, wanted="mine")
    assert done.stdout.strip() == str(tmp_path / "mine")


def test_without_venv_it_says_which_package_brings_it(tmp_path: Path) -> None:
    done = find(tmp_path, {"python3": INCOMPLETE})
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in done.stderr


@pytest.mark.parametrize(("programs", "said"), [({}, "no python3 at all"), ({"python3": OLD}, "Python 3.9.2")])
def test_without_a_usable_python_it_says_what_is_wanted(tmp_path: Path, programs: dict[str, str], said: str) -> None:
    done = find(tmp_path, programs)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert said in done.stderr


def test_a_chosen_one_that_does_not_work_is_named(tmp_path: Path) -> None:
    done = find(tmp_path, {"python3": REAL}, wanted="python9")
    assert done.returncode == 1
    assert "PYTHON=python9" in done.stderr


def test_the_script_can_be_executed() -> None:
    assert os.access(SCRIPT, os.X_OK)
