"""What a test knows of its cluster."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.cluster.folders import write_whole


class KubectlError(Exception):
    """kubectl ended with another code than 0; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is ready: a node takes pods, a default storage class binds claims, the base images are there."""

    kubeconfig: Path
    host_address: str
    """Where pods reach servers of this machine. Exists before the first pod, so a test can bind to it at once."""
    kubectl_path: Path
    images: tuple[str, ...]
    """Names of the images that are there; nothing can be pulled."""
    audit_log: Path | None = None
    """JSON lines: the API server's finished requests on jobs, pods, config maps, claims and secrets. None: not ours."""
    flags: str = ""
    """The control plane's flags, one program a line, as printed beside figures."""
    kind: str = "given"
    """given, k3s or one-node."""
    state: Path | None = None
    """Where logs of the components are; None: not ours."""

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 200) -> str:
        """What kubectl prints. `given` is its standard input. Raises `KubectlError` with what it said."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *arguments]
        environ = os.environ | {"KUBECACHEDIR": str(Path.home() / ".cache" / "invoker-test-kubectl")}
        done = subprocess.run(
            command, input=given, env=environ, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: dict[str, Any], namespace: str = "") -> None:
        """Creates objects or makes them as given."""
        where = ["--namespace", namespace] if namespace else []
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", *where, "-f", "-", given=json.dumps(listed))

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def write(self, file: Path) -> None:
        write_whole(file, json.dumps(asdict(self), default=str, indent=1))

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """What `write` put down, or None."""
        try:
            known = json.loads(file.read_text())
        except (OSError, ValueError):
            return None
        paths = {key: Path(known[key]) for key in ("kubeconfig", "kubectl_path", "audit_log", "state") if known[key]}
        return cls(**(known | paths | {"images": tuple(known["images"])}))
