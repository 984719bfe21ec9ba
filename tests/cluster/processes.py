"""Processes known by pid and start time, so that a pid which the kernel gave to someone else is never signalled."""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.cluster.folders import write_whole

MARK = "INVOKER_TEST_CLUSTER_IN"
"""In the environment of every process of a cluster: its state folder. So none is lost when a pid file is."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this machine, as long as it lives and never another one later."""

    pid: int
    started: int
    """The kernel's clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this pid now, or None."""
        try:
            # The second field is the name in parentheses and may hold anything, so count from behind it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The process that `write` put down, dead or alive."""
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, file: Path) -> None:
        write_whole(file, json.dumps(asdict(self)))

    @property
    def is_alive(self) -> bool:
        return type(self).of(self.pid) == self

    def end(self, number: signal.Signals, wait_seconds: float) -> bool:
        """Signals it and waits; True when it is gone. A process that is not there is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.is_alive:  # after opening: from here on the handle means this very process
                return True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            return bool(select.select([handle], [], [], wait_seconds)[0])
        finally:
            os.close(handle)


def marked_processes(state: Path | None = None) -> list[Process]:
    """Every process of the cluster of this state folder, or of all of this machine, found by its environment."""
    wanted = f"{MARK}={state}".encode() if state else f"{MARK}=".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _has_variable(entry / "environ", wanted, whole=state is not None):
            found.append(Process.of(int(entry.name)))
    return [process for process in found if process is not None]


def _has_variable(environ: Path, wanted: bytes, *, whole: bool) -> bool:
    try:
        variables = environ.read_bytes().split(b"\0")
    except OSError:  # it has ended, or is not ours to look at
        return False
    return wanted in variables if whole else any(variable.startswith(wanted) for variable in variables)
