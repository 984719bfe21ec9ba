"""What the API server was asked for, by its own audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.cluster.facts import Cluster


@dataclass(frozen=True)
class Asked:
    """One finished request. `what` is verb and resource as in a Role, but for logs, which are `log pods`.

    `subject` has the names that it is about: its path and query, and the name of what was made.
    """

    what: str
    status: int
    subject: str


def asked_by(cluster: Cluster, namespace: str, account: str) -> list[Asked]:
    """All that a service account of this namespace has asked for there, oldest first."""
    user = f"system:serviceaccount:{namespace}:{account}"
    return [_asked(line) for line in _lines(cluster, f'"username":"{user}"') if _namespace_of(line) == namespace]


def created_jobs(cluster: Cluster, namespace: str) -> Iterator[dict[str, Any]]:
    """Every Job that was ever made in this namespace, by whomever, as it was made."""
    return (line["responseObject"] for line in _creations(cluster, namespace, "jobs"))


def created_claims(cluster: Cluster, namespace: str) -> Iterator[dict[str, Any]]:
    """The name, under `name`, of every volume claim that was ever made in this namespace."""
    return (line["objectRef"] for line in _creations(cluster, namespace, "persistentvolumeclaims"))


def _creations(cluster: Cluster, namespace: str, resource: str) -> Iterator[dict[str, Any]]:
    for line in _lines(cluster, f'"namespace":"{namespace}"'):
        is_creation = line["verb"] == "create" and line["objectRef"]["resource"] == resource
        if is_creation and line["responseStatus"]["code"] == 201 and "dryRun" not in line["requestURI"]:
            yield line


def _lines(cluster: Cluster, text: str) -> Iterator[dict[str, Any]]:
    assert cluster.audit_log is not None, "this cluster's audit log is not ours to read"
    with cluster.audit_log.open() as log:
        for line in log:
            if text in line and line.endswith("\n"):
                yield json.loads(line)


def _namespace_of(line: dict[str, Any]) -> str:
    return str(line.get("objectRef", {}).get("namespace", ""))


def _asked(line: dict[str, Any]) -> Asked:
    about = line["objectRef"]
    verb = "log" if about.get("subresource") == "log" else line["verb"]
    subject = f"{line['requestURI']} {about.get('name', '')}"
    return Asked(f"{verb} {about['resource']}", line["responseStatus"]["code"], subject)
