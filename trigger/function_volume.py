"""The further volumes of a function's pods as they are written in YAML: what Kubernetes itself puts there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trigger.field_types import (
    ConfigKey,
    KubernetesFields,
    LabelValue,
    ObjectName,
    Quantity,
    ShortName,
    Text,
    clear_of,
    exactly_one,
    key_clear_of,
)
from trigger.function_container import FieldReferenceFields, ResourceReferenceFields
from trigger.pod_names import RESERVED_VOLUMES, problem_of_annotation_key, problem_of_label_key, problem_of_sub_path

Mode = Annotated[int, Field(ge=0, le=0o777)]
FilePath = Annotated[str, clear_of(problem_of_sub_path)]
Labels = dict[Annotated[str, key_clear_of(problem_of_label_key)], LabelValue]
Annotations = dict[Annotated[str, key_clear_of(problem_of_annotation_key)], Text]
ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")
AccessMode = Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]
_NODE = "it is a folder of the node; allowed are secret, configMap, emptyDir, projected, downwardAPI, "
_NODE += "persistentVolumeClaim and ephemeral"
_SERVER = "it goes past the cluster's storage; use a persistentVolumeClaim"
_COPY = "a run's volume begins empty, not as a copy of another claim"
_OTHERS = "it would take a volume of somebody else; use persistentVolumeClaim"


def _not_ours(name: str) -> str | None:
    return f"names that begin with {RESERVED_VOLUMES} are Invoker's own" if name.startswith(RESERVED_VOLUMES) else None


class ItemFields(KubernetesFields):
    key: ConfigKey
    path: FilePath
    mode: Mode | None = None


class DownwardItemFields(KubernetesFields):
    path: FilePath
    field_ref: FieldReferenceFields | None = None
    resource_field_ref: ResourceReferenceFields | None = None
    mode: Mode | None = None

    @model_validator(mode="after")
    def _one(self) -> DownwardItemFields:
        exactly_one(self, "field_ref", "resource_field_ref")
        return self


class SecretVolumeFields(KubernetesFields):
    secret_name: ObjectName
    items: list[ItemFields] | None = None
    default_mode: Mode | None = None
    optional: bool | None = None


class NamedItemsFields(KubernetesFields):
    name: ObjectName
    items: list[ItemFields] | None = None
    optional: bool | None = None


class ConfigMapVolumeFields(NamedItemsFields):
    default_mode: Mode | None = None


class EmptyDirFields(KubernetesFields):
    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class DownwardFields(KubernetesFields):
    items: list[DownwardItemFields] = Field(default_factory=list)


class DownwardVolumeFields(DownwardFields):
    default_mode: Mode | None = None


class ProjectedSourceFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "serviceAccountToken": "pods of runs have no identity at the API server",
        "podCertificate": "pods of runs have no identity at the API server",
        "clusterTrustBundle": "put the certificates into a configMap",
    }

    secret: NamedItemsFields | None = None
    config_map: NamedItemsFields | None = None
    downward_api: DownwardFields | None = Field(default=None, alias="downwardAPI")

    @model_validator(mode="after")
    def _one(self) -> ProjectedSourceFields:
        exactly_one(self, "secret", "config_map", "downward_api")
        return self


class ProjectedFields(KubernetesFields):
    sources: Annotated[list[ProjectedSourceFields], Field(max_length=20)]
    default_mode: Mode | None = None


class ClaimFields(KubernetesFields):
    claim_name: ObjectName
    read_only: bool | None = None


class StorageFields(KubernetesFields):
    storage: Quantity


class StorageRequestFields(KubernetesFields):
    requests: StorageFields


class ClaimSpecFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "dataSource": _COPY,
        "dataSourceRef": _COPY,
        "volumeName": _OTHERS,
        "selector": _OTHERS,
    }

    access_modes: Annotated[list[AccessMode], Field(min_length=1, max_length=3)]
    resources: StorageRequestFields
    storage_class_name: ObjectName | None = None
    volume_mode: Literal["Filesystem"] | None = None


class ClaimMetadataFields(KubernetesFields):
    labels: Labels | None = None
    annotations: Annotations | None = None


class ClaimTemplateFields(KubernetesFields):
    metadata: ClaimMetadataFields | None = None
    spec: ClaimSpecFields


class EphemeralFields(KubernetesFields):
    volume_claim_template: ClaimTemplateFields


class PodVolumeFields(KubernetesFields):
    """One volume. Folders of the node, servers past the cluster's storage and raw drivers are not among its sources."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "hostPath": _NODE,
        "local": _NODE,
        "csi": "an inline CSI volume takes any attributes; use ephemeral or persistentVolumeClaim",
        "gitRepo": "it runs git on the node",
        "flexVolume": "it runs a program on the node",
        "image": "a volume's image goes past the operator's list of images",
        **dict.fromkeys(("nfs", "iscsi", "cephfs", "rbd", "glusterfs", "fc"), _SERVER),
    }

    name: Annotated[ShortName, clear_of(_not_ours)]
    secret: SecretVolumeFields | None = None
    config_map: ConfigMapVolumeFields | None = None
    empty_dir: EmptyDirFields | None = None
    projected: ProjectedFields | None = None
    downward_api: DownwardVolumeFields | None = Field(default=None, alias="downwardAPI")
    persistent_volume_claim: ClaimFields | None = None
    ephemeral: EphemeralFields | None = None

    @model_validator(mode="after")
    def _one(self) -> PodVolumeFields:
        sources = ("secret", "config_map", "empty_dir", "projected", "downward_api", "persistent_volume_claim")
        exactly_one(self, *sources, "ephemeral")
        return self
