"""Names, label keys and paths that a function may use in its pods, those that are taken, and who pods run as.

Pure. Used twice: when a function is loaded, and again for the finished Job.
"""

from __future__ import annotations

import posixpath
import re

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
CONFIG_KEY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

USER_ID = 10001
"""Who pods run as, and their group, where neither function nor operator says otherwise."""
OURS = "invoker.dev/"
MANAGED_BY = "app.kubernetes.io/managed-by"
RESERVED_KEYS = frozenset({MANAGED_BY, "job-name", "controller-uid"})
RESERVED_VOLUMES = "invoker-"
RESERVED_PATHS = ("/code", "/invoker", "/work", "/dev", "/proc", "/sys")
FREE_LABELS = "app.kubernetes.io/"
FREE_ANNOTATIONS = (
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "kubectl.kubernetes.io/default-container",
    "kueue.x-k8s.io/",
)
_KUBERNETES = re.compile(r"(.*\.)?(x-)?(kubernetes|k8s)\.io/.*", re.DOTALL)


def problem_of_label_key(key: str) -> str | None:
    """Why pods and Jobs may not be given a label of this key; None when they may."""
    if LABEL_KEY.fullmatch(key) is None:
        return "is no legal label key"
    return _taken(key) or (None if key.startswith(FREE_LABELS) else _of_kubernetes(key, f"{FREE_LABELS}*"))


def problem_of_function_label(key: str) -> str | None:
    """Why a function may not carry a label of this key, which its Jobs get too; None when it may.

    Whatever manages the function's own object (as Helm does) says so there; on Jobs it is replaced.
    """
    return None if key == MANAGED_BY else problem_of_label_key(key)


def problem_of_annotation_key(key: str) -> str | None:
    """Why pods and Jobs may not be given an annotation of this key; None when they may."""
    if LABEL_KEY.fullmatch(key) is None:
        return "is no legal annotation key"
    return _taken(key) or (
        None if key.startswith(FREE_ANNOTATIONS) else _of_kubernetes(key, ", ".join(FREE_ANNOTATIONS))
    )


def _taken(key: str) -> str | None:
    if key in RESERVED_KEYS or key.startswith((OURS, "batch.kubernetes.io/")):
        return "is reserved: Invoker and Kubernetes find their own objects by it"
    return None


def _of_kubernetes(key: str, free: str) -> str | None:
    if _KUBERNETES.fullmatch(key) is None:
        return None
    return f"belongs to Kubernetes, where such keys change how pods are treated; allowed of those: {free}"


def problem_of_mount_path(path: str) -> str | None:
    """Why nothing of a function's own may be mounted there; None when it may."""
    problem = _problem_of_path(path)
    if problem is not None:
        return problem
    for taken in RESERVED_PATHS:
        if path == taken or path.startswith(f"{taken}/"):
            return f"{path} lies over {taken}, which is not the function's; mount it elsewhere, as /data"
    return None


def problem_of_work_path(path: str) -> str | None:
    """Why the function's volume, which is its work folder, may not be mounted there; `/work` itself may be."""
    return None if path == "/work" else problem_of_mount_path(path)


def _problem_of_path(path: str) -> str | None:
    if not path.startswith("/") or ":" in path or "\0" in path:
        return "must be an absolute path without ':'"
    if path == "/" or path.startswith("//") or posixpath.normpath(path) != path:
        return "must be a path as /data, below the root and without '.', '..', '//' or a '/' at the end"
    return None


def problem_of_sub_path(path: str) -> str | None:
    """Why this may not be the part of a volume that is mounted; None when it may."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path or not path:
        return "must be a relative path without '..'"
    return None


_FIELD_PATH = re.compile(
    r"metadata\.(name|namespace|uid)|metadata\.(labels|annotations)(\['[-A-Za-z0-9_./]{1,317}'\])?"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?)"
)
_PROFILE = re.compile(r"[\w.-]+(/[\w.-]+)*")


def problem_of_field_path(path: str) -> str | None:
    """Why this is no field of a pod that its containers may be told; None when it is."""
    if _FIELD_PATH.fullmatch(path) is None:
        return (
            f"{path[:80]!a} is no field that a container can be told; there are metadata.name, .namespace, .uid, "
            ".labels['KEY'], .annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.podIP"
        )
    return None


def problem_of_profile(path: str) -> str | None:
    """Why this is no profile below the kubelet's folder; None when it is."""
    return None if _PROFILE.fullmatch(path) and ".." not in path.split("/") else "must be a relative path without '..'"
