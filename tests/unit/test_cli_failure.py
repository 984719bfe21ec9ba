"""An error on the screen: three lines at most, printable, with its code and the command to try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invoker import errors
from invoker.cli.failure import lines_of, printable


def test_message_cause_and_command() -> None:
    error = errors.ServerUnreachableError("no NATS at 127.0.0.1:4222", hint="connection refused")
    assert lines_of(error) == [
        "error: no NATS at 127.0.0.1:4222  [server-unreachable]",
        "  connection refused",
        "  try: invoker dev",
    ]


def test_a_command_needs_its_fields() -> None:
    assert lines_of(errors.RunFailedError("x failed", run_id="r1"))[-1] == "  try: invoker runs describe r1"
    assert lines_of(errors.RunFailedError("x failed")) == ["error: x failed  [run-failed]"]


def test_an_error_may_bring_its_own_command() -> None:
    error = errors.InputRefusedError("no", try_command="invoker publish x")
    assert lines_of(error) == ["error: no  [invalid-request]", "  try: invoker publish x"]


def test_problems_of_a_schema_take_one_line() -> None:
    problems = [{"pointer": "", "detail": '"name" is required'}, {"pointer": "/nme", "detail": "unknown field"}]
    error = errors.SchemaViolationError("the event does not fit hello", errors=problems, function="hello")
    assert lines_of(error) == [
        "error: the event does not fit hello  [invalid-input]",
        '  /: "name" is required; /nme: unknown field',
        "  try: invoker functions describe hello",
    ]


def _subclasses(kind: type[errors.InvokerError]) -> list[type[errors.InvokerError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _subclasses(below))]


@given(st.sampled_from(_subclasses(errors.InvokerError)), st.text(), st.none() | st.text())
def test_three_printable_lines_whatever_the_text(
    kind: type[errors.InvokerError], message: str, hint: str | None
) -> None:
    lines = lines_of(kind(message, hint=hint, run_id=message, request_id=message))
    assert 1 <= len(lines) <= 3
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith(f"[{kind.code}]")


def test_escape_sequences_are_spelled_out() -> None:
    assert printable("a\x1b[31mred\x07é") == "a\\x1b[31mred\\x07é"
