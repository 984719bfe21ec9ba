"""Places in the chart's documents, and what is seen there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chart.rendering import NAME, Document

Step = str | int | tuple[str, str]
Place = tuple[str, str, tuple[Step, ...]]
ABSENT = object()


def look(documents: Sequence[Document], place: Place) -> Any:
    """What is at the place: `ABSENT` where the object or a step of the way is not there.

    A step is a key, an index, or (key, value) for the one item of a list that has it.
    """
    kind, name, steps = place
    found: Any = next((one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name)), ABSENT)
    for step in steps:
        if found is ABSENT:
            break
        found = _after(found, step)
    return found


def _after(found: Any, step: Step) -> Any:
    if isinstance(step, tuple):
        return next((item for item in found if item.get(step[0]) == step[1]), ABSENT)
    if isinstance(step, int):
        return found[step] if isinstance(found, list) and step < len(found) else ABSENT
    return found.get(step, ABSENT) if isinstance(found, Mapping) else ABSENT


def pod(component: str, *steps: Step) -> Place:
    kind = "StatefulSet" if component == "nats" else "Deployment"
    return (kind, f"{NAME}-{component}", ("spec", "template", "spec", *steps))


def container(component: str, *steps: Step) -> Place:
    return pod(component, "containers", ("name", component), *steps)


def env(component: str, variable: str) -> Place:
    return container(component, "env", ("name", variable), "value")


def volume(component: str, name: str, *steps: Step) -> Place:
    return pod(component, "volumes", ("name", name), *steps)


def policy(name: str, *steps: Step) -> Place:
    return ("NetworkPolicy", f"{NAME}-{name}", ("spec", *steps))


def meta(kind: str, name: str, *steps: Step) -> Place:
    return (kind, name, ("metadata", *steps))
