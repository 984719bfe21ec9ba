"""What the chart makes of values, without a cluster, and ways to find things in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Helm, HelmError

RELEASE, NAMESPACE = "rel", "apps"
NAME = f"{RELEASE}-invoker"
Document = dict[str, Any]


class Rendering:
    """The objects for given values; the same values are rendered once."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm
        self._known: dict[tuple[str, ...], list[Document]] = {}

    def __call__(
        self, values: Mapping[str, Any] | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE
    ) -> list[Document]:
        key = (json.dumps(values or {}, sort_keys=True), release, namespace)
        if key not in self._known:
            text = self._template(values or {}, release, namespace)
            self._known[key] = [document for document in yaml.safe_load_all(text) if document]
        return self._known[key]

    def refusal(self, values: Mapping[str, Any]) -> str:
        """What helm says of values that it refuses."""
        with pytest.raises(HelmError) as refused:
            self._template(values, RELEASE, NAMESPACE)
        return str(refused.value)

    def _template(self, values: Mapping[str, Any], release: str, namespace: str) -> str:
        place = (release, str(CHART), "--namespace", namespace)
        return self._helm("template", *place, "--values", "-", given=json.dumps(values))


@cache
def rendering(helm: Helm) -> Rendering:
    """The one rendering of all tests with this helm."""
    return Rendering(helm)


def of_kind(documents: Sequence[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def the(documents: Sequence[Document], kind: str, name: str) -> Document:
    """The one object of that kind and name."""
    (found,) = [one for one in of_kind(documents, kind) if one["metadata"]["name"] == name]
    return found


def pods(documents: Sequence[Document]) -> Iterator[tuple[str, Document]]:
    """Every pod, in a template or by itself, with the name of what makes it."""
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            yield name, document
        elif "template" in document.get("spec", {}):
            yield name, document["spec"]["template"]


def containers(pod: Document) -> list[Document]:
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


def decoded(secret: Document) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def variables(pod: Document) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for container in containers(pod) for one in container.get("env", [])}


def annotations_of_pods(documents: list[Document], kind: str, name: str) -> dict[str, str]:
    return dict(the(documents, kind, name)["spec"]["template"]["metadata"].get("annotations", {}))


def named(documents: list[Document], kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in of_kind(documents, kind)}


def references(pod: Document) -> set[tuple[str, str]]:
    """The Secrets, ConfigMaps and accounts that a pod cannot start without."""
    found = {("ServiceAccount", pod["spec"].get("serviceAccountName", "default"))}
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            found.add(("Secret", volume["secret"]["secretName"]))
        if "configMap" in volume:
            found.add(("ConfigMap", volume["configMap"]["name"]))
    for container in containers(pod):
        for one in container.get("env", []):
            if "valueFrom" in one:
                found.add(("Secret", one["valueFrom"]["secretKeyRef"]["name"]))
    return found
