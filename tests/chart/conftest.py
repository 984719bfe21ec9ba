"""Fixtures of the chart's tests: `helm` alone, and with releases on a real cluster."""

from __future__ import annotations

import os

import pytest

from tests.chart.helm import Helm, helm_program

NOT_BUILT = "helm is not built here (a part of Kubernetes for the tests); try: make cluster-build"


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm without a cluster: to render, lint and package."""
    program = helm_program()
    if program is not None:
        return Helm(program)
    if os.environ.get("INVOKER_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"INVOKER_REQUIRE_CLUSTER=1, but: {NOT_BUILT}")
    pytest.skip(NOT_BUILT)
