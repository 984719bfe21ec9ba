"""Debian's dockerd for the tests: in namespaces of its own, so that nothing of it outlives whoever started it.

Its processes, containers, mounts, bridges and iptables rules live in process, mount and network namespaces that the
kernel takes down with their first process, and that one is killed when this process ends, however it ends. What a
killed test leaves are a folder and empty control groups; the next start removes them. Ports that containers publish on
loopback are on that namespace's loopback: `entered` is how a program gets there. There is no way out of it, so names
of other machines are asked of nobody (`--dns`), which fails at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.skips import without

PREFIX = "invoker-docker-"
BUILDERS = ("buildah", "mmdebstrap", "busybox")
NEEDED = (
    "dockerd", "docker-compose", "docker", "containerd", "runc", "unshare", "nsenter", "ip", "iptables", "curl",
    "redis-server",
)  # fmt: skip
START_SECONDS = 150.0
UNCLAIMED_SECONDS = 600.0
"""A folder that nobody claims is left over after so long: its maker may be held up before it does."""
DISTANT_PAST = 1_000_000_000.0
PR_SET_PDEATHSIG = 1
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's own programs come first: another docker on the PATH may be newer than the daemon."""
_BEGIN = """
set -e
ip link set lo up
mount -t tmpfs none /run
exec dockerd --data-root "$1/data" --exec-root /run/docker --pidfile "$1/pid" --host "unix://$1/docker.sock" \
    --cgroup-parent "/$2" --storage-driver overlay2 --log-level warn --dns 127.0.0.1
"""


@dataclass(frozen=True)
class Daemon:
    """A running dockerd: its folder, and the first process of its namespaces."""

    folder: Path
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """For docker and docker-compose, so that they talk to this one."""
        return {
            "PATH": f"{_PATH}:{os.environ.get('PATH', '')}",
            "HOME": str(self.folder),
            "DOCKER_HOST": f"unix://{self.folder / 'docker.sock'}",
        }

    def docker(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """One docker command; a failed one fails the test with what it said, unless `check` is off."""
        return run(["docker", *arguments], self.environment, check=check, timeout=timeout)

    def entered(self, *command: str) -> list[str]:
        """The command inside the network namespace, where published ports are."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]


def run(
    command: Sequence[str],
    environment: dict[str, str],
    *,
    check: bool = True,
    timeout: float = 300,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command to its end, both streams in one."""
    done = subprocess.run(
        command, env=environment, cwd=folder, timeout=timeout, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-4000:]}")
    return done


def need_docker() -> None:
    """Skips the test where no dockerd can be started; fails it where INVOKER_REQUIRE_DOCKER is set."""
    need_builder()
    _need(NEEDED, "docker.io docker-compose iproute2 iptables curl busybox-static redis-server")


def need_builder() -> None:
    """The same where no image can be built."""
    _need(BUILDERS, "buildah mmdebstrap busybox-static")


def _need(programs: Sequence[str], packages: str) -> None:
    missing = [name for name in programs if shutil.which(name, path=f"{_PATH}:{os.environ.get('PATH', '')}") is None]
    words = "containers of its own need root" if os.geteuid() != 0 else ""
    words = f"there is no {', no '.join(missing)} here (apt-get install {packages})" if missing else words
    if words:
        without(words, needed_if="INVOKER_REQUIRE_DOCKER")


@contextmanager
def daemon() -> Iterator[Daemon]:
    """A dockerd that is ready, and gone with everything in it when this is left. Call `need_docker` before."""
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with _claimed(folder):
        try:
            with (folder / "log").open("w") as log:
                process = _started(folder, log)
            try:
                yield _ready(folder, process)
            finally:
                _end(process)
        finally:
            _remove(folder)


def remove_leftovers(place: Path | None = None) -> list[Path]:
    """Removes the folders and control groups of tests that were killed; gives them. Those in use are left alone, and
    those of this moment, which their makers may not have claimed yet."""
    removed = []
    for folder in (place or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        with suppress(BlockingIOError, FileNotFoundError):
            if time.time() - folder.stat().st_mtime < UNCLAIMED_SECONDS:
                continue
            with _claimed(folder):
                _remove(folder)
                removed.append(folder)
    return removed


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Says that the folder is in use; the kernel takes that back from a process that was killed."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _started(folder: Path, log: IO[str]) -> subprocess.Popen[bytes]:
    def die_with_us() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", _BEGIN, "sh", str(folder), folder.name],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_us, start_new_session=True,
        env={"PATH": f"{_PATH}:{os.environ.get('PATH', '')}", "HOME": str(folder)},
    )  # fmt: skip


def _ready(folder: Path, process: subprocess.Popen[bytes]) -> Daemon:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for child in _children(process):
            found = Daemon(folder, child)
            if found.docker("version", check=False).returncode == 0:
                return found
        time.sleep(0.1)
    pytest.fail(f"dockerd did not start\n{(folder / 'log').read_text()[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The namespaces are down when this returns: with their first process all others die, and its parent reaps it."""
    for child in _children(process):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    process.kill()
    process.wait()


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return []


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + 60
    groups = Path("/sys/fs/cgroup")
    places = [*groups.glob(f"*/{folder.name}"), groups / folder.name]
    while True:  # the last processes may still be on their way out
        shutil.rmtree(folder, ignore_errors=True)
        for place in places:
            _remove_groups(place)
        left = [path for path in (folder, *places) if path.exists()]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"still there: {', '.join(map(str, left))}")
        time.sleep(0.05)


def _remove_groups(place: Path) -> None:
    for parent, _, _ in os.walk(place, topdown=False):
        with suppress(OSError):
            os.rmdir(parent)
