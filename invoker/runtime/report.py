"""Where a failure is told: the log (stderr) and the termination file. Nothing here raises.

Both programs of the runtime use it, the one that runs the handler and the one that fetches the input.
"""

from __future__ import annotations

import sys

from .settings import termination_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def say(text: str) -> None:
    """Write to the log, if anybody listens."""
    quietly(sys.stderr.write, text)
    quietly(sys.stderr.flush)


def write_note(data: bytes) -> None:
    """Write the termination file, where the engines look for a note or an output; without one do nothing."""
    path = termination_file()
    if not path:
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        say(f"invoker: the termination file cannot be written: {error}\n")


def flush() -> None:
    """Hand on what was printed, before a process is ended without asking anybody."""
    for stream in (sys.stdout, sys.stderr):
        quietly(stream.flush)


def quietly(act: Callable[..., Any], *arguments: Any) -> None:
    """Carry out what matters only when somebody listens (a closed pipe is no error of the function)."""
    try:  # noqa: SIM105 -- contextlib is an import more
        act(*arguments)
    except (OSError, ValueError, AttributeError):
        pass
