"""What a container of a pod may have, whichever of its kinds it is of. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trigger.kubernetes_engine import images
from trigger.kubernetes_engine.allow_list import (
    BOOLEAN,
    Rule,
    both,
    exactly_one,
    fields,
    items,
    mapping,
    number,
    one_of,
    quantity,
    says,
    text,
)
from trigger.kubernetes_engine.policy_volume import FIELD_REFERENCE, NAME, RESOURCE_REFERENCE
from trigger.pod_names import CONFIG_KEY, DNS_LABEL, RESERVED_VOLUMES, problem_of_mount_path, problem_of_sub_path

MAX_ENV = 1000
_ENV_NAME = text(re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}"), "environment variable name")
_PORT = number(1, 65535)
_PORT_NAME = text(re.compile(r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?"), "port name")

SECCOMP = fields(
    {
        "type": one_of("RuntimeDefault", "Localhost"),
        "localhostProfile": text(re.compile(r"(?!(.*/)?\.\.(/|$))[\w.-]+(/[\w.-]+)*"), "profile below the kubelet's"),
    },
    required=("type",),
)


def container(allowed_images: tuple[str, ...], secret: Rule, *, is_init: bool = False) -> Rule:
    """One container. An init container may restart always, which makes it a sidecar."""
    known: dict[str, Rule] = {
        "name": text(DNS_LABEL, "container name"),
        "image": _image(allowed_images),
        "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
        "command": items(text(), 1000),
        "args": items(text(), 1000),
        "workingDir": text(longest=4096),
        "env": items(_env(secret), MAX_ENV),
        "envFrom": items(_env_from(secret)),
        "ports": items(_PORTS),
        "resources": fields({"requests": _RESOURCES, "limits": _RESOURCES}),
        "volumeMounts": items(both(_MOUNT, says(_over_ours))),
        "securityContext": _SECURITY,
        "terminationMessagePath": one_of("/dev/termination-log"),
        "terminationMessagePolicy": one_of("File", "FallbackToLogsOnError"),
        "startupProbe": _PROBE,
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
    }
    if is_init:
        known["restartPolicy"] = one_of("Always")
    return fields(
        known,
        required=("name", "image", "securityContext"),
        refused={
            "lifecycle": "a hook runs programs that no run waits for",
            "volumeDevices": "it gives the container a raw disk",
            "stdin": "nobody is at the other end",
            "tty": "nobody is at the other end",
            "restartPolicy": "the Job decides about further attempts",
            "restartPolicyRules": "the Job decides about further attempts",
        },
    )


def _image(patterns: tuple[str, ...]) -> Rule:
    def problem(value: Any) -> str | None:
        return images.refusal(value, patterns) if isinstance(value, str) else None

    return both(text(longest=1000), says(problem))


def _env(secret: Rule) -> Rule:
    reference = exactly_one(
        {
            "secretKeyRef": _key_reference(secret),
            "configMapKeyRef": _key_reference(NAME),
            "fieldRef": FIELD_REFERENCE,
            "resourceFieldRef": RESOURCE_REFERENCE,
        },
        {},
        {"fileKeyRef": "write secretKeyRef or configMapKeyRef"},
    )
    entry = fields({"name": _ENV_NAME, "value": text(), "valueFrom": reference}, required=("name",))
    return both(entry, says(_twice))


def _twice(value: Any) -> str | None:
    has_both = isinstance(value, Mapping) and value.get("value") and "valueFrom" in value
    return "has both value and valueFrom" if has_both else None


def _key_reference(name: Rule) -> Rule:
    return fields(
        {"name": name, "key": text(CONFIG_KEY, "key"), "optional": BOOLEAN},
        required=("name", "key"),
    )


def _env_from(secret: Rule) -> Rule:
    return exactly_one(
        {
            "secretRef": fields({"name": secret, "optional": BOOLEAN}, required=("name",)),
            "configMapRef": fields({"name": NAME, "optional": BOOLEAN}, required=("name",)),
        },
        {"prefix": _ENV_NAME},
        {},
    )


def _over_ours(mount: Any) -> str | None:
    """A mount of the function's own over code, input or work folder would replace what it is given."""
    if not isinstance(mount, Mapping):
        return None
    name, path = mount.get("name"), mount.get("mountPath")
    if not isinstance(path, str) or (isinstance(name, str) and name.startswith(RESERVED_VOLUMES)):
        return None
    return problem_of_mount_path(path)


def _sub_path(value: Any) -> str | None:
    return problem_of_sub_path(value) if isinstance(value, str) else None


def _resource_name(key: str) -> str | None:
    return None if re.fullmatch(r"[A-Za-z0-9./_-]{1,317}", key) else "is no name of a resource"


_RESOURCES = mapping(_resource_name, quantity())
_PORTS = fields(
    {"containerPort": _PORT, "name": _PORT_NAME, "protocol": one_of("TCP", "UDP", "SCTP")},
    required=("containerPort",),
    refused={"hostPort": "it is a port of the node", "hostIP": "it is an address of the node"},
)
_MOUNT = fields(
    {
        "name": text(DNS_LABEL, "volume name"),
        "mountPath": text(longest=4096),
        "readOnly": BOOLEAN,
        "recursiveReadOnly": one_of("Disabled", "IfPossible", "Enabled"),
        "subPath": both(text(longest=4096), says(_sub_path)),
        "mountPropagation": one_of("None"),
    },
    required=("name", "mountPath"),
    refused={"subPathExpr": "a variable would choose the folder; write subPath"},
)
_SECURITY = fields(
    {
        "allowPrivilegeEscalation": one_of(False),
        "capabilities": fields(
            {"drop": one_of(["ALL"]), "add": one_of([])},
            required=("drop",),
        ),
        "privileged": one_of(False),
        "procMount": one_of("Default"),
        "readOnlyRootFilesystem": BOOLEAN,
        "runAsNonRoot": one_of(True),
        "runAsUser": number(1),
        "runAsGroup": number(0),
        "seccompProfile": SECCOMP,
    },
    required=("allowPrivilegeEscalation", "capabilities"),
    refused={"seLinuxOptions": "the node's policy decides", "windowsOptions": "pods run on Linux"},
)
_PROBE = exactly_one(
    {
        "httpGet": fields(
            {"path": text(longest=2000), "port": _PORT, "scheme": one_of("HTTP", "HTTPS")},
            required=("port",),
            refused={"host": "the node would ask another host", "httpHeaders": "a probe needs none"},
        ),
        "tcpSocket": fields({"port": _PORT}, required=("port",), refused={"host": "the node would ask another host"}),
        "grpc": fields({"port": _PORT, "service": text(longest=200)}, required=("port",)),
    },
    {
        "initialDelaySeconds": number(0, 86_400),
        "timeoutSeconds": number(1, 86_400),
        "periodSeconds": number(1, 86_400),
        "successThreshold": number(1, 1000),
        "failureThreshold": number(1, 100_000),
    },
    {"exec": "a probe may ask over the network only"},
)
