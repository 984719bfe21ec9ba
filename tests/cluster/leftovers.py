"""What clusters changed on this machine and how it is undone, also after they were killed. Safe to repeat.

The order of an end: processes first (with the last of them go the mounts, which only they see), then the cluster's
cgroups and bridge, then its files. What clusters share, the kernel's settings and the folders they mount over, is
undone by whoever finds that no cluster is left: the record of it is the machine's, `/run/invoker-test-cluster.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.cluster.folders import digest_of, write_whole
from tests.cluster.network import delete_bridge
from tests.cluster.processes import Process, marked_processes

WAIT_SECONDS = 30.0
# What kubelet sets at its start, what network plugins may, and what `let_bridges_be` does.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
)
# Folders that programs write to without being asked where. In a cluster's own view of this machine they lie below its
# state folder, so nothing of theirs stays on the machine and nothing of another cluster is seen.
OWN_FOLDERS = ("/tmp/hostpath_pv", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd")
RECORD = Path("/run/invoker-test-cluster.json")
CGROUPS = Path("/sys/fs/cgroup")


class CleaningError(Exception):
    """Something of an earlier cluster cannot be removed."""


@contextmanager
def machine_locked() -> Iterator[None]:
    """One start or end at a time on this machine. Nothing is left of the lock: it is one on a folder that is there."""
    folder = os.open(RECORD.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def remember_machine() -> None:
    """Puts on file what the machine was like before the first cluster, then makes the folders that are mounted over.

    Call it under the machine's lock and start the first process before letting go of it: without a process of a cluster
    all of this is undone by the next one who looks.
    """
    if not RECORD.exists():
        settings = {name: Path("/proc/sys", name).read_text() for name in SETTINGS if Path("/proc/sys", name).exists()}
        wanted = [part for folder in OWN_FOLDERS for part in (Path(folder), *Path(folder).parents)]
        missing = [str(folder) for folder in wanted if not folder.exists()]
        write_whole(RECORD, json.dumps({"settings": settings, "folders": missing}))
    for folder in OWN_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)


def let_bridges_be() -> None:
    """This machine's firewall is not for what pods send each other over the bridge: another program here, as Docker
    does, may refuse to forward anything. Call it after `remember_machine`, under the machine's lock.
    """
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if setting.exists():
        setting.write_text("0\n")


def clean(state: Path) -> None:
    """Ends and removes everything of this state folder's cluster but its logs. Raises `CleaningError`."""
    run = state / "run"
    _end_processes(state, run)
    _remove_cgroups(cgroup_name(state))
    delete_bridge(state)
    _refuse_mounts_below(run)
    for name in ("kubeconfig", "cluster.json"):
        (state / name).unlink(missing_ok=True)
    if run.exists():
        shutil.rmtree(run)
    with machine_locked():
        if not marked_processes():
            _restore_machine()


def _end_processes(state: Path, run: Path) -> None:
    first = Process.read(run / "first.pid")
    if first is not None and not first.end(signal.SIGKILL, WAIT_SECONDS):
        raise CleaningError(f"process {first.pid} of the test cluster does not end; its folder is {run}")
    # Killed between its start and its pid file, or the folder was removed under a cluster that ran.
    for process in marked_processes(state):
        process.end(signal.SIGKILL, WAIT_SECONDS)


def cgroup_name(state: Path) -> str:
    return f"invoker-test-{digest_of(str(state))[:8]}"


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


def _restore_machine() -> None:
    try:
        before: dict[str, Any] = json.loads(RECORD.read_text())
    except FileNotFoundError:
        return
    for name, value in before["settings"].items():
        file = Path("/proc/sys", name)
        if file.read_text() != value:
            file.write_text(value)
    for folder in before["folders"]:  # innermost first; one that another program uses by now is not empty and stays
        with suppress(OSError):
            os.rmdir(folder)
    RECORD.unlink()


def _refuse_mounts_below(run: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [mount for mount in mounts if Path(mount).is_relative_to(run)]
    if below:
        raise CleaningError(f"still mounted: {', '.join(below)}; try: umount {' '.join(below)}")
