"""A function's own `job:` under what Invoker forces on every Job.

Pure. The function's settings lie under ours: what ours do not mention stays, what both say alike is harmless, and what
contradicts ours is refused with its place, never silently replaced. Which values are ours to force and which are only
our defaults is the table `DEFAULTS` here. The result still goes through `policy.refusals`, like every Job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.kubernetes_engine.names import FUNCTION_CONTAINER
from trigger.pod_check import function_container

DEFAULTS = (
    ("template", "spec", "terminationGracePeriodSeconds"),
    ("template", "spec", "enableServiceLinks"),
    *(
        ("template", "spec", "securityContext", name)
        for name in (
            "runAsUser",
            "runAsGroup",
            "fsGroup",
            "fsGroupChangePolicy",
            "supplementalGroups",
            "seccompProfile",
        )
    ),
    ("template", "spec", "containers", FUNCTION_CONTAINER, "securityContext", "readOnlyRootFilesystem"),
    ("template", "spec", "containers", FUNCTION_CONTAINER, "image"),
    ("template", "spec", "containers", FUNCTION_CONTAINER, "imagePullPolicy"),
    ("template", "spec", "containers", FUNCTION_CONTAINER, "workingDir"),
    ("template", "spec", "containers", FUNCTION_CONTAINER, "terminationMessagePolicy"),
    *(
        ("template", "spec", "containers", FUNCTION_CONTAINER, "env", name, "value")
        for name in ("TOPIC", "HOME", "TMPDIR")
    ),
)
"""What Invoker sets when a function's own Job does not; everything else that Invoker sets is forced."""

NAMED = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
ADDED = frozenset({"tolerations", "imagePullSecrets", "topologySpreadConstraints", "envFrom", "ports"})
ORDERED = frozenset({"command", "args"})
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""The securityContext of every container, whoever wrote it."""

REPEATED = frozenset({"podFailurePolicy", "ttlSecondsAfterFinished"})
"""What the loader lets a function say only as it holds anyway. Ours stands for it and looks different: more rules, and
a longer time while the result is not sealed."""

Place = tuple[str, ...]


def merged(job: Mapping[str, Any], forced: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of the Job: the function's own `job:` (placeholders filled) with everything of `forced` over it.

    `forced` is the JobSpec that Invoker makes for the run, whose container is named `function`. The function's
    container in `job` is the one of that name, else the only one; it gets that name. Every other container is hardened
    too. The arguments are not changed. Raises `StartRefusedError` (reason `config`) for what contradicts `forced`.
    """
    own = _renamed(job)
    whole = _merge(own, forced, ())
    pod = whole["template"]["spec"]
    for kind in ("initContainers", "containers"):
        if kind in pod:
            pod[kind] = [hardened(one, ("template", "spec", kind, str(one.get("name")))) for one in pod[kind]]
    return dict(whole)


def hardened(container: Mapping[str, Any], place: Place = ()) -> dict[str, Any]:
    """The container with the securityContext that every one gets. Raises `StartRefusedError` when its own differs."""
    context = _merge(container.get("securityContext") or {}, HARDENED, (*place, "securityContext"))
    return {**container, "securityContext": context}


def _renamed(job: Mapping[str, Any]) -> dict[str, Any]:
    template = _mapping(job.get("template"), ("template",))
    pod = _mapping(template.get("spec"), ("template", "spec"))
    containers = _mappings(pod.get("containers"), ("template", "spec", "containers"))
    initial = _mappings(pod.get("initContainers"), ("template", "spec", "initContainers"))
    try:
        index = function_container(containers)
    except ValueError as error:
        raise _refused(("template", "spec", "containers"), str(error)) from error
    if index is not None:
        containers[index] = {**containers[index], "name": FUNCTION_CONTAINER}
    rest = {name: value for name, value in job.items() if name not in REPEATED}
    changed = {"containers": containers} | ({"initContainers": initial} if "initContainers" in pod else {})
    return {**rest, "template": {**template, "spec": {**pod, **changed}}}


def _mapping(value: Any, place: Place) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise _refused(place, "must be a mapping")
    return dict(value or {})


def _mappings(value: Any, place: Place) -> list[dict[str, Any]]:
    if value is not None and not isinstance(value, list | tuple):
        raise _refused(place, "must be a list")
    return [_mapping(one, place) for one in value or ()]


def _merge(own: Any, forced: Any, place: Place) -> Any:
    if isinstance(forced, Mapping) and isinstance(own, Mapping):
        return _merge_mappings(own, forced, place)
    if isinstance(forced, list | tuple) and isinstance(own, list | tuple):
        return _merge_lists(own, forced, place)
    if place in DEFAULTS:
        return own
    if type(own) is not type(forced) or own != forced:
        raise _refused(place, f"is {_shown(forced)} on every Job of Invoker, not {_shown(own)}; leave it out")
    return forced


def _merge_mappings(own: Mapping[str, Any], forced: Mapping[str, Any], place: Place) -> dict[str, Any]:
    result = dict(forced)
    for name, value in own.items():
        result[name] = _merge(value, forced[name], (*place, name)) if name in forced else value
    return result


def _merge_lists(own: Sequence[Any], forced: Sequence[Any], place: Place) -> list[Any]:
    kind = place[-1] if place else ""
    if kind in NAMED:
        return _merge_named(own, forced, place, NAMED[kind])
    if kind in ADDED:
        return [*forced, *(one for one in own if one not in forced)]
    if place in DEFAULTS:
        return list(own)
    for one in own:
        if one not in forced or (kind in ORDERED and list(own) != list(forced)):
            raise _refused(place, f"{_shown(one)} contradicts what every Job of Invoker has: {_shown(list(forced))}")
    return list(forced)


def _merge_named(own: Sequence[Any], forced: Sequence[Any], place: Place, key: str) -> list[Any]:
    """Ours first: a variable of theirs may then refer to one of ours, and the input is there before theirs begin."""
    theirs = {one[key]: one for one in own if isinstance(one, Mapping) and isinstance(one.get(key), str)}
    if len(theirs) != len(own):
        raise _refused(place, f"every entry must be a mapping with a {key} of its own")
    result = []
    for one in forced:
        name = one.get(key)
        same = theirs.pop(name, None)
        result.append(one if same is None else _merge(same, one, (*place, str(name))))
    return [*result, *theirs.values()]


def _refused(place: Place, sentence: str) -> StartRefusedError:
    return StartRefusedError(f"job: {'.'.join(place)}: {sentence}", reason=str(Reason.CONFIG))


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
