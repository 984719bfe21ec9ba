"""A Kubernetes control plane of a benchmark's own: etcd and kube-apiserver, and on demand all else but real nodes.

What a benchmark puts into it disturbs no test, and nothing but the benchmark touches it. Without `simulated_nodes`
nothing looks after Jobs: they stay as they were created. With it the controller-manager, the scheduler and kwok run:
pods are bound to nodes that exist on paper, and are said to be running for ever. **No container runs.**

The programs are those of the test cluster (`make cluster-build`); kwok is built from its Go module, once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.cluster import certificates, components
from tests.cluster.account import make_account
from tests.cluster.build import are_programs_built, programs_folder
from tests.cluster.components import Layout, Ports, Program
from tests.cluster.facts import Cluster, KubectlError
from tests.cluster.folders import cache_folder, write_whole
from tests.cluster.network import Bridge
from tests.ports import lasting_ports

READY_SECONDS = 60.0
KWOK = "sigs.k8s.io/kwok/cmd/kwok@v0.7.0"
NODES = 20

# A pod runs from when it was bound until it is deleted: kwok's own stages would end those of Jobs at once.
_STAGES = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.podIP, operator: DoesNotExist}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
      podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
      conditions:
      {{ range $type := (list "PodReadyToStartContainers" "Initialized" "Ready" "ContainersReady") }}
      - {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: sha256:0000000000000000000000000000000000000000000000000000000000000000
        containerID: containerd://0000000000000000000000000000000000000000000000000000000000000000
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {finalizers: {empty: true}, delete: true}
"""


class NoControlPlaneError(Exception):
    """There is none to be had here; the text says why and what to do."""


@contextmanager
def control_plane(*, simulated_nodes: bool = False) -> Iterator[Cluster]:
    """A control plane that is ready, with nothing in it; ended and removed when this is left, also by a kill of this
    process (but for its temporary folder)."""
    if not are_programs_built():
        raise NoControlPlaneError("Kubernetes is not built here (6 minutes, once); try: make cluster-build")
    kwok = _kwok() if simulated_nodes else None
    with tempfile.TemporaryDirectory(prefix="invoker-bench-") as folder:
        layout = _prepared(Path(folder))
        programs = _programs(layout, kwok)
        running: list[subprocess.Popen[bytes]] = []
        try:
            for program in programs:
                running.append(_start(program, layout.logs))
            flags = "\n".join(" ".join((program.name, *program.flags)) for program in programs)
            cluster = Cluster(
                layout.run / "kubeconfig", layout.bridge.address, layout.programs / "kubectl", (), None, flags
            )
            _wait("the API server", lambda: cluster.kubectl("get", "--raw", "/readyz"), layout.logs)
            if simulated_nodes:
                _make_nodes(cluster, layout.logs)
            yield cluster
        finally:
            for process in reversed(running):
                _end(process)


def new_namespace(cluster: Cluster, name: str, folder: Path) -> Path:
    """A namespace with the service account of `deploy/rbac.yaml`; gives the kubeconfig with its token, in `folder`."""
    cluster.kubectl("create", "namespace", name)
    return make_account(cluster, name, folder).kubeconfig


def _prepared(folder: Path) -> Layout:
    run, logs = folder / "run", folder / "logs"
    run.mkdir()
    logs.mkdir()
    # The address is only advertised: no bridge of that name is made.
    bridge = Bridge("none", "10.245.252.0/22")
    layout = Layout(programs_folder(), run, logs, Ports(*lasting_ports(4)), bridge, "none", "none")
    certificates.make_certificates(layout.pki, certificates.identities("127.0.0.1", ("127.0.0.1",)))
    for name in ("controller-manager", "scheduler", "admin"):
        write_whole(run / f"{name}.kubeconfig", certificates.kubeconfig(layout.pki, name, layout.api_url))
    shutil.copy(run / "admin.kubeconfig", run / "kubeconfig")
    write_whole(run / "stages.yaml", _STAGES)
    return layout


def _programs(layout: Layout, kwok: Path | None) -> list[Program]:
    """The test cluster's own, without its audit log, which a production cluster writes elsewhere or not at all."""
    known = {program.name: program for program in components.programs(layout)}
    server = known["kube-apiserver"]
    silent = tuple(argument for argument in server.arguments if not argument.startswith("--audit-"))
    found = [known["etcd"], Program(server.name, silent)]
    if kwok is not None:
        flags = ("--manage-all-nodes=true", "--cidr=10.248.0.0/14", "--node-lease-duration-seconds=0")
        files = (f"--kubeconfig={layout.run}/kubeconfig", f"--config={layout.run}/stages.yaml")
        found += [known["kube-controller-manager"], known["kube-scheduler"]]
        found.append(Program("kwok", (str(kwok), *flags, *files)))
    return found


def _start(program: Program, logs: Path) -> subprocess.Popen[bytes]:
    with (logs / f"{program.name}.log").open("wb") as log:
        command = ["setpriv", "--pdeathsig", "KILL", *program.arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(what: str, question: object, logs: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if question():  # type: ignore[operator]  # every question given here can be called
                return
        except (KubectlError, subprocess.TimeoutExpired) as trouble:
            if time.monotonic() > deadline:
                said = "\n".join(log.read_text(errors="replace")[-1500:] for log in logs.glob("*.log"))
                raise NoControlPlaneError(f"{what} is not ready: {trouble}\n{said}") from None
        time.sleep(0.2)


def _make_nodes(cluster: Cluster, logs: Path) -> None:
    room = {"cpu": "10k", "memory": "10Ti", "pods": "100k"}
    nodes = [
        {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"paper-{number}"},
            "status": {"allocatable": room, "capacity": room},
        }
        for number in range(NODES)
    ]  # fmt: skip
    _wait("the API server", lambda: cluster.apply(*nodes) is None, logs)
    ready = ("wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={READY_SECONDS:g}s")
    _wait("every node", lambda: cluster.kubectl(*ready, timeout=READY_SECONDS + 5), logs)


def _kwok() -> Path:
    """The program, built from its module where it is not in the cache yet (2 minutes)."""
    folder = cache_folder() / KWOK.rpartition("/")[2].replace("@", "-")
    program = folder / "kwok"
    if not program.exists():
        if shutil.which("go") is None:
            raise NoControlPlaneError(
                "nodes are simulated by kwok, which is built from its module, and no `go` is here"
            )
        print("building kwok, once (2 minutes)", file=sys.stderr)
        environment = {"GOBIN": str(folder), "CGO_ENABLED": "0"}
        command = ["env", *(f"{name}={value}" for name, value in environment.items()), "go", "install", KWOK]
        if subprocess.run(command, check=False).returncode != 0:
            raise NoControlPlaneError(f"kwok cannot be built here: go install {KWOK}")
    return program
