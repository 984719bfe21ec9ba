"""What a Job may contain: an allow-list over the finished object, whoever wrote which part of it.

Pure. This is the second line of defence: functions are checked when they are loaded, and the Job that is about to be
created is checked again here, as a whole and without trusting how it came about. What is not known to be harmless is
refused. The rules of one operator are built once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.allow_list import (
    BOOLEAN,
    Rule,
    both,
    fields,
    items,
    mapping,
    number,
    one_of,
    says,
    shown,
    text,
)
from trigger.kubernetes_engine.policy_container import SECCOMP, container
from trigger.kubernetes_engine.policy_volume import volume
from trigger.pod_names import (
    DNS_LABEL,
    DNS_NAME,
    LABEL_KEY,
    LABEL_VALUE,
    problem_of_annotation_key,
    problem_of_label_key,
)

MAX_JOB_BYTES = 1024 * 1024
MAX_ANNOTATIONS_BYTES = 256 * 1024
SYSTEM_PRIORITY = "system-"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator allows. Every list holds patterns (`*` and `?`); `("*",)` is anything, `()` is nothing.

    `allowed_images` has the grammar of `images`. No service account besides `default` is allowed unless named; priority
    classes that begin with `system-` never are. `forbidden_secrets` wins over
    `allowed_secrets`. `max_volume_bytes` bounds each ephemeral volume.
    """

    namespace: str
    allowed_images: tuple[str, ...] = ("*",)
    allowed_service_accounts: tuple[str, ...] = ()
    allowed_priority_classes: tuple[str, ...] = ("*",)
    allowed_secrets: tuple[str, ...] = ("*",)
    forbidden_secrets: tuple[str, ...] = ()
    allowed_volume_claims: tuple[str, ...] = ("*",)
    allowed_storage_classes: tuple[str, ...] = ("*",)
    max_volume_bytes: int | None = None


def refusals(job: Mapping[str, Any], policy: Policy) -> list[str]:
    """Why this Job may not be created, one sentence for each place (`spec.template.spec.hostPID: …`); empty: it may.

    `job` is the whole object (apiVersion, kind, metadata, spec) as it will be sent. Never raises for what stands in
    it; raises `images.ImageError` when the policy's own image patterns are none.
    """
    try:
        size = len(json.dumps(job, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError):
        return ["the Job is no plain JSON"]
    if size > MAX_JOB_BYTES:
        return [f"the Job has {size} bytes; at most {MAX_JOB_BYTES} are allowed"]
    return list(_job(policy)(job, ""))


_NAME = text(DNS_NAME, "name of a Kubernetes object", 253)
_INSTANCE_KEYS = (names.INSTANCE, names.FUNCTION, names.RUN)


@lru_cache(maxsize=64)
def _job(policy: Policy) -> Rule:
    return fields(
        {
            "apiVersion": one_of("batch/v1"),
            "kind": one_of("Job"),
            "metadata": _metadata(policy),
            "spec": _spec(policy),
        },
        required=("apiVersion", "kind", "metadata", "spec"),
    )


def _metadata(policy: Policy) -> Rule:
    return fields(
        {
            "name": text(DNS_LABEL, "name of a Job", names.MAX_NAME),
            "namespace": one_of(policy.namespace),
            "labels": _JOB_LABELS,
            "annotations": _ANNOTATIONS,
            "finalizers": one_of([names.RESULT_FINALIZER]),
        },
        required=("name", "labels", "finalizers"),
        refused={
            "generateName": "the name of a run's Job derives from the run",
            "ownerReferences": "what owns a Job can delete it",
        },
    )


def _spec(policy: Policy) -> Rule:
    return fields(
        {
            "parallelism": one_of(1),
            "completions": one_of(1),
            "completionMode": one_of("NonIndexed"),
            "backoffLimit": number(0, 100),
            "ttlSecondsAfterFinished": number(0),
            "activeDeadlineSeconds": number(1),
            "podReplacementPolicy": one_of("Failed"),
            "podFailurePolicy": _FAILURE_POLICY,
            "suspend": one_of(False),
            "manualSelector": one_of(False),
            "managedBy": one_of("kubernetes.io/job-controller"),
            "template": fields(
                {"metadata": fields({"labels": _POD_LABELS, "annotations": _ANNOTATIONS}), "spec": _pod(policy)},
                required=("spec",),
            ),
        },
        required=("parallelism", "completions", "backoffLimit", "podReplacementPolicy", "template"),
        refused={
            "selector": "a Job must not adopt the pods of others",
            "successPolicy": "it would decide in Invoker's place when a run has succeeded",
            "backoffLimitPerIndex": "a run is one pod at a time",
            "maxFailedIndexes": "a run is one pod at a time",
        },
    )


def _key_rule(problem: Any, own: Mapping[str, Rule], value: Rule) -> Rule:
    """Labels or annotations: ours with their own rule, others where nobody else's name is taken."""

    def check(found: Any, place: str) -> Any:
        if isinstance(found, Mapping):
            for key in own.keys() & found.keys():
                yield from own[key](found[key], f"{place}[{key}]")
            found = {key: one for key, one in found.items() if key not in own}
        yield from mapping(problem, value)(found, place)

    return check


_LABEL = text(LABEL_VALUE, "label value", 63)
_OUR_LABELS: dict[str, Rule] = {
    names.MANAGED_BY: one_of(names.MANAGER),
    names.INSTANCE: _LABEL,
    names.FUNCTION: _LABEL,
    names.RUN: _LABEL,
    names.REQUEST: _LABEL,
}
_OUR_ANNOTATIONS: dict[str, Rule] = {
    key: text() for key in vars(names).values() if isinstance(key, str) and key.startswith("invoker.dev/")
}


def _required_keys(*keys: str) -> Rule:
    def check(found: Any, place: str) -> Any:
        for key in keys:
            if isinstance(found, Mapping) and key not in found:
                yield f"{place}[{key}]: is missing"

    return check


def _small(annotations: Any) -> str | None:
    if not isinstance(annotations, Mapping):
        return None
    size = sum(len(str(part).encode("utf-8", "replace")) for pair in annotations.items() for part in pair)
    return f"has {size} bytes; at most {MAX_ANNOTATIONS_BYTES} are allowed" if size > MAX_ANNOTATIONS_BYTES else None


_QUEUE = {"kueue.x-k8s.io/queue-name": _LABEL, "kueue.x-k8s.io/priority-class": _LABEL}
_OURS_THERE = _required_keys(names.MANAGED_BY, *_INSTANCE_KEYS)
_JOB_LABELS = both(_OURS_THERE, _key_rule(problem_of_label_key, {**_OUR_LABELS, **_QUEUE}, _LABEL))
_POD_LABELS = _key_rule(problem_of_label_key, _OUR_LABELS, _LABEL)
_ANNOTATIONS = both(says(_small), _key_rule(problem_of_annotation_key, _OUR_ANNOTATIONS, text()))
_FAILURE_POLICY = fields(
    {
        "rules": items(
            fields(
                {
                    "action": one_of("Ignore", "FailJob"),
                    "onPodConditions": one_of(
                        [{"type": "DisruptionTarget"}], [{"type": "DisruptionTarget", "status": "True"}]
                    ),
                    "onExitCodes": fields(
                        {
                            "containerName": one_of(names.FUNCTION_CONTAINER, names.INPUT_CONTAINER),
                            "operator": one_of("In"),
                            "values": items(number(1, 255), 255, 1),
                        },
                        required=("operator", "values"),
                    ),
                },
                required=("action",),
            ),
            20,
        )
    },
    required=("rules",),
)

_ID = number(1)
_GROUP = number(0)
_POD_SECURITY = fields(
    {
        "runAsNonRoot": one_of(True),
        "runAsUser": _ID,
        "runAsGroup": _GROUP,
        "fsGroup": _GROUP,
        "fsGroupChangePolicy": one_of("OnRootMismatch", "Always"),
        "supplementalGroups": items(_GROUP),
        "supplementalGroupsPolicy": one_of("Merge", "Strict"),
        "seccompProfile": SECCOMP,
    },
    required=("runAsNonRoot", "seccompProfile"),
    refused={
        "sysctls": "they change the node's kernel settings",
        "seLinuxOptions": "the node's policy decides",
        "windowsOptions": "pods run on Linux",
    },
)
_POD_REFUSED = {
    "hostNetwork": "it shares the node's network",
    "hostPID": "it shows the node's processes",
    "hostIPC": "it shares the node's memory segments",
    "nodeName": "it goes past the scheduler; use nodeSelector",
    "serviceAccount": "write serviceAccountName",
    "ephemeralContainers": "they are for people who look into a pod",
    "dnsConfig": "it changes which addresses names have",
    "hostAliases": "it changes which addresses names have",
    "hostname": "pods of runs are not addressed by name",
    "subdomain": "pods of runs are not addressed by name",
    "priority": "write priorityClassName",
    "readinessGates": "nobody waits for pods of runs to be ready",
    "resourceClaims": "devices are asked for by resources.limits",
}


def _allowed(patterns: tuple[str, ...], what: str) -> Rule:
    def problem(value: Any) -> str | None:
        if not isinstance(value, str) or any(fnmatchcase(value, pattern) for pattern in patterns):
            return None
        return f"the {what} {shown(value)} is not allowed here; allowed: {', '.join(patterns) or 'none'}"

    return both(_NAME, says(problem))


def _not_forbidden(patterns: tuple[str, ...]) -> Rule:
    def problem(value: Any) -> str | None:
        if isinstance(value, str) and any(fnmatchcase(value, pattern) for pattern in patterns):
            return f"the secret {shown(value)} is never for functions here (INVOKER_FORBIDDEN_SECRETS)"
        return None

    return says(problem)


def _not_system(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith(SYSTEM_PRIORITY):
        return f"{shown(value)} would push the cluster's own pods away; no class of {SYSTEM_PRIORITY}* is allowed"
    return None


def _account(policy: Policy) -> Rule:
    return _allowed(("default", *policy.allowed_service_accounts), "service account")


def _pod(policy: Policy) -> Rule:
    secret = both(_not_forbidden(policy.forbidden_secrets), _allowed(policy.allowed_secrets, "secret"))
    claim = _allowed(policy.allowed_volume_claims, "volume claim")
    storage_class = _allowed(policy.allowed_storage_classes, "storage class")
    return fields(
        {
            "restartPolicy": one_of("Never"),
            "automountServiceAccountToken": one_of(False),
            "securityContext": _POD_SECURITY,
            "containers": both(items(container(policy.allowed_images, secret), 20, 1), says(_one_function)),
            "initContainers": items(container(policy.allowed_images, secret, is_init=True), 20),
            "volumes": items(volume(secret, claim, storage_class, policy.max_volume_bytes), 50),
            "serviceAccountName": _account(policy),
            "priorityClassName": both(says(_not_system), _allowed(policy.allowed_priority_classes, "priority class")),
            "preemptionPolicy": one_of("Never", "PreemptLowerPriority"),
            "runtimeClassName": _NAME,
            "imagePullSecrets": items(fields({"name": secret}, required=("name",))),
            "nodeSelector": mapping(lambda key: None, text(LABEL_VALUE, "label value")),
            "tolerations": items(_TOLERATION),
            "affinity": _AFFINITY,
            "topologySpreadConstraints": items(_SPREAD),
            "terminationGracePeriodSeconds": number(0, 86_400),
            "activeDeadlineSeconds": number(1),
            "enableServiceLinks": BOOLEAN,
            "dnsPolicy": one_of("ClusterFirst", "Default"),
            "schedulerName": one_of("default-scheduler"),
            "hostNetwork": one_of(False),
            "hostPID": one_of(False),
            "hostIPC": one_of(False),
            "hostUsers": one_of(False),
            "shareProcessNamespace": one_of(False),
            "os": one_of({"name": "linux"}),
        },
        required=("restartPolicy", "automountServiceAccountToken", "securityContext", "containers"),
        refused=_POD_REFUSED,
    )


def _one_function(containers: Any) -> str | None:
    found = [one.get("name") for one in containers if isinstance(one, Mapping)] if isinstance(containers, list) else []
    if found.count(names.FUNCTION_CONTAINER) != 1:
        return f"must have exactly one container named {names.FUNCTION_CONTAINER!r}"
    return None


_TOLERATION = fields(
    {
        "key": text(LABEL_KEY, "key of a taint", 320),
        "operator": one_of("Exists", "Equal"),
        "value": _LABEL,
        "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        "tolerationSeconds": number(0),
    },
    required=("key",),
)
_EXPRESSIONS = items(
    fields(
        {
            "key": text(),
            "operator": one_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
            "values": items(text()),
        },
        required=("key", "operator"),
    )
)
_SELECTOR = fields({"matchLabels": mapping(lambda key: None, _LABEL), "matchExpressions": _EXPRESSIONS})
_NODE_TERM = fields({"matchExpressions": _EXPRESSIONS, "matchFields": _EXPRESSIONS})
_POD_TERM = fields(
    {
        "labelSelector": _SELECTOR,
        "topologyKey": text(),
        "matchLabelKeys": items(text()),
        "mismatchLabelKeys": items(text()),
    },
    required=("topologyKey",),
    refused={
        "namespaces": "it looks at pods of other namespaces",
        "namespaceSelector": "it looks at pods of other namespaces",
    },
)
_WEIGHT = number(1, 100)
_POD_AFFINITY = fields(
    {
        "requiredDuringSchedulingIgnoredDuringExecution": items(_POD_TERM),
        "preferredDuringSchedulingIgnoredDuringExecution": items(
            fields({"weight": _WEIGHT, "podAffinityTerm": _POD_TERM}, required=("weight", "podAffinityTerm"))
        ),
    }
)
_AFFINITY = fields(
    {
        "nodeAffinity": fields(
            {
                "requiredDuringSchedulingIgnoredDuringExecution": fields(
                    {"nodeSelectorTerms": items(_NODE_TERM)}, required=("nodeSelectorTerms",)
                ),
                "preferredDuringSchedulingIgnoredDuringExecution": items(
                    fields({"weight": _WEIGHT, "preference": _NODE_TERM}, required=("weight", "preference"))
                ),
            }
        ),
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    }
)
_SPREAD = fields(
    {
        "maxSkew": number(1),
        "topologyKey": text(),
        "whenUnsatisfiable": one_of("DoNotSchedule", "ScheduleAnyway"),
        "labelSelector": _SELECTOR,
        "minDomains": number(1),
        "nodeAffinityPolicy": one_of("Honor", "Ignore"),
        "nodeTaintsPolicy": one_of("Honor", "Ignore"),
        "matchLabelKeys": items(text()),
    },
    required=("maxSkew", "topologyKey", "whenUnsatisfiable"),
)
