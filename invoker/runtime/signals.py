"""SIGTERM: raised where the program stands, so that `finally` blocks run, and sure to end it all the same.

In a container the runtime is process 1, which the kernel spares: a signal that it has no handler for does nothing to
it, not even the one that would end any other process. So process 1 always has a handler.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, which takes 4 ms to import
import os

from .exits import TERMINATED
from .report import flush

arrived: list[bool] = []
"""Not empty once a signal has come."""


class Terminated(SystemExit):
    """SIGTERM, raised where the program stands."""


def listen() -> None:
    """Raise `Terminated` at the first SIGTERM, end the process at the second."""
    _signal.signal(_signal.SIGTERM, _terminate)


def end() -> None:
    """End the process at once with 143: threads of the function must not keep what was told to end."""
    flush()
    os._exit(TERMINATED)


def _terminate(signal_number: int, frame: object) -> None:
    # Once: a handler that catches it, or takes too long over it, is ended by the next one without being asked.
    _signal.signal(_signal.SIGTERM, _end_at_once if os.getpid() == 1 else _signal.SIG_DFL)
    arrived.append(True)
    raise Terminated(TERMINATED)


def _end_at_once(signal_number: int, frame: object) -> None:
    os._exit(TERMINATED)
