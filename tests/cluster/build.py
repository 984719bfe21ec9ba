"""The programs of the cluster, built from Go modules once and kept by their versions.

A cold build takes minutes and 2 GB of memory, so nothing but a person or CI starts one: tests only use what is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.folders import HERE, cache_folder, digest_of, locked

KUBERNETES_VERSION = "1.36.3"
HELM_VERSION = "4.2.4"
_VERSION = "k8s.io/component-base/version"
# Without these the server calls itself v0.0.0, which clients refuse or misread.
_STAMP = f"-X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"
_COMMANDS = "k8s.io/kubernetes/cmd"
_PLUGINS = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"


MODULES = ("kubernetes", "containerd", "coredns", "helm")


class BuildError(Exception):
    """The programs cannot be had; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `go build` in one module; `output` names the file of a package whose own name says nothing."""

    module: str
    packages: tuple[str, ...]
    output: str = ""
    tags: str = ""
    ldflags: str = "-s -w"

    def arguments(self, folder: Path) -> list[str]:
        target = str(folder / self.output) if self.output else f"{folder}{os.sep}"
        tags = ["-tags", self.tags] if self.tags else []
        return ["go", "build", "-trimpath", "-ldflags", self.ldflags, *tags, "-o", target, *self.packages]


STEPS = (
    Step(
        "kubernetes",
        (
            *(f"{_COMMANDS}/{name}" for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")),
            *(f"{_COMMANDS}/{name}" for name in ("kubelet", "kubectl", "kube-proxy")),
            *(f"{_PLUGINS}/{name}" for name in ("main/bridge", "main/loopback", "ipam/host-local")),
        ),
        ldflags=f"-s -w {_STAMP}",
    ),
    Step("kubernetes", ("go.etcd.io/etcd/server/v3",), output="etcd"),
    Step(
        "containerd",
        tuple(f"{_CONTAINERD}/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        tags="no_btrfs no_zfs no_devmapper",
    ),
    Step("coredns", (".",), output="coredns"),
    Step(
        "helm",
        ("helm.sh/helm/v4/cmd/helm",),
        ldflags=f"-s -w -X helm.sh/helm/v4/internal/version.version=v{HELM_VERSION}",
    ),
)


def programs_folder() -> Path:
    """Where the programs of these versions and flags are, or will be."""
    files = [file for module in MODULES for file in sorted((HERE / "binaries" / module).iterdir())]
    return cache_folder() / f"programs-{digest_of(repr(STEPS), *files)}"


def are_programs_built() -> bool:
    return programs_folder().is_dir()


def build_programs() -> Path:
    """The folder of the programs, built when they are not there; of parallel callers one builds. Safe to repeat.

    Raises `BuildError`; the whole log stays beside the folder.
    """
    folder = programs_folder()
    if folder.is_dir():
        return folder
    with locked(cache_folder(), "build.lock"):
        if not folder.is_dir():
            _build_into(folder)
    return folder


def _build_into(folder: Path) -> None:
    need_go()
    log = folder.with_name(f"{folder.name}.log")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    print(f"building Kubernetes {KUBERNETES_VERSION} for the tests; log: {log}", file=sys.stderr, flush=True)
    with log.open("w") as file:
        for number, step in enumerate(STEPS, start=1):
            begun = time.monotonic()
            done = run_go(step.arguments(unfinished), HERE / "binaries" / step.module, file.fileno())
            what = step.output or step.module
            print(f"  {number}/{len(STEPS)} {what}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            if done != 0:
                raise BuildError(f"go build of {what} ended with {done}\n{last_lines(log)}")
    unfinished.rename(folder)  # last: a folder of this name is complete


def run_go(arguments: list[str], cwd: Path, output: int) -> int:
    """Runs the Go tool without cgo, so that what it builds runs in an empty image, too."""
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    return subprocess.run(arguments, cwd=cwd, env=environ, stdout=output, stderr=output, check=False).returncode


def need_go() -> None:
    """Raises `BuildError` when there is no Go."""
    if shutil.which("go") is None:
        raise BuildError(
            "Kubernetes for the tests is built from source, and there is no `go` here; "
            "install Go 1.26 or newer (https://go.dev/dl), or set INVOKER_TEST_KUBECONFIG to use another cluster"
        )


def last_lines(log: Path, count: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
