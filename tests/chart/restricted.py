"""The Pod Security profile `restricted`, as a function over one pod. Pure.

After the list of the Kubernetes documentation (Pod Security Standards), for pods on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(spec: Mapping[str, Any]) -> list[str]:
    """What of a pod's spec does not fit the profile, in words; empty when all of it does."""
    return [*_of_the_pod(spec), *(words for one in _containers(spec) for words in _of_a_container(spec, one))]


def _of_the_pod(spec: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls are set"
    if security.get("runAsUser") == 0:
        yield "the pod runs as root"


def _of_a_container(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    name, own, shared = container["name"], container.get("securityContext", {}), pod.get("securityContext", {})
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate privileges"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    if own.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if own.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in PROFILES:
        yield f"{name} has no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name} keeps capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} unmasks /proc"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} takes a port of the node"


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for field in ("containers", "initContainers", "ephemeralContainers"):
        yield from spec.get(field, [])
