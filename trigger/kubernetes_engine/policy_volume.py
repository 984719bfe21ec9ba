"""The volumes that a pod may have: what Kubernetes itself puts there, never a folder of the node. Pure."""

from __future__ import annotations

from typing import Any

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
from trigger.pod_names import (
    CONFIG_KEY,
    DNS_LABEL,
    DNS_NAME,
    LABEL_VALUE,
    MANAGED_BY,
    OURS,
    problem_of_annotation_key,
    problem_of_label_key,
    problem_of_sub_path,
)

NAME = text(DNS_NAME, "name of a Kubernetes object", 253)
_MODE = number(0, 0o777)
_REFUSED = {
    "hostPath": "it is a folder of the node",
    "local": "it is a folder of the node",
    "csi": "an inline CSI volume takes any attributes; use an ephemeral volume or a volume claim",
    "nfs": "it reaches a server past the cluster's storage; use a volume claim",
    "iscsi": "it reaches a server past the cluster's storage; use a volume claim",
    "cephfs": "it reaches a server past the cluster's storage; use a volume claim",
    "gitRepo": "it runs git on the node",
    "flexVolume": "it runs a program on the node",
    "image": "images are what the operator's list allows, and this is not checked by it",
}
FIELD_REFERENCE = fields(
    {
        "apiVersion": one_of("v1"),
        "fieldPath": text(longest=400),
    },
    required=("fieldPath",),
)
RESOURCE_REFERENCE = fields(
    {"containerName": text(DNS_LABEL, "container name"), "resource": text(longest=100), "divisor": quantity()},
    required=("resource",),
)


def _path(value: Any) -> str | None:
    return problem_of_sub_path(value) if isinstance(value, str) else None


_FILE_PATH = both(text(longest=4096), says(_path))
_ITEMS = items(
    fields(
        {"key": text(CONFIG_KEY, "key"), "path": _FILE_PATH, "mode": _MODE},
        required=("key", "path"),
    ),
    1000,
)
_DOWNWARD_ITEMS = items(
    fields(
        {"path": _FILE_PATH, "fieldRef": FIELD_REFERENCE, "resourceFieldRef": RESOURCE_REFERENCE, "mode": _MODE},
        required=("path",),
    )
)
_EMPTY_DIR = fields({"medium": one_of("", "Memory"), "sizeLimit": quantity()})
_CONFIG_MAP = fields(
    {"name": NAME, "items": _ITEMS, "defaultMode": _MODE, "optional": BOOLEAN},
    required=("name",),
)
_DOWNWARD = fields({"items": _DOWNWARD_ITEMS, "defaultMode": _MODE})


def volume(secret: Rule, claim: Rule, storage_class: Rule, most_bytes: int | None) -> Rule:
    """One entry of a pod's volumes; the operator's rules for names in it, and what a fresh one may hold."""
    sources = {
        "emptyDir": _EMPTY_DIR,
        "configMap": _CONFIG_MAP,
        "downwardAPI": _DOWNWARD,
        "secret": fields(
            {"secretName": secret, "items": _ITEMS, "defaultMode": _MODE, "optional": BOOLEAN},
            required=("secretName",),
        ),
        "projected": _projected(secret),
        "persistentVolumeClaim": fields({"claimName": claim, "readOnly": BOOLEAN}, required=("claimName",)),
        "ephemeral": _ephemeral(storage_class, most_bytes),
    }
    return exactly_one(sources, {"name": text(DNS_LABEL, "volume name")}, _REFUSED)


def _label_key(key: str) -> str | None:
    """Invoker's own labels are on its claims too: they are how what is left over is found."""
    return None if key == MANAGED_BY or key.startswith(OURS) else problem_of_label_key(key)


_ANNOTATIONS = mapping(problem_of_annotation_key, text())


def _projected(secret: Rule) -> Rule:
    optional = {"name": NAME, "items": _ITEMS, "optional": BOOLEAN}
    source = exactly_one(
        {
            "secret": fields({**optional, "name": secret}, required=("name",)),
            "configMap": fields(optional, required=("name",)),
            "downwardAPI": fields({"items": _DOWNWARD_ITEMS}),
        },
        {},
        {
            "serviceAccountToken": "pods of runs have no identity at the API server",
            "clusterTrustBundle": "mount a ConfigMap with the certificates",
            "podCertificate": "pods of runs have no identity at the API server",
        },
    )
    return fields({"sources": items(source, 20), "defaultMode": _MODE}, required=("sources",))


def _ephemeral(storage_class: Rule, most_bytes: int | None) -> Rule:
    size = fields({"storage": quantity(most_bytes)}, required=("storage",))
    claim = fields(
        {
            "accessModes": items(one_of("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"), 3, 1),
            "resources": fields({"requests": size}, required=("requests",)),
            "storageClassName": storage_class,
            "volumeMode": one_of("Filesystem"),
        },
        required=("accessModes", "resources"),
        refused={
            "dataSource": "a run's volume begins empty, not as a copy of another claim",
            "dataSourceRef": "a run's volume begins empty, not as a copy of another claim",
            "volumeName": "it would take a volume of somebody else",
            "selector": "it would take a volume of somebody else",
        },
    )
    metadata = fields({"labels": mapping(_label_key, text(LABEL_VALUE, "label value")), "annotations": _ANNOTATIONS})
    return fields(
        {"volumeClaimTemplate": fields({"metadata": metadata, "spec": claim}, required=("spec",))},
        required=("volumeClaimTemplate",),
    )
