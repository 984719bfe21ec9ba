"""A function's own Job, `spec.job`, as it is written in YAML: a whole JobSpec under what Invoker forces on every one.

Pure. What is forced may be repeated with the same value, never changed. `kubernetes_engine.job_spec` lays the forced
settings over it, `trigger.pod_check` does what needs several parts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trigger.field_types import KubernetesFields, only
from trigger.function_container import JobContainerFields, JobInitContainerFields
from trigger.function_pod import HOST_REFUSED, PlacementFields
from trigger.function_volume import Annotations, Labels

_WHOLE = "job: is the Job's spec alone: write what stands under spec: of the manifest"
_SUCCESS = "it would decide in Invoker's place when a run has succeeded"
_ONE = "a run is one pod at a time"


class DisruptionFields(KubernetesFields):
    type: Literal["DisruptionTarget"]
    status: Annotated[Any, only("True", "it says that the pod was disturbed")] = None


class FailureRuleFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {"onExitCodes": "write spec.noRetryExitCodes"}

    action: Annotated[str, only("Ignore", "disruptions never count as attempts")]
    on_pod_conditions: Annotated[list[DisruptionFields], Field(min_length=1, max_length=1)]


class FailurePolicyFields(KubernetesFields):
    """Only what holds anyway: Invoker makes the rules, out of `noRetryExitCodes`."""

    rules: Annotated[list[FailureRuleFields], Field(max_length=1)]


class JobPodFields(PlacementFields, KubernetesFields):
    """The pod inside `job:`."""

    REFUSED: ClassVar[Mapping[str, str]] = HOST_REFUSED

    containers: Annotated[list[JobContainerFields], Field(max_length=20)] = Field(default_factory=list)
    init_containers: Annotated[list[JobInitContainerFields], Field(max_length=20)] | None = None
    restart_policy: Annotated[Any, only("Never", "every attempt is a pod of its own; write spec.backoffLimit")] = None
    automount_service_account_token: Annotated[Any, only(False, "pods of runs have no identity at the API server")] = (
        None
    )
    host_network: Annotated[Any, only(False, "it shares the node's network")] = None
    host_pid: Annotated[Any, only(False, "it shows the node's processes")] = Field(default=None, alias="hostPID")
    host_ipc: Annotated[Any, only(False, "it shares the node's memory segments")] = Field(default=None, alias="hostIPC")
    host_users: Annotated[Any, only(False, "the pod's users must not be the node's")] = None
    share_process_namespace: Annotated[Any, only(False, "containers of a pod see their own processes only")] = None
    scheduler_name: Annotated[Any, only("default-scheduler", "there is one scheduler")] = None
    dns_policy: Literal["ClusterFirst", "Default"] | None = None
    enable_service_links: bool | None = None


class JobTemplateMetadataFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("name", "generateName"), "the name of a run's pod derives from the run"),
        "namespace": "runs are in the controller's namespace",
        "finalizers": "Invoker releases its pods itself",
        "ownerReferences": "the pod's owner is its Job",
    }

    labels: Labels | None = None
    annotations: Annotations | None = None


class JobTemplateFields(KubernetesFields):
    metadata: JobTemplateMetadataFields | None = None
    spec: JobPodFields


class JobFields(KubernetesFields):
    """A JobSpec. `backoffLimit` and `ttlSecondsAfterFinished` are the function's own, in its spec."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("apiVersion", "kind", "metadata", "spec", "status"), _WHOLE),
        "selector": "a Job must not adopt the pods of others",
        "successPolicy": _SUCCESS,
        "activeDeadlineSeconds": "write spec.timeoutSeconds and spec.pendingTimeoutSeconds",
        "backoffLimitPerIndex": _ONE,
        "maxFailedIndexes": _ONE,
    }

    template: JobTemplateFields
    parallelism: Annotated[Any, only(1, _ONE)] = None
    completions: Annotated[Any, only(1, "a run is done once")] = None
    completion_mode: Annotated[Any, only("NonIndexed", "a run is done once")] = None
    backoff_limit: Annotated[int, Field(ge=0, le=100)] | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    suspend: Annotated[Any, only(False, "a run starts when it is created; use spec.pod.queue for Kueue")] = None
    manual_selector: Annotated[Any, only(False, "a Job must not adopt the pods of others")] = None
    managed_by: Annotated[
        Any, only("kubernetes.io/job-controller", "with another controller the Job would never run")
    ] = None
    pod_replacement_policy: Annotated[Any, only("Failed", "attempts of a run never overlap")] = None
    pod_failure_policy: FailurePolicyFields | None = None


def without_nothing(value: Any) -> Any:
    """The Job as it was written, without the keys that have no value: to Kubernetes they are not there."""
    if isinstance(value, Mapping):
        return {key: without_nothing(one) for key, one in value.items() if one is not None}
    return [without_nothing(one) for one in value] if isinstance(value, list) else value
