"""Who uses the cluster: it is started for the first that asks and ends with the last, whatever processes they are in.

One file for each user, named by its pid. The workers of one pytest session are one user, their controller, since a
worker that has no test of the cluster left says nothing about the others. Call everything here under the folder's lock.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster.processes import Process

KEPT = "kept"
"""This file: a person or CI started the cluster, and nobody else ends it."""


def session_process() -> Process:
    """The process of this pytest session that outlives all of its workers."""
    pid = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    process = Process.of(pid)
    assert process is not None
    return process


def add(state: Path, process: Process) -> None:
    process.write(_folder(state) / str(process.pid))


def remove(state: Path, process: Process) -> bool:
    """True when it was a user."""
    file = _folder(state) / str(process.pid)
    was_there = Process.read(file) == process
    if was_there:
        file.unlink()
    return was_there


def living(state: Path) -> list[Process]:
    """The users that are alive; files of the dead are removed."""
    alive = []
    for file in _folder(state).glob("[0-9]*"):
        process = Process.read(file)
        if process is not None and process.is_alive:
            alive.append(process)
        else:
            file.unlink(missing_ok=True)
    return alive


def keep(state: Path, kept: bool) -> None:
    """Whether the cluster stays when its last user has gone."""
    if kept:
        (state / KEPT).touch()
    else:
        (state / KEPT).unlink(missing_ok=True)


def is_wanted(state: Path) -> bool:
    return (state / KEPT).exists() or bool(living(state))


def _folder(state: Path) -> Path:
    folder = state / "users"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
