"""A plan → the Job of its run. Pure: the same plan, options and clock give the same object.

What the design forces stands here and cannot be changed by a function: one pod at a time, no restart inside it, the
finalizer, Pod Security `restricted`, no token of a service account. What a function may choose comes from `plan.pod`,
checked when the catalog was loaded and once more, as a whole, by `policy`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from invoker.errors import StartRefusedError
from invoker.result import Reason
from invoker.runtime import IMAGE_FETCH_COMMAND
from invoker.runtime.exits import NO_RETRY
from trigger.kubernetes_engine import names, terms
from trigger.kubernetes_engine.code_map import CodeMap
from trigger.kubernetes_engine.job_spec import merged
from trigger.kubernetes_engine.policy import MAX_JOB_BYTES
from trigger.plan import InputMode, OutputMode, RunPlan
from trigger.pod_names import USER_ID

WORK_PATH, CODE_PATH, INPUT_FOLDER = "/work", "/code", "/invoker"
INPUT_FILE = f"{INPUT_FOLDER}/input"
TERMINATION_FILE = "/dev/termination-log"
WORK_VOLUME, CODE_VOLUME, INPUT_VOLUME = "invoker-work", "invoker-code", "invoker-input"

UNSEALED_TTL_SECONDS = 7 * 86_400
"""While a result is not sealed, the Job's pods and logs are kept for so long at least, and in any case until the run is
given up: the function's own TTL is set with the release."""
BACKSTOP_SECONDS = 60
"""Controllers keep the limits. Kubernetes does so later by this much, for the case that none is alive."""
COMMAND_IMAGE = "command"
"""The key of `runtime_images` for functions that give a command and no image."""


@dataclass(frozen=True, slots=True)
class ManifestOptions:
    """What an operator chose for all functions: the instance, the images of the runtimes, how they are pulled, and the
    user that pods run as where a function names none; None leaves that to image and cluster."""

    instance: str = "invoker"
    runtime_images: Mapping[str, str] = field(default_factory=dict)
    image_pull_policy: str | None = None
    user_id: int | None = USER_ID


def job_manifest(plan: RunPlan, options: ManifestOptions, code: CodeMap | None, now: datetime) -> dict[str, Any]:
    """The Job of one run. Raises `StartRefusedError` (config) when nothing says which image to run, or when the
    function's own `job:` contradicts what is forced."""
    labels = _labels(plan, options.instance)
    settings = _settings(plan)
    metadata = {
        "name": names.job_name(options.instance, plan.run_id),
        "labels": labels | _queue(settings),
        "annotations": {**settings.get("annotations", {}), **_annotations(plan, code)},
        "finalizers": [names.RESULT_FINALIZER],
    }
    spec: dict[str, Any] = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": plan.limits.backoff_limit,
        "ttlSecondsAfterFinished": UNSEALED_TTL_SECONDS,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules(plan)},
        "template": {
            "metadata": {"labels": labels, "annotations": dict(settings.get("annotations", {}))},
            "spec": _pod_spec(plan, options, code, settings),
        },
    }
    if plan.deadline_at is not None:
        left = (plan.deadline_at - now).total_seconds()
        spec["activeDeadlineSeconds"] = max(1, math.ceil(left)) + BACKSTOP_SECONDS
        spec["ttlSecondsAfterFinished"] = max(UNSEALED_TTL_SECONDS, math.ceil(left * 2))
    if plan.pod.get("job"):
        spec = merged(plan.pod["job"], spec)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def job_body(plan: RunPlan, manifest: Mapping[str, Any]) -> bytes:
    """The Job as it is sent. Raises `StartRefusedError`: config for text that is half of a character, refused for a Job
    that its request's values made too large."""
    try:
        body = to_json(manifest)
    except PydanticSerializationError as error:
        raise StartRefusedError(
            f"the Job of function {plan.function} has text that is not valid Unicode (half of a surrogate pair)",
            hint="look for \\ud800 to \\udfff in its spec and in what the request gave it",
            reason=str(Reason.CONFIG),
        ) from error
    if len(body) > MAX_JOB_BYTES:
        raise StartRefusedError(
            f"the Job of function {plan.function} has {len(body)} bytes; at most {MAX_JOB_BYTES} are allowed",
            hint="large values belong into the event's body",
            reason=str(Reason.REFUSED),
        )
    return body


def function_image(plan: RunPlan, options: ManifestOptions) -> str:
    """The image of the function's container. Raises `StartRefusedError` (config) when there is none."""
    if plan.code.image is not None:
        return plan.code.image
    kind = plan.code.runtime or COMMAND_IMAGE
    image = options.runtime_images.get(kind) or (
        options.runtime_images.get("python") if kind == COMMAND_IMAGE else None
    )
    if image is None:
        what = f"the runtime {kind!r}" if plan.code.runtime else "a command without an image"
        raise StartRefusedError(
            f"function {plan.function} needs an image: none is configured for {what}",
            hint="give the function 'image:', or set INVOKER_RUNTIME_IMAGES=python=IMAGE",
            reason=str(Reason.CONFIG),
        )
    return image


def _image(plan: RunPlan, options: ManifestOptions) -> dict[str, str]:
    code = plan.code
    if plan.pod.get("job") and code.image is None and code.runtime is None and code.command is None:
        return {}  # the function's own Job names it
    return {"image": function_image(plan, options)}


def _settings(plan: RunPlan) -> Mapping[str, Any]:
    settings = plan.pod.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _labels(plan: RunPlan, instance: str) -> dict[str, str]:
    own = names.labels(instance, plan.function, plan.run_id, plan.request_id)
    return dict(plan.labels) | dict(_settings(plan).get("labels", {})) | own


def _queue(settings: Mapping[str, Any]) -> dict[str, str]:
    queue = settings.get("queue")
    return {"kueue.x-k8s.io/queue-name": queue} if queue else {}


def _annotations(plan: RunPlan, code: CodeMap | None) -> dict[str, str]:
    found = {
        names.RUN: plan.run_id,
        names.REQUEST: plan.request_id,
        names.TOPIC: plan.topic,
        names.SPEC: plan.spec_hash,
        names.CATALOG: plan.catalog,
        names.TERMS: terms.write(terms.terms_of(plan, code.name if code else None)),
    }
    if plan.deadline_at is not None:
        found[names.DEADLINE] = plan.deadline_at.astimezone(UTC).isoformat()
    if plan.traceparent is not None:
        found[names.TRACEPARENT] = plan.traceparent
    return found


def _failure_rules(plan: RunPlan) -> list[dict[str, Any]]:
    """Disruptions are never counted; a declared exit code ends the run. The first rule that fits decides."""
    rules: list[dict[str, Any]] = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    final = set(plan.no_retry_exit_codes)
    if plan.code.runtime is not None:
        final.add(NO_RETRY)
    if final:
        rules.append(_fail_rule(names.FUNCTION_CONTAINER, final))
    if plan.input is InputMode.FILE:
        rules.append(_fail_rule(names.INPUT_CONTAINER, {NO_RETRY}))
    return rules


def _fail_rule(container: str, exit_codes: set[int]) -> dict[str, Any]:
    return {
        "action": "FailJob",
        "onExitCodes": {"containerName": container, "operator": "In", "values": sorted(exit_codes)},
    }


def _pod_spec(
    plan: RunPlan, options: ManifestOptions, code: CodeMap | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.get(
            "terminationGracePeriodSeconds", max(1, math.ceil(plan.limits.grace_seconds))
        ),
        "securityContext": _pod_security(options.user_id) | settings.get("securityContext", {}),
        "containers": [_function_container(plan, options, code, settings)],
        "volumes": [*_volumes(plan, options, code), *settings.get("volumes", ())],
    }
    initial = [*_input_container(plan, options), *settings.get("initContainers", ())]
    initial += [dict(sidecar) | {"restartPolicy": "Always"} for sidecar in settings.get("sidecars", ())]
    if initial:
        spec["initContainers"] = [_secured(container) for container in initial]
    for key in _PASSED_ON:
        if key in settings:
            spec[key] = settings[key]
    if plan.limits.timeout_seconds is not None:
        limits = plan.limits
        allowed = limits.pending_timeout_seconds + plan.limits.timeout_seconds + limits.grace_seconds
        spec["activeDeadlineSeconds"] = math.ceil(allowed) + BACKSTOP_SECONDS
    return spec


_PASSED_ON = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "serviceAccountName",
    "priorityClassName",
    "runtimeClassName",
    "imagePullSecrets",
)


def _pod_security(user_id: int | None) -> dict[str, Any]:
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return security if user_id is None else security | dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), user_id)


def _secured(container: Mapping[str, Any]) -> dict[str, Any]:
    """The container with what Pod Security `restricted` asks for; what it says itself about the rest stays."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return dict(container) | {"securityContext": dict(container.get("securityContext", {})) | own}


def _function_container(
    plan: RunPlan, options: ManifestOptions, code: CodeMap | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": names.FUNCTION_CONTAINER,
        **_image(plan, options),
        "env": environment(plan, code),
        "volumeMounts": [*_mounts(plan, code), *settings.get("volumeMounts", ())],
        "terminationMessagePath": TERMINATION_FILE,
        "terminationMessagePolicy": "File",
    }
    command = command_of(plan)
    if command is not None:
        container["command"] = [escaped(word) for word in command]
    if plan.code.args:
        container["args"] = [escaped(word) for word in plan.code.args]
    if plan.code.runtime is not None:
        container["workingDir"] = work_folder(plan)
    read_only = settings.get("readOnlyRootFilesystem", plan.code.runtime is not None)
    if read_only:
        container["securityContext"] = {"readOnlyRootFilesystem": True}
    if plan.pod.get("resources"):
        container["resources"] = plan.pod["resources"]
    if settings.get("envFrom"):
        container["envFrom"] = settings["envFrom"]
    pull = settings.get("imagePullPolicy", options.image_pull_policy)
    if pull is not None:
        container["imagePullPolicy"] = pull
    return _secured(container)


def command_of(plan: RunPlan) -> list[str] | None:
    """The container's command; a program beside the function's file is run from where its code is mounted."""
    code = plan.code
    if code.command is None:
        return None
    name, *rest = code.command
    if code.folder is not None and Path(name).is_relative_to(code.folder):
        name = f"{CODE_PATH}/{Path(name).relative_to(code.folder)}"
    return [name, *rest]


def work_folder(plan: RunPlan) -> str:
    """Where the function works: its volume, or a folder that lives as long as the pod."""
    volume = plan.pod.get("volume")
    return str(volume["mountPath"]) if volume else WORK_PATH


def environment(plan: RunPlan, code: CodeMap | None) -> list[dict[str, Any]]:
    """The environment as Kubernetes writes it: the plan's variables word for word, references, and ours."""
    folder = work_folder(plan)
    values = {"HOME": folder, "TMPDIR": folder, **plan.env}
    values |= {"INVOKER_WORKDIR": folder, "INVOKER_TERMINATION_FILE": TERMINATION_FILE}
    if plan.output is not OutputMode.API:
        values.setdefault("INVOKER_OUTPUT_MODE", str(plan.output))
    if plan.input is InputMode.FILE:
        values["INVOKER_INPUT_FILE"] = INPUT_FILE
    if code is not None:
        values["INVOKER_CODE_DIR"] = CODE_PATH
    literal = [{"name": name, "value": escaped(value)} for name, value in values.items()]
    uid = {"name": "INVOKER_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    return [*literal, uid, *plan.pod.get("env", ())]


def escaped(text: str) -> str:
    """The text as it must be written so that it arrives as it is: the kubelet replaces `$(NAME)` and `$$`."""
    return text.replace("$", "$$")


def _mounts(plan: RunPlan, code: CodeMap | None) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": WORK_VOLUME, "mountPath": work_folder(plan)}]
    if plan.input is InputMode.FILE:
        mounts.append({"name": INPUT_VOLUME, "mountPath": INPUT_FOLDER, "readOnly": True})
    if code is not None:
        mounts.append({"name": CODE_VOLUME, "mountPath": CODE_PATH, "readOnly": True})
    return mounts


def _volumes(plan: RunPlan, options: ManifestOptions, code: CodeMap | None) -> list[dict[str, Any]]:
    volumes = [_work_volume(plan, options)]
    if plan.input is InputMode.FILE:
        volumes.append({"name": INPUT_VOLUME, "emptyDir": {}})
    if code is not None:
        source = {"name": code.name, "items": list(code.items), "defaultMode": 0o444}
        volumes.append({"name": CODE_VOLUME, "configMap": source})
    return volumes


def _work_volume(plan: RunPlan, options: ManifestOptions) -> dict[str, Any]:
    volume = plan.pod.get("volume")
    if not volume:
        return {"name": WORK_VOLUME, "emptyDir": {}}
    claim: dict[str, Any] = {
        "accessModes": [volume.get("accessMode") or "ReadWriteOnce"],
        "resources": {"requests": {"storage": volume["size"]}},
    }
    if volume.get("storageClass") is not None:
        claim["storageClassName"] = volume["storageClass"]
    labels = names.labels(options.instance, plan.function, plan.run_id, plan.request_id)
    return {
        "name": WORK_VOLUME,
        "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": labels}, "spec": claim}},
    }


def _input_container(plan: RunPlan, options: ManifestOptions) -> list[dict[str, Any]]:
    """What fetches the input before the function's container starts; it is given nothing but the run's address."""
    if plan.input is not InputMode.FILE:
        return []
    image = options.runtime_images.get("python")
    if image is None:
        raise StartRefusedError(
            f"function {plan.function} takes its input as a file, and no image of the python runtime fetches it",
            hint="set INVOKER_RUNTIME_IMAGES=python=IMAGE",
            reason=str(Reason.CONFIG),
        )
    passed = ("INVOKER_RUN_ID", "INVOKER_RUN_URL", "INVOKER_RUN_TOKEN", "INVOKER_DEADLINE")
    values = {name: plan.env[name] for name in passed if name in plan.env}
    values |= {"INVOKER_INPUT_FILE": INPUT_FILE, "INVOKER_TERMINATION_FILE": TERMINATION_FILE}
    env: list[dict[str, Any]] = [{"name": name, "value": escaped(value)} for name, value in values.items()]
    env.append({"name": "INVOKER_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}})
    container: dict[str, Any] = {
        "name": names.INPUT_CONTAINER,
        "image": image,
        "command": list(IMAGE_FETCH_COMMAND),
        "env": env,
        "volumeMounts": [{"name": INPUT_VOLUME, "mountPath": INPUT_FOLDER}],
        "terminationMessagePath": TERMINATION_FILE,
        "securityContext": {"readOnlyRootFilesystem": True},
    }
    if plan.pod.get("resources"):
        container["resources"] = plan.pod["resources"]
    if options.image_pull_policy is not None:
        container["imagePullPolicy"] = options.image_pull_policy
    return [container]
