"""Starts and stops the one-node cluster of a state folder."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster import certificates, components, images, leftovers, loading, services
from tests.cluster.build import programs_folder
from tests.cluster.components import NODE, Layout, Ports, Program
from tests.cluster.facts import Cluster
from tests.cluster.folders import HERE, digest_of, write_whole
from tests.cluster.network import API_SERVICE, create_bridge
from tests.cluster.processes import MARK, Process
from tests.ports import lasting_ports

READY_WITHIN_SECONDS = 180.0
LONGEST_SOCKET_PATH = 107
_HARMLESS = (
    "addrConn.createTransport",  # before the others are there
    "Unable to register mirror pod",
    "manifest file is empty",
    "cgroups: epoll wait",  # containers that end
)
_DECIDING = ("certificates", "components", "first_process", "network", "one_node", "services")


class StartError(Exception):
    """The cluster is not ready; the text says what its components said."""


def fingerprint() -> str:
    """Changes with everything that makes a cluster what it is, so that an outdated one is not used."""
    archives = [images.archive_of(reference).name for reference in images.BASE_IMAGES]
    return digest_of(programs_folder().name, *archives, *(HERE / f"{name}.py" for name in _DECIDING))


def start(state: Path) -> Cluster:
    """A cluster that is ready, after removing whatever an earlier one left. The programs and images must be built.

    Raises `StartError` and `CleaningError`.
    """
    leftovers.clean(state)
    shutil.rmtree(state / "logs", ignore_errors=True)
    try:
        layout = _prepare(state)
        with leftovers.machine_locked():
            leftovers.remember_machine()
            leftovers.let_bridges_be()
            _start_first_process(state, layout)
        cluster = _until_ready(state, layout)
    except BaseException as error:
        stop(state)
        if isinstance(error, OSError | StartError | loading.LoadError):
            raise StartError(f"the test cluster did not start: {error}\n{complaints(state)}") from error
        raise
    return cluster


def stop(state: Path) -> None:
    """Nothing runs, listens or is mounted afterwards; the logs stay until the next start. Safe to repeat."""
    leftovers.clean(state)


def running(state: Path) -> Cluster | None:
    """The cluster of this folder, if it lives."""
    cluster = Cluster.read(state / "cluster.json")
    first = Process.read(state / "run" / "first.pid")
    if cluster is None or first is None or not first.is_alive:
        return None
    return cluster


def is_outdated(state: Path) -> bool:
    """Whether this checkout would start another cluster than the one of this folder."""
    try:
        return (state / "run" / "fingerprint").read_text() != fingerprint()
    except FileNotFoundError:
        return True


def complaints(state: Path, lines: int = 3) -> str:
    """The last lines of every component's log that speak of an error, for a person who looks for the cause; few and
    short ones, so that what the tests themselves say is not lost among them. The logs have the rest."""
    said = [f"whole logs: {state / 'logs'}"]
    for log in sorted((state / "logs").glob("*.log")):
        found = [line[:200] for line in log.read_text(errors="replace").splitlines() if _is_complaint(line)][-lines:]
        if found:
            said += [f"--- {log.name}: last {len(found)} lines about errors", *found]
    return "\n".join(said)


def _is_complaint(line: str) -> bool:
    lowered = line.lower()
    if "level=info" in line or any(words in line for words in _HARMLESS):
        return False
    return line.startswith(("E", "F")) or any(word in lowered for word in ("error", "fatal", "panic", "ended with"))


def _prepare(state: Path) -> Layout:
    run, logs = state / "run", state / "logs"
    for folder in (run, logs):
        folder.mkdir(parents=True, mode=0o700)
    runc = shutil.which("runc")
    if runc is None:
        raise StartError("containers are started by runc, which is not here; try: apt-get install runc")
    if len(str(run / "kubelet/pod-resources/kubelet.sock")) > LONGEST_SOCKET_PATH:
        raise StartError(
            f"{state} is too long a path for the sockets in it; set INVOKER_CLUSTER_STATE to a shorter one"
        )
    cgroup = leftovers.cgroup_name(state)
    write_whole(run / "fingerprint", fingerprint())
    bridge = create_bridge(state)
    ports = Ports(*lasting_ports(4))
    layout = Layout(programs_folder(), run, logs, ports, bridge, cgroup, runc, _snapshotter(run), bridge.address)
    for folder in leftovers.cgroup_folders(cgroup):
        folder.mkdir(exist_ok=True)
    for name, content in (components.files(layout) | services.files(layout)).items():
        write_whole(run / name, content)
    _write_credentials(layout, state)
    return layout


def _programs(layout: Layout) -> tuple[Program, ...]:
    return (*components.programs(layout), *services.programs(layout))


def _snapshotter(run: Path) -> str:
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(run)], capture_output=True, text=True, check=True
    )
    return "native" if done.stdout.strip() == "overlayfs" else "overlayfs"  # one overlay does not lie on another


def _write_credentials(layout: Layout, state: Path) -> None:
    addresses = ("127.0.0.1", layout.bridge.address, API_SERVICE)
    certificates.make_certificates(layout.pki, certificates.identities(NODE, addresses))
    for name in ("controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns"):
        content = certificates.kubeconfig(layout.pki, name, layout.api_url)
        write_whole(layout.run / f"{name}.kubeconfig", content)
    write_whole(state / "kubeconfig", certificates.kubeconfig(layout.pki, "admin", layout.api_url))


def _start_first_process(state: Path, layout: Layout) -> None:
    mounts = []
    for target in leftovers.OWN_FOLDERS:
        source = layout.run / "own" / target.lstrip("/")
        source.mkdir(parents=True)
        mounts.append((str(source), target))
    listed = [{"name": one.name, "arguments": (*one.within, *one.arguments)} for one in _programs(layout)]
    plan = {
        "pid_file": str(layout.run / "first.pid"),
        "mounts": mounts,
        "before": services.preparation(layout),
        "volumes": leftovers.OWN_FOLDERS[0],
        "logs": str(layout.logs),
        "programs": listed,
    }
    write_whole(layout.run / "plan.json", json.dumps(plan, indent=1))
    # In a session of its own: a Ctrl-C in the terminal is for the tests. Nobody's child: it outlives who started it.
    alone = ["setsid", "--fork"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    with (layout.logs / "first_process.log").open("ab") as log:
        subprocess.run(
            [*alone, *namespaces, sys.executable, "-I", str(HERE / "first_process.py"), str(layout.run / "plan.json")],
            cwd="/",
            env=kept | {MARK: str(state)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )


def _until_ready(state: Path, layout: Layout) -> Cluster:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    api = _Api(layout)
    with ThreadPoolExecutor() as pool:
        imported = pool.submit(_import_base_images, layout, deadline)
        _wait("the API server", deadline, lambda: api.get("/readyz") is not None)
        _wait(
            "the storage class",
            deadline,
            lambda: api.create("/apis/storage.k8s.io/v1/storageclasses", components.storage_class()),
        )
        _wait("the node", deadline, lambda: _is_ready(api.get(f"/api/v1/nodes/{NODE}")))
        _wait("a service account", deadline, lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default"))
        for what, url in services.ready_urls(layout).items():
            _wait(what, deadline, functools.partial(_answers, url))
        imported.result()
    cluster = Cluster(
        kubeconfig=state / "kubeconfig",
        host_address=layout.bridge.address,
        kubectl_path=layout.programs / "kubectl",
        images=images.BASE_IMAGES,
        audit_log=layout.audit_log,
        flags="\n".join(" ".join((program.name, *program.flags)) for program in _programs(layout)),
        kind="one-node",
        state=state,
    )
    cluster.write(state / "cluster.json")  # last: who finds it may use the cluster
    return cluster


def _import_base_images(layout: Layout, deadline: float) -> None:
    _wait("containerd", deadline, lambda: _ctr(layout, "version").returncode == 0)
    for archive in images.build_base_images().values():
        loading.import_archive(loading.importer(layout.programs / "ctr", layout.containerd_socket), archive)


def _ctr(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [str(layout.programs / "ctr"), "--address", str(layout.containerd_socket), *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _is_ready(node: Any) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _wait(what: str, deadline: float, is_there: Callable[[], object]) -> None:
    while not is_there():
        if time.monotonic() > deadline:
            raise StartError(f"{what} was not ready in {READY_WITHIN_SECONDS:g} s")
        time.sleep(0.05)


class _Api:
    """A few requests to the API server while it starts; kubectl would cost a tenth of a second of a core for each."""

    def __init__(self, layout: Layout) -> None:
        self.host, self.port = layout.api_host, layout.ports.api
        self.tls = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self.tls.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")

    def get(self, path: str) -> Any:
        """The parsed answer, or None when it is not there or nobody answers."""
        return self._ask("GET", path, None)

    def create(self, path: str, content: dict[str, Any]) -> bool:
        return self._ask("POST", path, json.dumps(content)) is not None

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        connection = http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            return None
        finally:
            connection.close()
        if answer.status >= 300:
            return None
        return json.loads(content) if content.startswith(b"{") else content
