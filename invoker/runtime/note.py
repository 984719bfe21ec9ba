"""The note of an attempt that failed: type, message, the tail of its traceback, and a reason where only we know it.

It goes to the termination file, where both engines look, as JSON of at most 4 KiB (what Kubernetes keeps). Making it
must work when nothing else does: after a MemoryError, with an exception whose text raises, with text that is no UTF-8.
"""

from __future__ import annotations

import os

from . import lean_json
from .exits import ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

MAX_NOTE_BYTES = 4096
MAX_TYPE_CHARACTERS = 200
MAX_MESSAGE_BYTES = 1024
MAX_TRACEBACK_BYTES = 2048
MAX_ERRORS = 20

_ABOVE_THE_HANDLER = (
    os.path.join(os.path.dirname(os.path.abspath(__file__)), ""),
    os.path.join(os.path.dirname(os.__file__), "asyncio", ""),
    "<frozen importlib",
)
"""Where frames lie that only lead to the function's own: the runtime, the loop it runs in, the import system."""


class AttemptFailedError(Exception):
    """The attempt has failed for a reason that needs no traceback of ours."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        reason: str | None = None,
        errors: list[dict[str, str]] | None = None,
        exit_code: int = ERROR,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason
        self.errors = errors
        self.exit_code = exit_code

    def note(self) -> dict[str, Any]:
        note: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.reason:
            note["reason"] = self.reason
        if self.errors:
            note["errors"] = self.errors[:MAX_ERRORS]
        return note


def encode_note(note: dict[str, Any]) -> bytes:
    """The note as JSON of at most 4 KiB, always valid: what is too long loses its less telling end."""
    fitting = {key: _clean(value) for key, value in note.items() if value is not None}
    fitting["type"] = str(fitting.get("type", ""))[:MAX_TYPE_CHARACTERS]
    fitting["message"] = beginning(str(fitting.get("message", "")), MAX_MESSAGE_BYTES)
    if "traceback" in fitting:
        fitting["traceback"] = tail(str(fitting["traceback"]), MAX_TRACEBACK_BYTES)
    while len(data := lean_json.dumps(fitting).encode()) > MAX_NOTE_BYTES:
        _shrink(fitting)
    return data


def beginning(text: str, limit: int) -> str:
    """The text's first bytes, at most that many, cut between characters."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


def tail(text: str, limit: int) -> str:
    """The text's last bytes, at most that many, cut between characters: a traceback ends with what matters."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else "…" + data[3 - limit :].decode("utf-8", "ignore")


def name_of(error: BaseException) -> str:
    """The exception's type as its author would write it."""
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def is_final(error: BaseException) -> bool:
    """Whether the exception says that another attempt would end in the same way: its `retryable` is False.

    An attribute, since a handler cannot import a class of ours: the runtime is not on its path.
    """
    try:
        return getattr(error, "retryable", None) is False
    except Exception:  # a property of the function's own
        return False


def words_of(error: BaseException) -> str:
    """The exception's text, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception as failure:  # a broken __str__ of the function's own
        return f"(its text cannot be had: {type(failure).__name__})"


def traceback_of(error: BaseException) -> str:
    """The traceback of the function's own frames, with causes; ours above them say nothing to anybody."""
    import traceback

    return "".join(traceback.format_exception(type(error), error, own_frames(error.__traceback__)))


def stood_at(error: BaseException) -> list[tuple[str, int, str]]:
    """File, line and function of each of the function's own frames that were running, the outermost first."""
    found, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_ABOVE_THE_HANDLER):
            found.append((code.co_filename, trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    return found


def frames_of(frames: list[tuple[str, int, str]]) -> str | None:
    """The frames as a traceback shows them, without an exception; None when there are none."""
    if not frames:
        return None
    import traceback

    shown = traceback.format_list([traceback.FrameSummary(*frame) for frame in frames])
    return "".join(["Traceback (most recent call last):\n", *shown])


def lean_traceback(error: BaseException) -> str:
    """The traceback without source lines and without an import; frees what its frames hold, so a `MemoryError` that
    was caused by them leaves room to report it."""
    lines = ["Traceback (most recent call last):\n"]
    position = own_frames(error.__traceback__)
    while position is not None:
        code = position.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {position.tb_lineno}, in {code.co_name}\n')
        try:  # noqa: SIM105 -- contextlib is an import more, and there is no memory for it
            position.tb_frame.clear()
        except RuntimeError:
            pass  # still running: ours
        position = position.tb_next
    error.__traceback__ = None
    return "".join([*lines, f"{name_of(error)}: {words_of(error)}\n"])


def own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the function's first frame on; None when it has none."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_ABOVE_THE_HANDLER):
        trace = trace.tb_next
    return trace


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [{str(k): _clean(str(v)) for k, v in each.items()} for each in value if isinstance(each, dict)]
    return value


def _shrink(note: dict[str, Any]) -> None:
    trace, errors = note.get("traceback"), note.get("errors")
    if trace:
        note["traceback"] = tail(trace, len(trace.encode()) // 2) if len(trace) > 64 else ""
    elif errors and len(errors) > 1:
        note["errors"] = errors[: len(errors) // 2]
    elif errors:
        note.pop("errors")
    else:
        note["message"] = beginning(note["message"], max(3, len(note["message"].encode()) // 2))
        note["type"] = note["type"][:50]
