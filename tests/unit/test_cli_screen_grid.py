"""Tables on a terminal: a long cell is cut, and takes no other column away."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from invoker.cli.screen import fitted, function_rows, function_screen, grid
from invoker.views import FunctionInfo
from trigger.consumers import Backlog
from trigger.describe import describe_function
from trigger.function_code import FunctionFolder
from trigger.function_file import read_functions

LONG = "import sys, json, os; print(json.load(open(os.environ['INVOKER_INPUT_FILE'])))"


def lines_of(width: int) -> list[str]:
    functions = [
        FunctionInfo(name="hello", status="ready", runtime="python", description="Greets whoever the event names"),
        FunctionInfo(name="report", status="ready", command=("python3", "-c", LONG), description="One line a region"),
    ]
    target = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    target.print(function_rows(functions))
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140, 400])
def test_a_long_command_takes_no_other_column_away(width: int) -> None:
    head, hello, report = lines_of(width)
    assert [line.split()[:2] for line in (head, hello, report)] == [
        ["NAME", "STATUS"], ["hello", "ready"], ["report", "ready"],
    ]  # fmt: skip
    assert "RUNNING" in head
    assert "python3" in report
    assert all(len(line) <= width for line in (head, hello, report))
    assert (LONG in report) is (width == 400)


def test_a_program_beside_its_file_is_shown_as_it_is_written_there() -> None:
    beside = FunctionInfo(
        name="sum", status="ready", file="etl/sum/function.yaml", command=("/srv/my functions/etl/sum/sum.sh", "--all")
    )
    elsewhere = FunctionInfo(name="ls", status="ready", file="ls/function.yaml", command=("/bin/ls", "/srv/ls/x"))
    target = Console(file=io.StringIO(), width=400, markup=False, highlight=False, emoji=False)
    target.print(function_rows([beside, elsewhere]), function_screen(beside))
    assert isinstance(target.file, io.StringIO)
    text = target.file.getvalue()
    assert text.count(" ./sum.sh --all") == 2
    assert "/srv/my functions" not in text
    assert "/bin/ls /srv/ls/x" in text


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [((), "attempts   3\n"), ((2, 64), "attempts   3, no further one after exit code 2 or 64\n")],
)
def test_a_function_is_shown_with_the_exit_codes_that_end_it(codes: tuple[int, ...], wanted: str) -> None:
    spec = f"runtime: python, code: 'def handle(event, context): pass', backoffLimit: 2, noRetryExitCodes: {[*codes]}"
    text = f"{{apiVersion: invoker.dev/v1alpha1, kind: Function, metadata: {{name: f}}, spec: {{{spec}}}}}"
    read = read_functions(text.encode(), "f.yaml", FunctionFolder(Path("/x"), {})).functions
    told = FunctionInfo.model_validate(describe_function(read[0], None, Backlog(0, 0, False)))
    assert told.no_retry_exit_codes == codes
    target = Console(file=io.StringIO(), width=400, markup=False, highlight=False, emoji=False)
    target.print(function_screen(told))
    assert isinstance(target.file, io.StringIO)
    assert wanted in target.file.getvalue()


def test_the_widest_columns_give_way_first() -> None:
    assert fitted([4, 50, 6, 30], 100) == [4, 50, 6, 30]
    assert fitted([4, 50, 6, 30], 50) == [4, 20, 6, 20]
    assert fitted([4, 50, 6, 12], 50) == [4, 28, 6, 12]
    assert fitted([9, 9], 4) == [2, 2]
    assert fitted([], 10) == []
    assert fitted([5, 5], 0) == [1, 1]


def test_a_grid_with_no_rows_shows_its_heads() -> None:
    target = Console(file=io.StringIO(), width=40)
    target.print(grid(["A", "B"], []))
    assert isinstance(target.file, io.StringIO)
    assert target.file.getvalue().split() == ["A", "B"]
