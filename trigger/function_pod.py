"""A function's own pod settings, `spec.pod`, as they are written in YAML: an allow-list in Kubernetes' spelling.

Pure. What every pod of a run has anyway (no root, no capabilities, no token, no restart) cannot be changed here; what
is not named here is refused when the function is loaded. `trigger.pod_check` does what needs several parts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trigger.field_types import Fields, KubernetesFields, LabelValue, ObjectName, clear_of, only
from trigger.function_container import (
    EnvFromFields,
    GroupId,
    InitContainerFields,
    MountFields,
    PullPolicy,
    SeccompFields,
    SidecarFields,
    UserId,
)
from trigger.function_volume import Annotations, Labels, PodVolumeFields

GraceSeconds = Annotated[int, Field(ge=1, le=3600)]
_Weight = Annotated[int, Field(ge=1, le=100)]
_Key = Annotated[str, Field(min_length=1, max_length=320)]
_NAMESPACES = "it looks at pods of other namespaces"


def _not_system(name: str) -> str | None:
    if name.startswith("system-"):
        return f"{name} would push the cluster's own pods away; take another class"
    return None


class TolerationFields(KubernetesFields):
    """A toleration has a key: without one it would stand every taint of every node."""

    key: _Key
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class ExpressionFields(KubernetesFields):
    key: _Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] | None = None


class SelectorFields(KubernetesFields):
    match_labels: dict[str, LabelValue] | None = None
    match_expressions: list[ExpressionFields] | None = None


class NodeTermFields(KubernetesFields):
    match_expressions: list[ExpressionFields] | None = None
    match_fields: list[ExpressionFields] | None = None


class RequiredNodesFields(KubernetesFields):
    node_selector_terms: Annotated[list[NodeTermFields], Field(min_length=1)]


class PreferredNodesFields(KubernetesFields):
    weight: _Weight
    preference: NodeTermFields


class NodeAffinityFields(KubernetesFields):
    required: RequiredNodesFields | None = Field(default=None, alias="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredNodesFields] | None = Field(
        default=None, alias="preferredDuringSchedulingIgnoredDuringExecution"
    )


class PodTermFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {"namespaces": _NAMESPACES, "namespaceSelector": _NAMESPACES}

    topology_key: _Key
    label_selector: SelectorFields | None = None
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class PreferredPodsFields(KubernetesFields):
    weight: _Weight
    pod_affinity_term: PodTermFields


class PodAffinityFields(KubernetesFields):
    required: list[PodTermFields] | None = Field(default=None, alias="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredPodsFields] | None = Field(
        default=None, alias="preferredDuringSchedulingIgnoredDuringExecution"
    )


class AffinityFields(KubernetesFields):
    node_affinity: NodeAffinityFields | None = None
    pod_affinity: PodAffinityFields | None = None
    pod_anti_affinity: PodAffinityFields | None = None


class SpreadFields(KubernetesFields):
    max_skew: Annotated[int, Field(ge=1)]
    topology_key: _Key
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: SelectorFields | None = None
    min_domains: Annotated[int, Field(ge=1)] | None = None
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    match_label_keys: list[str] | None = None


class SecretNameFields(KubernetesFields):
    name: ObjectName


class PodSecurityFields(KubernetesFields):
    """What may be chosen below Pod Security `restricted`, which every pod gets."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "sysctls": "they change the node's kernel settings",
        "seLinuxOptions": "the node's own policy decides",
        "seLinuxChangePolicy": "the node's own policy decides",
        "windowsOptions": "pods run on Linux",
        "appArmorProfile": "the runtime's default profile is used",
        "privileged": "a privileged container owns its node",
        "capabilities": "all capabilities are dropped, always",
    }

    run_as_user: UserId | None = None
    run_as_group: GroupId | None = None
    run_as_non_root: Annotated[Any, only(True, "functions never run as root")] = None
    fs_group: GroupId | None = None
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = None
    supplemental_groups: list[GroupId] | None = None
    supplemental_groups_policy: Literal["Merge", "Strict"] | None = None
    seccomp_profile: SeccompFields | None = None


HOST_REFUSED = {
    "nodeName": "it goes past the scheduler; use nodeSelector",
    "serviceAccount": "write serviceAccountName",
    "ephemeralContainers": "they are for people who look into a pod",
    "dnsConfig": "it changes which addresses names have",
    "hostAliases": "it changes which addresses names have",
    "hostname": "pods of runs are not addressed by name",
    "subdomain": "pods of runs are not addressed by name",
    "priority": "write priorityClassName",
    "overhead": "the runtime class sets it",
    "readinessGates": "nobody waits for pods of runs to be ready",
    "schedulingGates": "a run that waits for a gate would only run out of time; use queue",
    "resourceClaims": "devices are asked for by resources.limits",
    "activeDeadlineSeconds": "write spec.timeoutSeconds and spec.pendingTimeoutSeconds",
}


class PlacementFields(Fields):
    """Where a pod runs, as whom, and with which volumes: the part that `spec.pod` and the pod of `job:` have alike."""

    node_selector: dict[str, LabelValue] | None = None
    tolerations: list[TolerationFields] | None = None
    affinity: AffinityFields | None = None
    topology_spread_constraints: list[SpreadFields] | None = None
    service_account_name: ObjectName | None = None
    priority_class_name: Annotated[ObjectName, clear_of(_not_system)] | None = None
    runtime_class_name: ObjectName | None = None
    image_pull_secrets: list[SecretNameFields] | None = None
    termination_grace_period_seconds: GraceSeconds | None = None
    security_context: PodSecurityFields | None = None
    volumes: Annotated[list[PodVolumeFields], Field(max_length=50)] | None = None


class PodFields(PlacementFields):
    """`spec.pod`. `sidecars` become init containers that restart always, so they never keep the Job from ending."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **HOST_REFUSED,
        "hostNetwork": "it shares the node's network",
        "hostPID": "it shows the node's processes",
        "hostIPC": "it shares the node's memory segments",
        "hostUsers": "the cluster decides about user namespaces",
        "shareProcessNamespace": "containers of a pod see their own processes only",
        "automountServiceAccountToken": "pods of runs have no identity at the API server",
        "restartPolicy": "it is Never on every run; write spec.backoffLimit",
        "containers": "the function's container is the spec itself; others are initContainers and sidecars",
        "env": "write spec.env",
        "resources": "write spec.resources",
        "image": "write spec.image",
        "privileged": "a privileged container owns its node",
    }

    image_pull_policy: PullPolicy | None = None
    read_only_root_filesystem: bool | None = None
    env_from: Annotated[list[EnvFromFields], Field(max_length=100)] | None = None
    volume_mounts: Annotated[list[MountFields], Field(max_length=100)] | None = None
    init_containers: Annotated[list[InitContainerFields], Field(max_length=20)] | None = None
    sidecars: Annotated[list[SidecarFields], Field(max_length=20)] | None = None
    labels: Labels | None = None
    annotations: Annotations | None = None
    queue: ObjectName | None = None


def written(fields: Fields) -> dict[str, Any]:
    """What the owner wrote, in Kubernetes' spelling, without the keys that were left out."""
    return fields.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
