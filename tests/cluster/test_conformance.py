"""The Kubernetes engine keeps every promise of the seam: the same suite as the local one, on real pods."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.engine_world import SECRET, KubernetesWorld, kubernetes_world
from tests.cluster.facts import Cluster
from tests.conformance.engine_suite import *  # noqa: F403 - the suite is its tests

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
async def engine_world(
    cluster: Cluster, module_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubernetesWorld]:
    monkeypatch.setenv("PLANTED_SECRET", SECRET)
    async with kubernetes_world(cluster, module_namespace) as world:
        yield world
