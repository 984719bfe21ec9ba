"""The command tree without a server: what it imports, where options may stand, how errors end, its reference page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import errors
from invoker.cli import reference, tree

ROOT = Path(__file__).parents[2]
LOADED = """
import sys
sys.argv = ["invoker", "--version"]
import invoker.__main__
try:
    invoker.__main__.main()
except SystemExit:
    print(*sys.modules)
"""
HEAVY = {"nats", "rich", "yaml", "starlette", "uvicorn", "structlog", "prometheus_client", "jsonschema_rs", "trigger"}


def test_the_version_imports_nothing_but_typer() -> None:
    told = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=ROOT)
    version, *names = told.stdout.split("\n", 1)
    modules = set("".join(names).split())
    assert version.startswith("invoker ")
    assert HEAVY & modules == set()
    ours = {name for name in modules if name.startswith("invoker.") and not name.startswith("invoker.cli")}
    assert ours == {"invoker.__main__", "invoker.errors", "invoker.quantities", "invoker.version"}
    assert "asyncio" not in modules


@pytest.mark.parametrize(
    ("given_line", "wanted"),
    [
        ("runs list -v", "-v runs list"),
        ("runs list --server nats://x:1 -o json", "--server nats://x:1 runs list -o json"),
        ("runs --server=nats://x:1 list", "--server=nats://x:1 runs list"),
        ("publish x --creds", "publish x --creds"),
        ("publish -- -v --server y", "publish -- -v --server y"),
        ("publish x -q -- -q", "-q publish x -- -q"),
    ],
)
def test_global_options_are_moved_to_the_front(given_line: str, wanted: str) -> None:
    assert tree.hoisted(given_line.split()) == wanted.split()


@given(st.lists(st.sampled_from(["a", "-q", "--server", "--server=u", "--", "-o", "json", "--no-color"])))
def test_moving_options_loses_and_invents_nothing(arguments: list[str]) -> None:
    moved = tree.hoisted(arguments)
    assert sorted(moved) == sorted(arguments)
    if "--" in arguments:
        tail = arguments[arguments.index("--") :]
        assert moved[len(moved) - len(tail) :] == tail or "--server" in arguments


def test_an_error_of_ours_is_found_in_a_group() -> None:
    ours = errors.SettingsError("INVOKER_X: no")
    group = BaseExceptionGroup("tasks", [ValueError(), ExceptionGroup("inner", [OSError(), ours])])
    assert tree.first_of_ours(group) is ours
    assert tree.first_of_ours(ExceptionGroup("x", [ValueError()])) is None


def test_the_page_is_what_the_program_says() -> None:
    """After a change of a command: `python -m invoker.cli.reference > docs/cli.md`."""
    assert (ROOT / "docs" / "cli.md").read_text() == reference.page()


def test_every_exit_code_is_documented() -> None:
    used = reference.known_exit_codes() | {0, tree.USAGE, tree.INTERNAL, tree.INTERRUPTED}
    assert used == set(reference.EXIT_CODES)


def test_groups_and_the_program_itself_show_their_help() -> None:
    for arguments in ([], ["runs"], ["functions"], ["dead"]):
        told = subprocess.run(
            [sys.executable, "-m", "invoker", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert told.stdout.startswith("Usage: invoker")
        assert told.stderr == ""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["runs", "list", "--help"], []])
def test_help_and_version_that_cannot_be_written_are_told_as_such(arguments: list[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("wb") as out:
        command = [sys.executable, "-m", "invoker", *arguments]
        told = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    wanted = "error: standard output cannot be written: No space left on device  [internal]\n"
    assert (told.stderr, told.returncode) == (wanted, 1)


def test_an_unexpected_error_is_one_line_and_debug_shows_the_rest(tmp_path: Path) -> None:
    """A catalog whose folder is no folder at all breaks inside; what the user sees is a sentence."""
    program = "import sys, invoker.cli.tree as t\nt.typer.main.get_command = None\nsys.exit(t.run(['--version']))"
    plain = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env={})
    assert plain.returncode == 1
    assert plain.stderr.splitlines() == [
        "error: TypeError: 'NoneType' object is not callable  [internal]",
        "  INVOKER_DEBUG=1 shows the traceback",
    ]
    debug = {"INVOKER_DEBUG": "1"}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=debug)
    assert "Traceback" in told.stderr
