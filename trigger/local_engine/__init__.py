"""The local engine: plans run as child processes, with the promises of the Kubernetes engine.

engine.py        LocalEngine: the seam; owns the runs and their levels
run.py           one known run: its attempts, its end, who wants it stopped
attempts.py      pure: what an attempt's end means, whether there is another one, and when
order.py         a plan and an attempt's number → command, environment, folders (what the spawner is told)
processes.py     the engine's end of the spawner: launch, signal, output, end
protocol.py      the messages between the two
spawner.py       the child program that starts, reaps and sweeps (standard library only)
descendants.py   what an attempt has left behind, and the keeper above the spawner (standard library only)
log.py           the last bytes of a run's stdout and stderr, and the lines of them
workfolder.py    input files, code snapshots, folders left by earlier controllers
requirements.py  one cached environment per content of a requirements.txt

`LocalEngine` is loaded on first use, because the spawner imports this package and must stay small.
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
