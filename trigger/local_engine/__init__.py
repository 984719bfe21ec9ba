"""The local engine: plans run as child processes, with the promises of the Kubernetes engine.

In the controller's process:
engine.py        LocalEngine: the seam; owns the runs and their levels
driver.py        what a run goes through, step by step; live_attempt.py: the one step that has a process
run.py           one known run and its level; those who watch all runs
attempts.py      pure: what an attempt's end means, whether there is another one, and when
preparation.py   what must be in place first: requirements.py (environments), snapshots.py (code), workfolder.py (files)
order.py         a plan and an attempt's number → command, environment, folders
log.py           the last bytes of a run's stdout and stderr, and the lines of them
removal.py       which folders are to be removed when
processes.py     all processes: start, signal, hear; link.py: the socket to one spawner
protocol.py      the messages between the two sides

In processes of their own (standard library only, `python -I -S`):
keeper.py        the parent of the spawners; sees to it that nothing survives the engine
spawner.py       starts attempts, reads what they print, reports their ends
launcher.py      how a process is started; channels.py: its pipes; folders.py: its work folder
descendants.py   what an attempt has left behind, and how it is ended

`LocalEngine` is loaded on first use, because keeper and spawners import this package and must stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trigger.local_engine.engine import LocalEngine

__all__ = ["LocalEngine"]


def __getattr__(name: str) -> Any:
    if name != "LocalEngine":
        raise AttributeError(f"module 'trigger.local_engine' has no attribute {name!r}")
    from trigger.local_engine.engine import LocalEngine

    return LocalEngine
