"""What only several parts of a function's pod show to be wrong: names that are taken, mounts of nothing, two answers.

Pure. Each part alone was checked by `function_pod` and `function_job` before; here their whole is, when the function is
loaded, for `spec.pod` and for the pod inside `spec.job` alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trigger.function_code import SpecError
from trigger.function_fields import SpecFields
from trigger.function_pod import written
from trigger.pod_names import RESERVED_VOLUMES
from trigger.pod_placeholder import Path, problem_of_pod

FUNCTION = "function"
TAKEN_CONTAINERS = {FUNCTION: "the function's own container", "input": "what fetches the input"}
_HOLDERS = ("initContainers", "sidecars")


def check_pods(spec: SpecFields, parameters: Iterable[str]) -> None:
    """Raise `SpecError` for the first thing that does not fit together in `spec.pod` or `spec.job`."""
    if spec.pod is not None:
        if spec.job is not None:
            raise SpecError("pod and job exclude each other; write it into the template of job", "spec", "pod")
        pod = written(spec.pod)
        _check_placeholders(pod, ("spec", "pod"), parameters)
        _check_pod(pod, ("spec", "pod"), _HOLDERS)
        own = [] if spec.volume is None else [{"name": "", "mountPath": spec.volume.mount_path}]
        _check_mounts(own, pod.get("volumeMounts") or [], _volumes(pod), ("spec", "pod", "volumeMounts"))
    if spec.job is not None:
        _check_job(spec, written(spec.job), parameters)


def function_container(containers: Sequence[Mapping[str, Any]]) -> int | None:
    """Which one is the function's: the one of that name, else the only one; None when there is none at all.

    Raises `ValueError`, in words, when it could be any of several.
    """
    named = [index for index, one in enumerate(containers) if one.get("name") == FUNCTION]
    if len(named) == 1:
        return named[0]
    if len(containers) > 1:
        names = ", ".join(str(one.get("name")) for one in containers)
        what = "none of them" if not named else "more than one of them"
        raise ValueError(
            f"has {len(containers)} containers ({names}) and {what} is named {FUNCTION!r}; "
            "give that name to the one whose exit ends the run"
        )
    return 0 if containers else None


def _check_placeholders(pod: Any, where: Path, parameters: Iterable[str]) -> None:
    found = problem_of_pod(pod, parameters)
    if found is not None:
        path, sentence = found
        raise SpecError(sentence, *where, *path)


def _check_pod(pod: Mapping[str, Any], where: Path, holders: tuple[str, ...]) -> None:
    """Names are there once, and what is mounted is there."""
    _once([volume["name"] for volume in pod.get("volumes") or []], "volume", (*where, "volumes"))
    seen: set[str] = set()
    for holder in holders:
        for index, container in enumerate(pod.get(holder) or []):
            place = (*where, holder, index)
            _check_container_name(container["name"], seen, holder, place)
            _check_mounts([], container.get("volumeMounts") or [], _volumes(pod), (*place, "volumeMounts"))
            _once([one["name"] for one in container.get("env") or []], "variable", (*place, "env"))


def _check_container_name(name: str, seen: set[str], holder: str, place: Path) -> None:
    if name in seen:
        raise SpecError(f"the container {name!r} is there twice", *place, "name")
    seen.add(name)
    if name in TAKEN_CONTAINERS and holder != "containers":
        raise SpecError(f"{name!r} is the name of {TAKEN_CONTAINERS[name]}; take another one", *place, "name")
    if name == "input" or name.startswith(RESERVED_VOLUMES):
        raise SpecError(f"{name!r} is a name of Invoker's own; take another one", *place, "name")


def _once(names: Sequence[str], what: str, where: Path) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(f"the {what} {name!r} is there twice", *where, index, "name")


def _volumes(pod: Mapping[str, Any]) -> list[str]:
    return [volume["name"] for volume in pod.get("volumes") or []]


def _check_mounts(
    own: Sequence[Mapping[str, Any]], mounts: Sequence[Mapping[str, Any]], volumes: Sequence[str], where: Path
) -> None:
    taken = [one["mountPath"] for one in own]
    for index, mount in enumerate(mounts):
        if mount["name"] not in volumes:
            known = ", ".join(volumes) or "none"
            raise SpecError(f"there is no volume {mount['name']!r}; volumes has: {known}", *where, index, "name")
        if mount["mountPath"] in taken:
            raise SpecError(f"{mount['mountPath']} is mounted already", *where, index, "mountPath")
        taken.append(mount["mountPath"])


def _check_job(spec: SpecFields, job: Mapping[str, Any], parameters: Iterable[str]) -> None:
    where: Path = ("spec", "job")
    _check_placeholders(job, where, parameters)
    _same(job, "backoffLimit", spec.backoff_limit)
    _same(job, "ttlSecondsAfterFinished", spec.ttl_seconds_after_finished)
    pod, place = job["template"]["spec"], (*where, "template", "spec")
    _check_pod(pod, place, ("containers", "initContainers"))
    containers = pod.get("containers") or []
    try:
        chosen = function_container(containers)
    except ValueError as error:
        raise SpecError(str(error), *place, "containers") from error
    for index, container in enumerate(containers):
        if index != chosen and "image" not in container:
            raise SpecError("needs an image", *place, "containers", index)
    if chosen is None:
        if spec.image is None and spec.runtime is None and spec.command is None:
            raise SpecError("needs a container; it may be the only one, or is named function", *place)
        return
    _check_function(spec, containers[chosen], (*place, "containers", chosen))


def _same(job: Mapping[str, Any], key: str, value: float) -> None:
    if key in job and job[key] != value:
        raise SpecError(f"is the function's own, {value:g}; write spec.{key} instead", "spec", "job", key)


def _check_function(spec: SpecFields, container: Mapping[str, Any], place: Path) -> None:
    """The function's container and the spec beside it must not both say the same thing."""
    if spec.image is None and spec.runtime is None and spec.command is None and "image" not in container:
        raise SpecError("needs an image", *place)
    if "image" in container and spec.runtime is not None:
        raise SpecError("runtime chooses the image; leave one of both out", *place, "image")
    for key, given in (("image", spec.image), ("command", spec.command), ("args", spec.args or None)):
        if key in container and given is not None:
            raise SpecError(f"spec.{key} says so already; leave one of both out", *place, key)
    for key in ("command", "args"):
        if key in container and spec.runtime is not None:
            raise SpecError("the runtime starts the handler itself", *place, key)
    if "resources" in container and (spec.resources.requests or spec.resources.limits):
        raise SpecError("spec.resources says so already; leave one of both out", *place, "resources")
    names = {one.name for one in spec.env}
    for index, variable in enumerate(container.get("env") or []):
        if variable["name"] in names:
            raise SpecError(f"spec.env has {variable['name']} too", *place, "env", index, "name")
    if spec.volume is not None:
        _check_free(spec.volume.mount_path, container, place)


def _check_free(path: str, container: Mapping[str, Any], place: Path) -> None:
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount["mountPath"] == path:
            raise SpecError(f"{path} is mounted already, by spec.volume", *place, "volumeMounts", index, "mountPath")
