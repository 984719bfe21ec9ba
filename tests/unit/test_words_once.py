"""What a user reads is said once, with where to go on: errors of fields, the end of a demo, a run that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from invoker.cli.demo import activation
from invoker.cli.failure import lines_of
from invoker.cli.screen import run_screen
from invoker.errors import SchemaViolationError
from invoker.request import RequestRecord
from invoker.result import State
from invoker.views import RequestView, RunView
from tests.unit.test_cli_screen import drawn


def test_a_field_that_the_message_names_is_not_named_again() -> None:
    problems = [{"pointer": "/quantity", "detail": "must be at least 1"}]
    told = SchemaViolationError("hello refused the input: /quantity: must be at least 1", errors=problems)
    assert lines_of(told) == ["error: hello refused the input: /quantity: must be at least 1  [invalid-input]"]
    problems.append({"pointer": "/id", "detail": "is required"})
    more = SchemaViolationError("hello refused the input: /quantity: must be at least 1", errors=problems)
    assert lines_of(more)[1] == "  /quantity: must be at least 1; /id: is required"


def test_the_demo_ends_with_a_command_that_the_shell_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    interpreter = str(tmp_path / ".venv" / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    assert activation(None, interpreter) == ""  # no environment: an installation
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    assert activation(None, interpreter) == ". .venv/bin/activate && "
    assert activation("/usr/bin/invoker", interpreter) == ""


def test_a_run_that_waits_shows_its_topic_and_since_when() -> None:
    since = datetime.now(UTC) - timedelta(minutes=5)
    record = RequestRecord(
        request_id="r1", topic="orders.new", received_at=since, accepted_at=since, sha256="", catalog="c",
        functions=("hello",), root_request_id="r1",
    )  # fmt: skip
    run = RunView("r1", "run1", "hello", State.QUEUED, None, None)
    told = drawn(run_screen(run, RequestView("r1", "orders.new", record, (run,))))
    assert "r1  orders.new" in told
    assert ", 5 m 0" in told
