"""The service account that `deploy/rbac.yaml` gives a controller, with exactly that Role or with one verb less."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.facts import Cluster

FILE = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
MADE_ONCE = "invoker"


@dataclass(frozen=True)
class Right:
    """One verb on one resource, as in a Role."""

    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


@dataclass(frozen=True)
class Account:
    """A service account that exists, and the kubeconfig with its token."""

    cluster: Cluster
    namespace: str
    name: str
    kubeconfig: Path

    def grant_all(self) -> None:
        """It has the whole Role from now on."""
        self.cluster.apply(*objects(self.name), namespace=self.namespace)


def rights() -> Iterator[Right]:
    """Everything that the Role allows, one by one."""
    for rule in _role()["rules"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield Right(resource, verb)


def make_account(cluster: Cluster, namespace: str, folder: Path, *, without: Right | None = None) -> Account:
    """The account of `deploy/rbac.yaml` in a namespace. One that lacks a right has a name of its own."""
    name = MADE_ONCE if without is None else f"{MADE_ONCE}-{secrets.token_hex(3)}"
    cluster.apply(*objects(name, without), namespace=namespace)
    token = cluster.kubectl("create", "token", name, "--namespace", namespace, "--duration=2h").strip()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(kubeconfig_of_token(cluster, namespace, token)))
    return Account(cluster, namespace, name, file)


def objects(name: str, without: Right | None = None) -> list[dict[str, Any]]:
    """What the file holds, under another name, and perhaps with a Role that lacks a verb."""
    found = _documents()
    for document in found:
        document["metadata"]["name"] = name
        if document["kind"] == "Role" and without is not None:
            document["rules"] = [_lessened(rule, without) for rule in document["rules"]]
        if document["kind"] == "RoleBinding":
            document["subjects"] = [document["subjects"][0] | {"name": name}]
            document["roleRef"]["name"] = name
    return found


def _lessened(rule: dict[str, Any], without: Right) -> dict[str, Any]:
    if without.resource not in rule["resources"]:
        return rule
    # A rule without verbs is none: this verb allows nothing.
    return rule | {"verbs": [verb for verb in rule["verbs"] if verb != without.verb] or ["deletecollection"]}


def _documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILE.read_text()))


def _role() -> dict[str, Any]:
    return next(document for document in _documents() if document["kind"] == "Role")


def kubeconfig_of_token(cluster: Cluster, namespace: str, token: str) -> dict[str, Any]:
    """The cluster as it stands in its own kubeconfig, with the token as the only user."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(one for one in config["contexts"] if one["name"] == config["current-context"])
    known = next(one for one in config["clusters"] if one["name"] == context["context"]["cluster"])
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "invoker",
        "clusters": [{"name": "test", "cluster": _absolute(known["cluster"], cluster.kubeconfig.absolute().parent)}],
        "users": [{"name": "invoker", "user": {"token": token}}],
        "contexts": [{"name": "invoker", "context": {"cluster": "test", "user": "invoker", "namespace": namespace}}],
    }  # fmt: skip


def _absolute(cluster: dict[str, Any], base: Path) -> dict[str, Any]:
    authority = cluster.get("certificate-authority")
    return cluster | ({"certificate-authority": str(base / authority)} if authority else {})
