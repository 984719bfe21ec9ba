"""The command line `invoker`: one module per command group, the entry point here.

Nothing heavy is imported before a command needs it: `invoker --version` loads Typer and little else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with a documented exit code; no error of a user ends in a traceback.

    Exit codes: 0 done, 1 internal error, 2 usage, 3 a run failed, 4 unknown id, 5 waited in vain, 6 input refused,
    7 server not reachable, 130 interrupted.
    """
    _hear_signals()
    try:
        from invoker.cli.tree import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def _hear_signals() -> None:
    """As process 1 of a container, end on SIGTERM until the command has a handler of its own: the kernel spares
    process 1 from signals that it does not handle, and whoever stops it would wait out the grace."""
    import os
    import signal

    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
