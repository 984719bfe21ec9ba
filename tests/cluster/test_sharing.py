"""One cluster for many: who finds it, who keeps it, which one a test gets. No cluster runs here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.cluster import services, users
from tests.cluster.components import Layout, Ports, audit_policy, files, programs
from tests.cluster.facts import Cluster
from tests.cluster.folders import CHECKOUT
from tests.cluster.k3s import docker_answers
from tests.cluster.network import CANDIDATES, Bridge, free_network
from tests.cluster.one_node import complaints
from tests.cluster.processes import Process
from tests.ports import lasting_port, lasting_ports

PROBE = """
import sys
from tests.cluster.lookup import NoClusterError, cluster_for_session
try:
    print(cluster_for_session())
except NoClusterError as reason:
    print("none:", reason)
"""


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """Another process that is alive."""
    with subprocess.Popen(["sleep", "600"]) as running:
        process = Process.of(running.pid)
        assert process is not None
        yield process
        running.kill()


def test_a_cluster_is_wanted_while_a_user_lives(tmp_path: Path, sleeper: Process) -> None:
    here = Process.of(os.getpid())
    assert here is not None
    users.add(tmp_path, here)
    users.add(tmp_path, sleeper)
    assert users.remove(tmp_path, here)
    assert users.is_wanted(tmp_path)
    assert not users.remove(tmp_path, here)  # was none any more
    assert users.living(tmp_path) == [sleeper]
    users.add(tmp_path, Process(sleeper.pid, sleeper.started - 1))  # one whose pid another has by now
    assert not users.is_wanted(tmp_path)
    users.keep(tmp_path, True)
    assert users.is_wanted(tmp_path)
    users.keep(tmp_path, False)
    assert not users.is_wanted(tmp_path)


def test_workers_of_one_session_are_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert users.session_process().pid == os.getpid()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert users.session_process().pid == os.getppid()


def test_a_reused_pid_is_never_signalled(sleeper: Process) -> None:
    earlier = Process(sleeper.pid, sleeper.started - 1)
    assert earlier.end(signal.SIGKILL, wait_seconds=0)
    assert sleeper.is_alive
    assert sleeper.end(signal.SIGKILL, wait_seconds=10)


def found(**environ: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INVOKER_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=kept | environ, cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_given_cluster_comes_first_and_needs_the_address_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\n")
    (tmp_path / "kubectl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert "INVOKER_TEST_HOST_ADDRESS is not" in found(INVOKER_TEST_KUBECONFIG="/some/config", PATH=path)
    given = found(INVOKER_TEST_KUBECONFIG="/some/config", INVOKER_TEST_HOST_ADDRESS="10.1.2.3", PATH=path)
    assert "/some/config" in given
    assert "10.1.2.3" in given


def test_nothing_is_built_by_a_test(tmp_path: Path) -> None:
    place = {"INVOKER_CLUSTER_CACHE": str(tmp_path / "cache"), "INVOKER_CLUSTER_STATE": str(tmp_path / "state")}
    said = found(DOCKER_HOST=f"unix://{tmp_path}/none.sock", **place)
    assert said.startswith("none: ")
    assert "make cluster-build" in said or "root" in said or "apt-get install" in said
    assert not list((tmp_path / "cache").glob("programs-*"))


def test_no_daemon_is_no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert not docker_answers()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.close()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{lasting_port()}")
        assert not docker_answers()


def test_networks_and_ports_do_not_meet() -> None:
    assert free_network([]) == CANDIDATES[0]
    assert free_network([IPv4Network("10.245.0.0/23"), IPv4Network("10.245.4.1/32")]) == CANDIDATES[2]
    with pytest.raises(OSError, match="in use"):
        free_network([IPv4Network("10.0.0.0/8")])
    assert len(set(lasting_ports(20))) == 20


def test_everything_listens_on_the_loopback_and_writes_below_the_state(tmp_path: Path) -> None:
    bridge = Bridge("invk-0", "10.245.4.0/22")
    run, logs = tmp_path / "run", tmp_path / "logs"
    layout = Layout(Path("/programs"), run, logs, Ports(1, 2, 3, 4), bridge, "group", "/usr/sbin/runc")
    assert (bridge.address, bridge.address_with_prefix) == ("10.245.4.1", "10.245.4.1/22")
    both = (*programs(layout), *services.programs(layout))
    flags = {program.name: program.flags for program in both}
    assert "--bind-address=127.0.0.1" in flags["kube-apiserver"]
    seen_by_pods = replace(layout, api_host=bridge.address)
    assert "--bind-address=10.245.4.1" in programs(seen_by_pods)[2].flags
    assert seen_by_pods.api_url == "https://10.245.4.1:1"
    for name, given in flags.items():
        for flag in given:
            value = flag.partition("=")[2]
            assert not value.startswith("/") or Path(value).is_relative_to(tmp_path), f"{name} {flag}"
    assert '"address": "127.0.0.1"' in files(layout)["kubelet.json"]
    assert {program.within for program in services.programs(layout)} == {("nsenter", f"--net={run}/services.netns")}
    assert services.corefile(layout).count("bind 10.245.4.2\n") == 2
    assert json.loads(services.files(layout)["kube-proxy.json"])["bindAddress"] == "10.245.4.2"
    assert audit_policy()["rules"][-1] == {"level": "None"}  # type: ignore[index]  # a list


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert Cluster.read(tmp_path / "cluster.json") is None
    there = Cluster(
        tmp_path / "k", "10.0.0.1", tmp_path / "kubectl", ("a:1", "b:1"), tmp_path / "audit", "x --y", "one-node"
    )
    there.write(tmp_path / "cluster.json")
    assert Cluster.read(tmp_path / "cluster.json") == there


def test_complaints_are_what_speaks_of_errors_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    lines = ["I1 fine", 'time level=info msg="skip" error="none"', *(f"E{number} broke" for number in range(100))]
    (tmp_path / "logs" / "kubelet.log").write_text("\n".join(lines))
    (tmp_path / "logs" / "etcd.log").write_text(lines[0])
    said = complaints(tmp_path).splitlines()
    assert said[0] == f"whole logs: {tmp_path / 'logs'}"
    assert said[1:] == ["--- kubelet.log: last 3 lines about errors", "E97 broke", "E98 broke", "E99 broke"]
