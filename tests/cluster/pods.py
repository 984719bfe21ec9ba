"""Pods that a test makes by itself, as the Kubernetes engine makes those of Jobs: restricted, read-only, uid 10001."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.facts import Cluster, KubectlError
from tests.conftest import eventually

USER = 10001
END_SECONDS = 150.0


@dataclass(frozen=True)
class EndedContainer:
    """How a container ended, and what it printed."""

    code: int
    message: str
    log: str
    started_at: str
    finished_at: str


@dataclass(frozen=True)
class PodDesk:
    """Makes pods in one namespace. All calls of kubectl are made in threads: a test may serve HTTP meanwhile."""

    cluster: Cluster
    namespace: str

    async def run(self, spec: dict[str, Any]) -> dict[str, EndedContainer]:
        """Start a pod, wait until it has ended, and give its containers by name."""
        name = await self.start(spec)
        return await self.ended(name)

    async def start(self, spec: dict[str, Any]) -> str:
        name = f"pod-{secrets.token_hex(4)}"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        await asyncio.to_thread(self.cluster.apply, pod, namespace=self.namespace)
        return name

    async def printed(self, name: str, text: str) -> None:
        """Wait until the pod has printed this."""

        async def there() -> bool:
            try:
                return text in await asyncio.to_thread(self.cluster.kubectl, "logs", name, "-n", self.namespace)
            except KubectlError:  # it has no log yet
                return False

        await eventually(there, within=END_SECONDS, what=f"{text!r} of pod {name}")

    async def patch(self, name: str, patch: dict[str, Any]) -> None:
        words = ("patch", "pod", name, "-n", self.namespace, "--type=merge", "-p", json.dumps(patch))
        await asyncio.to_thread(self.cluster.kubectl, *words)

    async def ended(self, name: str) -> dict[str, EndedContainer]:
        async def finished() -> Any:
            pod = await asyncio.to_thread(self.cluster.get, "pod", name, "-n", self.namespace)
            return pod if pod["status"].get("phase") in ("Succeeded", "Failed") else None

        pod = await eventually(finished, within=END_SECONDS, what=f"the end of pod {name}")
        status = pod["status"]
        states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        ended = [one for one in states if "terminated" in one["state"]]
        return {one["name"]: await self._ended_container(name, one) for one in ended}

    async def _ended_container(self, pod: str, status: dict[str, Any]) -> EndedContainer:
        log = await asyncio.to_thread(self.cluster.kubectl, "logs", pod, "-n", self.namespace, "-c", status["name"])
        state = status["state"]["terminated"]
        return EndedContainer(
            state["exitCode"], state.get("message", ""), log, state["startedAt"] or "", state["finishedAt"] or ""
        )

    async def mounted(self, folder: Path) -> dict[str, Any]:
        """A volume with the files of a folder, as a configuration: what the kubelet makes of it are links."""
        name = f"code-{secrets.token_hex(4)}"
        files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file() and "__pycache__" not in file.parts
        }
        keys = {f"file-{number}": path for number, path in enumerate(files)}
        data = {key: base64.b64encode(files[path]).decode() for key, path in keys.items()}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data}
        await asyncio.to_thread(
            self.cluster.kubectl, "create", "-n", self.namespace, "-f", "-", given=json.dumps(document)
        )
        items = [{"key": key, "path": path} for key, path in keys.items()]
        return {"name": "code", "configMap": {"name": name, "items": items}}


def container(name: str, image: str, env: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A container that Pod Security `restricted` lets through, with a read-only root file system."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    } | more


def pod_spec(*containers: dict[str, Any], volumes: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    """A pod as the engine makes them, with `/work` of its own."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [{"name": "work", "emptyDir": {}}, *volumes],
    } | more
