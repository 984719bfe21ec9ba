"""The first process of the cluster's namespaces: mounts, starts every program, starts again what ended, reaps.

Started as `unshare --mount --pid --fork --kill-child python first_process.py PLAN`. It is PID 1 of its namespace, so
when it dies the kernel kills everything in it, containers too, and with the last of them the mounts go. That is what
leaves nothing behind, however the end came. Only the standard library, and nothing of this package: it is a script.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE_BEFORE_RESTART = 0.3
LOOK_AT_VOLUMES_EVERY = 0.05
GROUP_OF_VOLUMES = 10001


def main(plan_file: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    write_own_pid(Path(plan["pid_file"]))  # before /proc is the namespace's own: this is the pid outside
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    for source, target in plan["mounts"]:
        mount("--bind", source, target)
    mount("--make-rshared", "/")
    mount("-t", "proc", "proc", "/proc")
    for command in plan["before"]:
        subprocess.run(command, check=True)
    running = dict(start(plan, program) for program in plan["programs"])
    opened: set[str] = set()
    while True:
        received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, LOOK_AT_VOLUMES_EVERY)
        if received is not None and received.si_signo == signal.SIGTERM:
            return
        open_volumes(Path(plan["volumes"]), opened)
        for pid, status in reaped():
            if pid not in running:  # an orphan of a container
                continue
            program, process = running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)  # was waited for here, not by subprocess
            say(f"{program['name']} ended with {process.returncode}, starting it again")
            time.sleep(PAUSE_BEFORE_RESTART)
            running.update([start(plan, program)])


def write_own_pid(file: Path) -> None:
    pid = int(os.readlink("/proc/self"))
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"pid": pid, "started": int(fields[19])}))
    unfinished.replace(file)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def start(plan: dict[str, Any], program: dict[str, Any]) -> tuple[int, tuple[dict[str, Any], subprocess.Popen[bytes]]]:
    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())

    with Path(plan["logs"], f"{program['name']}.log").open("ab") as log:
        process = subprocess.Popen(
            program["arguments"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=unblock,
            start_new_session=True,
        )
    return process.pid, (program, process)


def reaped() -> list[tuple[int, int]]:
    """Every child that has ended since the last look."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, status))
    return ended


def open_volumes(folder: Path, opened: set[str]) -> None:
    """The provisioner makes folders for root only, and kubelet gives no host path to a pod's group.

    A storage driver would, to the pod's `fsGroup`. Here it is always Invoker's: a pod that forgot it is refused.
    """
    there = {entry.name for entry in os.scandir(folder)}
    for name in there - opened:
        with suppress(FileNotFoundError):
            os.chown(folder / name, 0, GROUP_OF_VOLUMES)
            (folder / name).chmod(0o2770)
    opened.clear()
    opened.update(there)


def say(message: str) -> None:
    print(time.strftime("%H:%M:%S"), message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
