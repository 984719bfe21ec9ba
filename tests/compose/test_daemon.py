"""The tests' own dockerd: nothing of it outlives a test that was killed, save what the next start removes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.daemon import DISTANT_PAST, daemon, need_docker, remove_leftovers
from tests.compose.project import ROOT

pytestmark = pytest.mark.acceptance

PROGRAM = """
from tests.compose import stand_ins
from tests.compose.daemon import daemon
with daemon() as docker:
    stand_ins.write_nats(docker.folder / "nats.tar", "nats:test")
    docker.docker("load", "--input", str(docker.folder / "nats.tar"))
    docker.docker("run", "--detach", "--publish", "127.0.0.1:4222:4222", "nats:test", "nats-server")
    print(docker.folder, docker.pid, flush=True)
    input()
"""


def processes_of(folder: Path) -> list[str]:
    """Whatever runs and names the folder or its control groups."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            said = (place / "cmdline").read_text() + (place / "cgroup").read_text()
        except OSError:
            continue
        if folder.name in said and place.name != str(os.getpid()) and (place / "exe").exists():
            found.append(said)
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path leaves room for those of sockets, of which the kernel takes 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="killed-") as found:
        yield Path(found)


def killed_in(place: Path) -> Path:
    """The folder of a daemon whose test was killed while a container of it ran."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        said = killed.stdout.readline().split()
        assert said, "it did not start"
        folder = Path(said[0])
        assert processes_of(folder), "it runs"
        mounts = Path("/proc/mounts").read_text()
        assert folder.name not in mounts, "mounted where nobody else sees it"
        killed.send_signal(signal.SIGKILL)
    return folder


def test_a_killed_test_leaves_nothing_that_runs_and_the_next_one_cleans_up(place: Path) -> None:
    need_docker()
    folder = killed_in(place)
    deadline = time.monotonic() + 60
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert folder.exists()
    assert list(Path("/sys/fs/cgroup").glob(f"*/{folder.name}"))
    os.utime(folder, (DISTANT_PAST, DISTANT_PAST))
    assert remove_leftovers(place) == [folder]
    assert not folder.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{folder.name}"))


def test_one_that_is_in_use_is_left_alone() -> None:
    need_docker()
    with daemon() as docker:
        os.utime(docker.folder, (DISTANT_PAST, DISTANT_PAST))
        assert docker.folder not in remove_leftovers()
        assert docker.docker("ps").returncode == 0
    assert not docker.folder.exists()
