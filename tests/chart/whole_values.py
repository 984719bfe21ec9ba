"""Values of many cases at once, and those whose renderings between them have every object of the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chart.rendering import NAME, Document
from tests.chart.values_cases import CASES, Case


def merged(cases: Sequence[Case]) -> Document:
    """The values of all of them at once."""
    values: Document = {}
    for case in cases:
        _merge(values, case.values)
    return values


def _merge(into: Document, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


CONTROLLER = ("Deployment", f"{NAME}-controller")
EVERYTHING = merged([case for case in CASES if case.group == "all"])
TENANTS = {
    "jobs": {"namespace": "work"},
    "tenants": {"blue": {"jobs": {"namespace": "blue"}, "settings": {"instance": "acme-1", "topicPrefix": "in"}}},
}
ALL = [{}, EVERYTHING, merged([case for case in CASES if case.group == "external"]), TENANTS]
"""Renderings that between them have every object of the chart."""
