"""`invoker dev --logs`: what a run wrote stands below its end, the last lines of it when there are many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import Desk, until

pytestmark = pytest.mark.acceptance

WRITES = """\
def handle(event, context):
    for number in range(int(event["data"])):
        print("line", number, "\\x1b[31m")
    raise ValueError("enough") if event["data"] == "2" else SystemExit(0)
"""
QUIET = "def handle(event, context): return 'done'\n"
TRIES = """\
import os
def handle(event, context):
    os.write(1, b"try")
    os._exit(1)
"""
ANSWERS = """\
def handle(event, context):
    print("looked at", event["data"])
    return "done"
"""


def test_every_attempt_of_a_run_has_a_heading(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.function("tries", TRIES, more=["backoffLimit: 2"])
    with desk.dev("--logs"):
        assert desk.run("publish", "tries", "x", "--request-id", "tries-1", "--wait", "100").code == 3
        until(lambda: desk.out().count("│ try\n") == 3 or None, what="the log")
        heard = until(
            lambda: (ran := desk.run("runs", "logs", "tries-1")).lines == ["try"] * 3 and ran, what="the kept log"
        )
        assert heard.err.splitlines() == ["--- attempt 2", "--- attempt 3"]
        told = [json.loads(line) for line in desk.does("runs", "logs", "tries-1", "-o", "json").lines]
    assert [one["text"] for one in told] == ["try"] * 3
    assert [line.split("│ ")[1] for line in desk.out().splitlines() if "│ " in line] == [
        "try", "--- attempt 2", "try", "--- attempt 3", "try",
    ]  # fmt: skip


def test_what_a_run_wrote_stands_below_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.function("writes", WRITES)
    desk.function("quiet", QUIET)
    desk.function("answers", ANSWERS)
    with desk.dev("--logs"):
        desk.does("publish", "writes", "2")
        until(lambda: "│ ValueError: enough" in desk.out() or None, what="the log")
        desk.run("publish", "writes", "40", "--wait", "100")
        until(lambda: "line 39" in desk.out() or None, what="the longer log")
        desk.does("publish", "answers", "the goods", "--wait", "100")
        until(lambda: "answers        │ looked at the goods" in desk.out() or None, what="the log of a good end")
        desk.run("publish", "quiet", "x", "--wait", "100")
        until(lambda: "✓ quiet" in desk.out() or None, what="the end of the last run")
    lines = desk.out().splitlines()
    ended = next(number for number, line in enumerate(lines) if "✗ writes" in line)
    assert lines[ended + 1].split() == ["writes", "│", "line", "0", "\\x1b[31m"]
    assert any("line" in line and "before" in line and "…" in line for line in lines)
    assert sum("│ line" in line for line in lines) < 2 + 40
    assert "✓ quiet" in lines[-1]
