"""What a start changed on this machine, on file before it is changed, and how it is undone. Safe to repeat.

The order of an end: processes first (with the last of them go the mounts, which only they see), then their cgroups, the
bridge, the kernel's settings and empty folders, the files last: until then they say what is to undo.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.folders import write_whole
from tests.cluster.network import delete_bridge
from tests.cluster.processes import Process, marked_processes

WAIT_SECONDS = 30.0
# What kubelet sets at its start, and what network plugins may.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
)
CGROUPS = Path("/sys/fs/cgroup")


class CleaningError(Exception):
    """Something of an earlier cluster cannot be removed."""


def remember(run: Path, *, folders: tuple[Path, ...], cgroup: str) -> None:
    """Puts on file what the machine is like before a start changes it."""
    settings = {name: Path("/proc/sys", name).read_text() for name in SETTINGS if Path("/proc/sys", name).exists()}
    missing = [str(part) for folder in folders for part in (folder, *folder.parents) if not part.exists()]
    write_whole(run / "undo.json", json.dumps({"settings": settings, "folders": missing, "cgroup": cgroup}))


def clean(state: Path) -> None:
    """Ends and removes everything of this state folder's cluster but its logs. Raises `CleaningError`."""
    run = state / "run"
    _end_processes(state, run)
    undo = _undo_file(run)
    if undo:
        _remove_cgroups(undo["cgroup"])
    delete_bridge(state)
    if undo:
        _restore(undo)
    _refuse_mounts_below(run)
    for name in ("kubeconfig", "cluster.json"):
        (state / name).unlink(missing_ok=True)
    shutil.rmtree(run, ignore_errors=False) if run.exists() else None


def _end_processes(state: Path, run: Path) -> None:
    first = Process.read(run / "first.pid")
    if first is not None and not first.end(signal.SIGKILL, WAIT_SECONDS):
        raise CleaningError(f"process {first.pid} of the test cluster does not end; its folder is {run}")
    # Killed between its start and its pid file, or the folder was removed under a cluster that ran.
    for process in marked_processes(state):
        process.end(signal.SIGKILL, WAIT_SECONDS)


def _undo_file(run: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((run / "undo.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def cgroup_folders(name: str) -> list[Path]:
    """The cgroup of that name in every hierarchy of version 1, or the one of version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / name]
    return [entry / name for entry in CGROUPS.iterdir() if (entry / "cgroup.procs").exists() and not entry.is_symlink()]


def _remove_cgroups(name: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    for top in cgroup_folders(name):
        for folder, _, _ in os.walk(top, topdown=False):
            while not _is_removed(folder):  # the kernel needs a moment after the last process of a group
                if time.monotonic() > deadline:
                    raise CleaningError(f"cgroup {folder} of the test cluster cannot be removed: it is busy")
                time.sleep(0.02)


def _is_removed(cgroup: str) -> bool:
    try:
        os.rmdir(cgroup)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _restore(undo: dict[str, Any]) -> None:
    for name, value in undo["settings"].items():
        file = Path("/proc/sys", name)
        if file.read_text() != value:
            file.write_text(value)
    for folder in undo["folders"]:  # innermost first; one that another program uses by now is not empty and stays
        with suppress(OSError):
            os.rmdir(folder)


def _refuse_mounts_below(run: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [mount for mount in mounts if Path(mount).is_relative_to(run)]
    if below:
        raise CleaningError(f"still mounted: {', '.join(below)}; try: umount {' '.join(below)}")
