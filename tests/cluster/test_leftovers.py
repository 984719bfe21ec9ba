"""Nothing of a cluster is left on the machine, also when it, or the process that starts it, is killed half-way.

Each test has a cluster of its own beside the one that the other tests use.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster import leftovers, one_node
from tests.cluster.facts import Cluster
from tests.cluster.folders import CHECKOUT
from tests.cluster.lookup import reason_against_starting
from tests.cluster.network import bridge_name, router_link
from tests.cluster.processes import Process, marked_processes
from tests.skips import without

pytestmark = pytest.mark.cluster

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper"},
    "spec": {"containers": [{"name": "one", "image": "localhost/busybox:1", "command": ["sleep", "600"]}]},
}


@pytest.fixture
def state() -> Iterator[Path]:
    """The state folder of a cluster beside the shared one, in a short path, since sockets lie in it."""
    reason = reason_against_starting()
    if reason is not None:
        without(reason, needed_if="INVOKER_REQUIRE_CLUSTER")
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    yield folder
    one_node.stop(folder)
    shutil.rmtree(folder)


def what_is_left(state: Path) -> list[str]:
    """Everything of this cluster that is still on the machine."""
    left = [f"process {process.pid}" for process in marked_processes(state)]
    left += [f"cgroup {path}" for path in leftovers.cgroup_folders(leftovers.cgroup_name(state)) if path.exists()]
    links = (bridge_name(state), router_link(bridge_name(state)))
    left += [f"link {link}" for link in links if Path("/sys/class/net", link).exists()]
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]
    left += [str(path) for path in (state / "run", state / "kubeconfig", state / "cluster.json") if path.exists()]
    return left


def rules_of_services() -> list[str]:
    """What kube-proxy would have written into this machine's own network."""
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "kube" in line.lower()]


def programs_of(state: Path) -> set[str]:
    """What runs in this cluster now. Some of it is short-lived, and may have ended while it is looked at."""
    found: set[str] = set()
    for process in marked_processes(state):
        with suppress(OSError):
            found.add(Path(f"/proc/{process.pid}/comm").read_text().strip())
    return found


def run_a_pod(cluster: Cluster) -> None:
    cluster.apply(POD, namespace="default")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=150s")


@pytest.mark.timeout(600)
def test_a_cluster_killed_with_a_pod_in_it_leaves_no_process_and_the_next_one_starts(state: Path) -> None:
    cluster = one_node.start(state)
    run_a_pod(cluster)
    assert Path("/sys/class/net", bridge_name(state)).exists()
    assert Path("/sys/class/net", router_link(bridge_name(state))).exists()
    assert rules_of_services() == []
    names = programs_of(state)
    assert {"kubelet", "containerd", "containerd-shim", "etcd", "kube-apiserver", "kube-proxy", "coredns"} <= names
    first = Process.read(state / "run" / "first.pid")
    assert first is not None
    assert first.end(signal.SIGKILL, wait_seconds=60)
    deadline = time.monotonic() + 60  # for its parent, which ends next
    while left := marked_processes(state):  # nobody ends the others, and the pod's, but the kernel
        assert time.monotonic() < deadline, left
        time.sleep(0.01)

    again = one_node.start(state)
    assert again.kubectl("get", "pods", "--output=name") == ""
    one_node.stop(state)
    assert what_is_left(state) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seen", ["run/pki/ca.crt", "run/plan.json", "logs/kubelet.log"])
def test_a_start_killed_half_way_is_cleaned_by_the_next_end(state: Path, seen: str) -> None:
    for _ in range(3):  # the start may win, where this process is held up between seeing and killing
        kill_at(state, seen)
        if not (state / "cluster.json").exists():
            break
        one_node.stop(state)
    assert not (state / "cluster.json").exists(), "it was killed too late"
    assert what_is_left(state) != []
    one_node.stop(state)
    assert what_is_left(state) == []


def kill_at(state: Path, seen: str) -> None:
    """Starts a cluster there, and kills who starts it as soon as that file is seen."""
    shutil.rmtree(state / "logs", ignore_errors=True)  # those of a start before this one
    environ = os.environ | {"INVOKER_CLUSTER_STATE": str(state)}
    starting = subprocess.Popen([sys.executable, "-m", "tests.cluster", "up"], cwd=CHECKOUT, env=environ)
    deadline = time.monotonic() + 120
    while not (state / seen).exists():
        assert time.monotonic() < deadline, f"{seen} did not come"
        assert starting.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    starting.kill()
    starting.wait()


@pytest.mark.timeout(600)
def test_a_cluster_whose_folder_was_removed_is_found_all_the_same(state: Path) -> None:
    one_node.start(state)
    (state / "run" / "first.pid").unlink()
    (state / "cluster.json").unlink()
    one_node.stop(state)
    assert what_is_left(state) == []
