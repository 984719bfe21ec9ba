"""What a user sees of an error: three lines at most, and the exit code.

`error: what happened  [code]`, then the cause, then the command to try. Pure, and free of heavy imports: it also
reports errors from before anything else was loaded.
"""

from __future__ import annotations

from invoker.errors import InvokerError

_TRY = {
    "server-unreachable": "invoker dev",
    "unknown": "invoker runs list",
    "expired": "invoker runs list",
    "ambiguous-id": "invoker runs list -o wide",
    "claim-check": "invoker result {request_id} -o json",
    "no-subscription": "invoker explain {topic}",
    "invalid-input": "invoker functions describe {function}",
    "run-failed": "invoker runs describe {run_id}",
    "wait-expired": "invoker result {request_id} --wait 60",
}
"""The command that helps, by the error's code; one with a field that the error does not have is left out."""

MAX_LINE = 400


def lines_of(error: InvokerError) -> list[str]:
    """One to three printable lines about the error, the first of them with its code in brackets."""
    lines = [f"error: {_one_line(error.message)}  [{error.code}]"]
    if cause := _cause(error):
        lines.append(f"  {_one_line(cause)}")
    if command := _command(error):
        lines.append(f"  try: {_one_line(command)}")
    return lines


def _cause(error: InvokerError) -> str | None:
    problems = error.fields.get("errors")
    if isinstance(problems, list | tuple) and problems and "pointer" in problems[0]:
        told = [f"{one.get('pointer') or '/'}: {one.get('detail', '')}" for one in problems[:5]]
        return "; ".join(told) if any(str(one.get("detail", "")) not in error.message for one in problems[:5]) else None
    return None if _hint_is_command(error) else error.hint


def _hint_is_command(error: InvokerError) -> bool:
    return error.hint is not None and error.hint.startswith("invoker ")


def _command(error: InvokerError) -> str | None:
    given = error.fields.get("try_command")
    if isinstance(given, str):
        return given
    if _hint_is_command(error):
        return error.hint
    try:
        return _TRY.get(error.code, "").format(**error.fields)
    except (KeyError, IndexError):
        return None


def _one_line(text: str) -> str:
    """The text as one line without control characters: it may come from a function or from another user."""
    line = " / ".join(part.strip() for part in text.splitlines() if part.strip())
    return printable(line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…")


def printable(text: str) -> str:
    """The text with every control character spelled out, so that it cannot move a cursor or set a colour."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
